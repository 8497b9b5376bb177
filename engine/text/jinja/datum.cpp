#include "engine/text/jinja/datum.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja/interpreter.h"

namespace engine::text::jinja {
namespace {

struct UndefinedObject final : HeapObject {
  explicit UndefinedObject(std::string m) : message(std::move(m)) {}
  const std::string message;
};

// Dicts smaller than this are searched one entry after the other.
constexpr size_t kIndexedSize = 16;

// Keys such as tuples and none are compared one by one.
constexpr size_t kMaxOtherKeys = 1000;

// A key that shares its parts could be exponentially large when it is compared.
constexpr size_t kMaxKeyNodes = 100;

void CheckHashable(const Datum& key, size_t* nodes) {
  if (++*nodes > kMaxKeyNodes) throw RenderError("a tuple is too large for a key");
  if (key.is(Kind::kList) || key.is(Kind::kDict)) {
    throw RenderError("unhashable type: '" + std::string(key.type_name()) + "'");
  }
  if (!key.is(Kind::kTuple)) return;
  for (const Datum& item : key.items()) CheckHashable(item, nodes);
}

void SetDepth(HeapObject* object, uint32_t deepest_child) {
  object->depth = deepest_child + 1;
  if (object->depth > kMaxDataDepth) throw RenderError("data is nested too deeply");
}

uint32_t DeepestOf(const std::vector<Datum>& items) {
  uint32_t depth = 0;
  for (const Datum& item : items) depth = std::max(depth, item.depth());
  return depth;
}

std::shared_ptr<SequenceObject> MakeSequence(std::vector<Datum> items) {
  auto object = std::make_shared<SequenceObject>();
  SetDepth(object.get(), DeepestOf(items));
  object->items = std::move(items);
  return object;
}

}  // namespace

Datum Datum::Bool(bool value) {
  Datum datum(Kind::kBool);
  datum.scalar_.integer = value ? 1 : 0;
  return datum;
}

Datum Datum::Int(int64_t value) {
  Datum datum(Kind::kInt);
  datum.scalar_.integer = value;
  return datum;
}

Datum Datum::Float(double value) {
  Datum datum(Kind::kFloat);
  datum.scalar_.real = value;
  return datum;
}

Datum Datum::String(std::string value) {
  return Datum(Kind::kString, std::make_shared<StringObject>(std::move(value)));
}

Datum Datum::List(std::vector<Datum> items) {
  return Datum(Kind::kList, MakeSequence(std::move(items)));
}

Datum Datum::Tuple(std::vector<Datum> items) {
  return Datum(Kind::kTuple, MakeSequence(std::move(items)));
}

Datum Datum::GroupTuple(Datum grouper, Datum list) {
  auto object = MakeSequence({std::move(grouper), std::move(list)});
  object->grouped = true;
  return Datum(Kind::kTuple, std::move(object));
}

Datum Datum::Dict(std::shared_ptr<DictObject> dict) {
  uint32_t depth = 0;
  for (const auto& [key, value] : dict->entries()) {
    depth = std::max({depth, key.depth(), value.depth()});
  }
  SetDepth(dict.get(), depth);
  return Datum(Kind::kDict, std::move(dict));
}

Datum Datum::From(std::shared_ptr<Exotic> object) {
  return Datum(Kind::kExotic, std::move(object));
}

Datum Datum::Undefined(std::string message) {
  return Datum(Kind::kUndefined, std::make_shared<UndefinedObject>(std::move(message)));
}

Datum Datum::UndefinedName(std::string_view name) {
  std::string message(1, '\'');
  message.append(name).append("' is undefined");
  return Undefined(std::move(message));
}

double Datum::number() const {
  return kind_ == Kind::kFloat ? scalar_.real : static_cast<double>(scalar_.integer);
}

const std::string& Datum::string() const {
  return static_cast<const StringObject*>(heap_.get())->text;
}

const std::vector<Datum>& Datum::items() const {
  return static_cast<const SequenceObject*>(heap_.get())->items;
}

bool Datum::is_group_tuple() const {
  return kind_ == Kind::kTuple && static_cast<const SequenceObject*>(heap_.get())->grouped;
}

const DictObject& Datum::dict() const { return *static_cast<const DictObject*>(heap_.get()); }

std::shared_ptr<const DictObject> Datum::dict_ptr() const {
  return std::static_pointer_cast<const DictObject>(heap_);
}

Exotic& Datum::exotic() const { return *static_cast<Exotic*>(heap_.get()); }

std::shared_ptr<Exotic> Datum::exotic_ptr() const {
  return std::static_pointer_cast<Exotic>(heap_);
}

const std::string& Datum::undefined_message() const {
  return static_cast<const UndefinedObject*>(heap_.get())->message;
}

std::string_view Datum::type_name() const {
  switch (kind_) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kExotic:
      return exotic().type_name();
  }
  return "";
}

