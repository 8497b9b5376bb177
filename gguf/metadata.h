#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace gguf {

// Value types by their id in the file.
enum class ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// An array of metadata; one member is in use according to element_type.
struct MetadataArray {
  ValueType element_type = ValueType::kUint8;
  std::variant<std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
               std::vector<std::string>, std::vector<MetadataArray>>
      values;

  size_t size() const;
};

// A metadata value. Signed integers are held as int64_t, unsigned as uint64_t, floats as double
// (exact for float32); type keeps what the file declared.
struct MetadataValue {
  ValueType type = ValueType::kUint8;
  std::variant<bool, int64_t, uint64_t, double, std::string, MetadataArray> value;
};

// Key-value pairs of a GGUF file, in file order, with typed look-ups.
//
// Get*:   the key must be there and convertible without loss; otherwise FormatError names the key,
//         the expected and the actual type or value.
// Find*:  std::nullopt when the key is absent; a wrong type still throws.
class Metadata {
 public:
  // Errors: FormatError when a key occurs twice.
  static Metadata FromEntries(std::vector<std::pair<std::string, MetadataValue>> entries);

  bool Has(std::string_view key) const { return FindValue(key) != nullptr; }
  const MetadataValue* FindValue(std::string_view key) const;
  const std::vector<std::pair<std::string, MetadataValue>>& entries() const { return entries_; }

  uint64_t GetUint(std::string_view key) const;
  double GetFloat(std::string_view key) const;
  bool GetBool(std::string_view key) const;
  const std::string& GetString(std::string_view key) const;

  std::optional<uint64_t> FindUint(std::string_view key) const;
  std::optional<double> FindFloat(std::string_view key) const;
  std::optional<bool> FindBool(std::string_view key) const;
  const std::string* FindString(std::string_view key) const;

  // nullptr when absent; throws when the key is not an array of that kind of element.
  const std::vector<std::string>* FindStrings(std::string_view key) const;
  std::optional<std::vector<int64_t>> FindInts(std::string_view key) const;   // any integer type
  std::optional<std::vector<double>> FindFloats(std::string_view key) const;  // f32 or f64

  // Adds or replaces.
  void Set(std::string key, MetadataValue value);
  void Remove(std::string_view key);  // nothing when absent

 private:
  std::vector<std::pair<std::string, MetadataValue>> entries_;
};

}  // namespace gguf
