#include "gguf/metadata.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gguf/error.h"
#include "gguf/quoted.h"

namespace gguf {
namespace {

std::string_view ValueTypeName(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
      return "a uint8";
    case ValueType::kInt8:
      return "an int8";
    case ValueType::kUint16:
      return "a uint16";
    case ValueType::kInt16:
      return "an int16";
    case ValueType::kUint32:
      return "a uint32";
    case ValueType::kInt32:
      return "an int32";
    case ValueType::kFloat32:
      return "a float32";
    case ValueType::kBool:
      return "a bool";
    case ValueType::kString:
      return "a string";
    case ValueType::kArray:
      return "an array";
    case ValueType::kUint64:
      return "a uint64";
    case ValueType::kInt64:
      return "an int64";
    case ValueType::kFloat64:
      return "a float64";
  }
  return "of an unknown type";
}

std::string Describe(const MetadataValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value.value)) {
    return std::string(ValueTypeName(value.type)) + " of value " + std::to_string(*number);
  }
  if (const auto* number = std::get_if<uint64_t>(&value.value)) {
    return std::string(ValueTypeName(value.type)) + " of value " + std::to_string(*number);
  }
  if (const auto* array = std::get_if<MetadataArray>(&value.value)) {
    return "an array whose elements are each " + std::string(ValueTypeName(array->element_type));
  }
  return std::string(ValueTypeName(value.type));
}

[[noreturn]] void ThrowMismatch(std::string_view key, std::string_view expected,
                                const MetadataValue& value) {
  throw FormatError("metadata key " + Quoted(key) + ": expected " + std::string(expected) +
                    ", found " + Describe(value));
}

[[noreturn]] void ThrowAbsent(std::string_view key, std::string_view expected) {
  throw FormatError("metadata key " + Quoted(key) + " is missing: expected " +
                    std::string(expected));
}

constexpr std::string_view kUintWanted = "an unsigned integer";
constexpr std::string_view kFloatWanted = "a number";
constexpr std::string_view kBoolWanted = "a bool";
constexpr std::string_view kStringWanted = "a string";

uint64_t ToUint(std::string_view key, const MetadataValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value.value)) return *number;
  const auto* number = std::get_if<int64_t>(&value.value);
  if (number == nullptr || *number < 0) ThrowMismatch(key, kUintWanted, value);
  return static_cast<uint64_t>(*number);
}

double ToFloat(std::string_view key, const MetadataValue& value) {
  // Above 2^53 a double no longer holds every integer.
  constexpr int64_t kExactInteger = int64_t{1} << 53;
  if (const auto* number = std::get_if<double>(&value.value)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value.value)) {
    if (*number >= -kExactInteger && *number <= kExactInteger) return static_cast<double>(*number);
  }
  if (const auto* number = std::get_if<uint64_t>(&value.value)) {
    if (*number <= uint64_t{kExactInteger}) return static_cast<double>(*number);
  }
  ThrowMismatch(key, kFloatWanted, value);
}

bool ToBool(std::string_view key, const MetadataValue& value) {
  const auto* flag = std::get_if<bool>(&value.value);
  if (flag == nullptr) ThrowMismatch(key, kBoolWanted, value);
  return *flag;
}

const std::string& ToString(std::string_view key, const MetadataValue& value) {
  const auto* text = std::get_if<std::string>(&value.value);
  if (text == nullptr) ThrowMismatch(key, kStringWanted, value);
  return *text;
}

const MetadataArray& ToArray(std::string_view key, std::string_view expected,
                             const MetadataValue& value) {
  const auto* array = std::get_if<MetadataArray>(&value.value);
  if (array == nullptr) ThrowMismatch(key, expected, value);
  return *array;
}

}  // namespace

size_t MetadataArray::size() const {
  return std::visit([](const auto& elements) { return elements.size(); }, values);
}

Metadata Metadata::FromEntries(std::vector<std::pair<std::string, MetadataValue>> entries) {
  // Sorted, not hashed: a file with crafted keys must not buy quadratic time.
  std::vector<std::string_view> keys;
  keys.reserve(entries.size());
  for (const auto& [key, value] : entries) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  const auto duplicate = std::adjacent_find(keys.begin(), keys.end());
  if (duplicate != keys.end()) {
    throw FormatError("metadata key " + Quoted(*duplicate) +
                      " occurs more than once: expected unique keys");
  }
  Metadata metadata;
  metadata.entries_ = std::move(entries);
  return metadata;
}

const MetadataValue* Metadata::FindValue(std::string_view key) const {
  for (const auto& [name, value] : entries_) {
    if (name == key) return &value;
  }
  return nullptr;
}

uint64_t Metadata::GetUint(std::string_view key) const {
  const auto value = FindUint(key);
  if (!value) ThrowAbsent(key, kUintWanted);
  return *value;
}

double Metadata::GetFloat(std::string_view key) const {
  const auto value = FindFloat(key);
  if (!value) ThrowAbsent(key, kFloatWanted);
  return *value;
}

bool Metadata::GetBool(std::string_view key) const {
  const auto value = FindBool(key);
  if (!value) ThrowAbsent(key, kBoolWanted);
  return *value;
}

const std::string& Metadata::GetString(std::string_view key) const {
  const std::string* value = FindString(key);
  if (value == nullptr) ThrowAbsent(key, kStringWanted);
  return *value;
}

std::optional<uint64_t> Metadata::FindUint(std::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  return ToUint(key, *value);
}

std::optional<double> Metadata::FindFloat(std::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  return ToFloat(key, *value);
}

std::optional<bool> Metadata::FindBool(std::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  return ToBool(key, *value);
}

const std::string* Metadata::FindString(std::string_view key) const {
  const MetadataValue* value = FindValue(key);
  return value == nullptr ? nullptr : &ToString(key, *value);
}

const std::vector<std::string>* Metadata::FindStrings(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of strings";
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return nullptr;
  const auto* strings =
      std::get_if<std::vector<std::string>>(&ToArray(key, kWanted, *value).values);
  if (strings == nullptr) ThrowMismatch(key, kWanted, *value);
  return strings;
}

std::optional<std::vector<int64_t>> Metadata::FindInts(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of integers";
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  const MetadataArray& array = ToArray(key, kWanted, *value);
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&array.values)) return *ints;
  const auto* uints = std::get_if<std::vector<uint64_t>>(&array.values);
  if (uints == nullptr || array.element_type == ValueType::kBool) {
    ThrowMismatch(key, kWanted, *value);
  }
  std::vector<int64_t> converted;
  converted.reserve(uints->size());
  for (const uint64_t element : *uints) {
    if (element > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      throw FormatError("metadata key " + Quoted(key) + ": expected integers below 2^63, found " +
                        std::to_string(element));
    }
    converted.push_back(static_cast<int64_t>(element));
  }
  return converted;
}

std::optional<std::vector<double>> Metadata::FindFloats(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of floats";
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  const auto* floats = std::get_if<std::vector<double>>(&ToArray(key, kWanted, *value).values);
  if (floats == nullptr) ThrowMismatch(key, kWanted, *value);
  return *floats;
}

void Metadata::Set(std::string key, MetadataValue value) {
  for (auto& [name, existing] : entries_) {
    if (name == key) {
      existing = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

void Metadata::Remove(std::string_view key) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
}

}  // namespace gguf
