#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace engine::text {

class Value;
using Array = std::vector<Value>;

// An object that keeps insertion order, as Python's dict and template authors expect.
class Object {
 public:
  const Value* Find(std::string_view key) const;
  void Set(std::string key, Value value);  // replaces in place or appends
  size_t size() const;
  const std::vector<std::pair<std::string, Value>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, Value>> items_;
  // Positions by key, only in large objects. A tree: hashes of request data can be made collide.
  std::map<std::string, size_t, std::less<>> index_;
};

// Plain data that crosses from the JSON of a request into templates and schemas. Arrays and objects
// are shared, never changed after they are built.
class Value {
 public:
  using ArrayPtr = std::shared_ptr<const Array>;
  using ObjectPtr = std::shared_ptr<const Object>;

  Value() = default;  // null
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(Array value) : data_(std::make_shared<const Array>(std::move(value))) {}
  Value(Object value) : data_(std::make_shared<const Object>(std::move(value))) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  const bool* as_bool() const { return std::get_if<bool>(&data_); }
  const int64_t* as_int() const { return std::get_if<int64_t>(&data_); }
  const double* as_double() const { return std::get_if<double>(&data_); }
  const std::string* as_string() const { return std::get_if<std::string>(&data_); }
  const Array* as_array() const;    // nullptr when it is something else
  const Object* as_object() const;  // nullptr when it is something else

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, ArrayPtr, ObjectPtr> data_;
};

// Here because a vector of an incomplete type can't be asked for its size.
inline size_t Object::size() const { return items_.size(); }

}  // namespace engine::text