void RequireHashable(const Datum& key) {
  size_t nodes = 0;
  CheckHashable(key, &nodes);
}

const Datum* DictObject::Find(const Datum& key) const {
  const std::optional<size_t> index = IndexOf(key);
  return index ? &entries_[*index].second : nullptr;
}

const Datum* DictObject::Find(std::string_view key) const {
  const std::optional<size_t> index = IndexOfString(key);
  return index ? &entries_[*index].second : nullptr;
}

std::optional<size_t> DictObject::IndexOfString(std::string_view key) const {
  if (entries_.size() >= kIndexedSize) {
    const auto it = strings_.find(key);
    return it == strings_.end() ? std::nullopt : std::optional(it->second);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Datum& other = entries_[i].first;
    if (other.is_string() && other.string() == key) return i;
  }
  return std::nullopt;
}

std::optional<size_t> DictObject::IndexOf(const Datum& key) const {
  if (key.is_string()) return IndexOfString(key.string());
  if (key.is_number()) {
    const long double number =
        key.is(Kind::kFloat) ? key.real() : static_cast<long double>(key.integer());
    if (entries_.size() >= kIndexedSize && !std::isnan(number)) {
      const auto it = numbers_.find(number);
      return it == numbers_.end() ? std::nullopt : std::optional(it->second);
    }
    for (size_t i = 0; i < entries_.size() && i < kIndexedSize; ++i) {
      const Datum& other = entries_[i].first;
      if (!other.is_number()) continue;
      const long double value =
          other.is(Kind::kFloat) ? other.real() : static_cast<long double>(other.integer());
      if (value == number) return i;
    }
    return std::nullopt;
  }
  for (const size_t i : others_) {
    if (SameKey(entries_[i].first, key)) return i;
  }
  return std::nullopt;
}

void DictObject::Set(Datum key, Datum value) {
  RequireHashable(key);
  if (const std::optional<size_t> index = IndexOf(key)) {
    entries_[*index].second = std::move(value);
    return;
  }
  if (!key.is_string() && !key.is_number()) {
    if (others_.size() >= kMaxOtherKeys) throw RenderError("a dict has too many keys");
    others_.push_back(entries_.size());
  }
  entries_.emplace_back(std::move(key), std::move(value));
  const size_t first = entries_.size() == kIndexedSize ? 0 : entries_.size() - 1;
  if (entries_.size() < kIndexedSize) return;
  for (size_t i = first; i < entries_.size(); ++i) {
    const Datum& stored = entries_[i].first;
    if (stored.is_string()) strings_.emplace(stored.string(), i);
    if (stored.is(Kind::kFloat) && std::isnan(stored.real())) continue;
    if (stored.is(Kind::kFloat)) numbers_.emplace(stored.real(), i);
    if (stored.is_integral()) numbers_.emplace(static_cast<long double>(stored.integer()), i);
  }
}

Datum Exotic::Call(Interpreter&, Arguments&) {
  throw RenderError("'" + std::string(type_name()) + "' object is not callable");
}

}  // namespace engine::text::jinja
