#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/json.h"

namespace server {

// Typed look-ups in the object of a request. null counts as absent, everywhere. Remembers which
// names were asked for, so that strict mode can name the others. A reader of an object inside
// another tells the outer one, when it is destroyed, what was not asked for.
//
// Errors: ApiError invalid_type, invalid_value, missing_required_parameter; all name the parameter.
class ParamReader {
 public:
  // body outlives the reader. prefix: of parameter names in messages, e.g. "stream_options.".
  // Throws ApiError when body is no object.
  explicit ParamReader(const Json& body, std::string prefix = {}, ParamReader* outer = nullptr);
  ParamReader(const ParamReader&) = delete;
  ParamReader& operator=(const ParamReader&) = delete;
  ~ParamReader();

  // nullptr when absent or null.
  const Json* Find(std::string_view name);

  std::optional<std::string> String(std::string_view name);
  std::string RequiredString(std::string_view name);
  std::optional<bool> Bool(std::string_view name);
  // Inclusive range. A decimal number with an integer's value (2.0) is an integer.
  std::optional<int64_t> Integer(std::string_view name, int64_t low, int64_t high);
  // Inclusive range, or above `low` only when exclusive_low.
  std::optional<double> Number(std::string_view name, double low, double high,
                               bool exclusive_low = false);
  const Json* Object(std::string_view name);
  const Json* Array(std::string_view name);

  std::string Name(std::string_view name) const { return prefix_ + std::string(name); }
  // The members that are neither null nor were asked for, in their order, then those of inner
  // objects.
  std::vector<std::string> Unknown() const;
  // Those of inner objects alone.
  const std::vector<std::string>& UnknownInside() const { return unknown_inside_; }

 private:
  const Json& body_;
  std::string prefix_;
  ParamReader* outer_;
  std::set<std::string_view> known_;
  std::vector<std::string> unknown_inside_;
};

}  // namespace server
