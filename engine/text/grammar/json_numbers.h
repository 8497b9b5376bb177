#pragma once

#include <optional>

#include "engine/text/grammar/expressions.h"
#include "engine/text/value.h"

namespace engine::text::grammar {

// What a schema says of a number; bounds are integers or doubles.
struct NumberBounds {
  struct Bound {
    Value value;
    bool exclusive = false;
  };
  std::optional<Bound> low;
  std::optional<Bound> high;
  std::optional<uint32_t> multiple_of;

  bool empty() const { return !low && !high && !multiple_of; }
};

// Decimal integers within the bounds, up to 18 digits where there is none.
//
// Errors: GrammarError for multiples that need too many states.
NodeId AddIntegers(Expressions* expressions, const NumberBounds& bounds);

// Decimal numbers within the bounds, without exponents; multiple_of as for integers.
//
// Errors: GrammarError for bounds of more than 17 digits before the point.
NodeId AddNumbers(Expressions* expressions, const NumberBounds& bounds);

// a < b, a number each.
bool NumberLess(const Value& a, const Value& b);

}  // namespace engine::text::grammar
