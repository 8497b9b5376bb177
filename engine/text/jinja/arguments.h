#pragma once

#include <array>
#include <string>
#include <string_view>

#include "engine/text/jinja/datum.h"
#include "engine/text/jinja/operators.h"

namespace engine::text::jinja {

// Arguments bound to a function's parameters, by position and by name as in Python.
//
// Errors: RenderError for unknown names, names given twice, and too many or too few arguments.
template <size_t N>
class Bound {
 public:
  // The first `required` parameters have no default.
  Bound(std::string_view function, const std::array<std::string_view, N>& parameters,
        size_t required, Arguments& arguments)
      : function_(function), parameters_(parameters) {
    if (arguments.positional.size() > N) {
      Fail("takes at most " + std::to_string(N) + " arguments (" +
           std::to_string(arguments.positional.size()) + " given)");
    }
    for (size_t i = 0; i < arguments.positional.size(); ++i) {
      values_[i] = std::move(arguments.positional[i]);
    }
    for (auto& [name, value] : arguments.named) {
      size_t i = 0;
      while (i < N && parameters_[i] != name) ++i;
      if (i == N) Fail("got an unexpected keyword argument '" + name + "'");
      if (Has(i)) Fail("got multiple values for argument '" + name + "'");
      values_[i] = std::move(value);
    }
    for (size_t i = 0; i < required; ++i) {
      if (!Has(i)) {
        Fail("missing a required argument: '" + std::string(parameters_[i]) + "'");
      }
    }
  }

  bool Has(size_t i) const { return !values_[i].is(Kind::kMissing); }
  bool HasValue(size_t i) const { return Has(i) && !values_[i].is(Kind::kNone); }
  const Datum& operator[](size_t i) const { return values_[i]; }
  Datum Or(size_t i, Datum otherwise) const { return Has(i) ? values_[i] : std::move(otherwise); }

  bool Flag(Interpreter& interpreter, size_t i, bool otherwise) const {
    return Has(i) ? Truth(interpreter, values_[i]) : otherwise;
  }
  int64_t Int(size_t i, int64_t otherwise) const {
    if (!Has(i)) return otherwise;
    if (values_[i].is_undefined()) FailUndefined(values_[i]);
    if (!values_[i].is_integral()) {
      FailType("'" + std::string(values_[i].type_name()) +
               "' object cannot be interpreted as an integer");
    }
    return values_[i].integer();
  }
  // REQUIRES: Has(i).
  const std::string& String(size_t i) const {
    if (values_[i].is_undefined()) FailUndefined(values_[i]);
    if (!values_[i].is_string()) {
      Fail("argument '" + std::string(parameters_[i]) + "' must be str, not " +
           std::string(values_[i].type_name()));
    }
    return values_[i].string();
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    FailType(std::string(function_) + "() " + what);
  }

  std::string_view function_;
  const std::array<std::string_view, N>& parameters_;
  std::array<Datum, N> values_;
};

}  // namespace engine::text::jinja
