#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/text/value.h"

namespace tests {

// JSON as template data.
inline engine::text::Value ToValue(const nlohmann::ordered_json& json) {
  using engine::text::Value;
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_string()) return Value(json.get<std::string>());
  if (json.is_array()) {
    engine::text::Array array;
    for (const auto& item : json) array.push_back(ToValue(item));
    return Value(std::move(array));
  }
  if (json.is_object()) {
    engine::text::Object object;
    for (const auto& [key, item] : json.items()) object.Set(key, ToValue(item));
    return Value(std::move(object));
  }
  return Value();
}

}  // namespace tests
