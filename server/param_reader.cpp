#include "server/param_reader.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace server {
namespace {

std::string Shown(double number) { return Json(number).dump(); }

}  // namespace

ParamReader::ParamReader(const Json& body, std::string prefix, ParamReader* outer)
    : body_(body), prefix_(std::move(prefix)), outer_(outer) {
  if (body_.is_object()) return;
  if (prefix_.empty()) {
    throw BadRequest("The request body must be a JSON object, but it is " +
                     std::string(TypeName(body_)) + ".");
  }
  throw InvalidType(prefix_.substr(0, prefix_.size() - 1), "an object", TypeName(body_));
}

ParamReader::~ParamReader() {
  if (outer_ == nullptr) return;
  for (std::string& name : Unknown()) outer_->unknown_inside_.push_back(std::move(name));
}

const Json* ParamReader::Find(std::string_view name) {
  known_.insert(name);
  const auto found = body_.find(name);
  return found == body_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> ParamReader::String(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw InvalidType(Name(name), "a string", TypeName(*value));
  return value->get<std::string>();
}

std::string ParamReader::RequiredString(std::string_view name) {
  std::optional<std::string> value = String(name);
  if (!value) throw MissingParameter(Name(name));
  return *std::move(value);
}

std::optional<bool> ParamReader::Bool(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) throw InvalidType(Name(name), "a boolean", TypeName(*value));
  return value->get<bool>();
}

std::optional<int64_t> ParamReader::Integer(std::string_view name, int64_t low, int64_t high) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const auto out_of_range = [&] {
    return InvalidValue(Name(name), "Invalid value for '" + Name(name) +
                                        "': expected an integer from " + std::to_string(low) +
                                        " to " + std::to_string(high) + ", but got " +
                                        value->dump() + ".");
  };
  int64_t number = 0;
  if (value->is_number_unsigned()) {
    const auto large = value->get<uint64_t>();
    if (large > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) throw out_of_range();
    number = static_cast<int64_t>(large);
  } else if (value->is_number_integer()) {
    number = value->get<int64_t>();
  } else if (value->is_number_float()) {
    const auto decimal = value->get<double>();
    // 2^53: beyond it a double no longer says which integer was meant.
    constexpr double kExact = 9007199254740992.0;
    if (decimal != std::floor(decimal)) {
      throw InvalidType(Name(name), "an integer", TypeName(*value));
    }
    if (std::abs(decimal) > kExact) throw out_of_range();
    number = static_cast<int64_t>(decimal);
  } else {
    throw InvalidType(Name(name), "an integer", TypeName(*value));
  }
  if (number < low || number > high) throw out_of_range();
  return number;
}

std::optional<double> ParamReader::Number(std::string_view name, double low, double high,
                                          bool exclusive_low) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) throw InvalidType(Name(name), "a number", TypeName(*value));
  const auto number = value->get<double>();
  const bool above = exclusive_low ? number > low : number >= low;
  if (!above || !(number <= high)) {
    throw InvalidValue(Name(name), "Invalid value for '" + Name(name) + "': expected a number " +
                                       (exclusive_low ? "above " : "from ") + Shown(low) + " to " +
                                       Shown(high) + ", but got " + value->dump() + ".");
  }
  return number;
}

const Json* ParamReader::Object(std::string_view name) {
  const Json* value = Find(name);
  if (value != nullptr && !value->is_object()) {
    throw InvalidType(Name(name), "an object", TypeName(*value));
  }
  return value;
}

const Json* ParamReader::Array(std::string_view name) {
  const Json* value = Find(name);
  if (value != nullptr && !value->is_array()) {
    throw InvalidType(Name(name), "an array", TypeName(*value));
  }
  return value;
}

std::vector<std::string> ParamReader::Unknown() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : body_.items()) {
    if (!value.is_null() && !known_.contains(name)) names.push_back(Name(name));
  }
  names.insert(names.end(), unknown_inside_.begin(), unknown_inside_.end());
  return names;
}

}  // namespace server
