#include "engine/text/value.h"

namespace engine::text {
namespace {

// Objects smaller than this are searched one entry after the other.
constexpr size_t kIndexedSize = 16;

}  // namespace

const Value* Object::Find(std::string_view key) const {
  if (items_.size() >= kIndexedSize) {
    const auto it = index_.find(key);
    return it == index_.end() ? nullptr : &items_[it->second].second;
  }
  for (const auto& [name, value] : items_) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Object::Set(std::string key, Value value) {
  if (const Value* found = Find(key)) {
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  items_.emplace_back(std::move(key), std::move(value));
  if (items_.size() < kIndexedSize) return;
  const size_t first = items_.size() == kIndexedSize ? 0 : items_.size() - 1;
  for (size_t i = first; i < items_.size(); ++i) index_.emplace(items_[i].first, i);
}

const Array* Value::as_array() const {
  const auto* array = std::get_if<ArrayPtr>(&data_);
  return array != nullptr ? array->get() : nullptr;
}

const Object* Value::as_object() const {
  const auto* object = std::get_if<ObjectPtr>(&data_);
  return object != nullptr ? object->get() : nullptr;
}

}  // namespace engine::text
