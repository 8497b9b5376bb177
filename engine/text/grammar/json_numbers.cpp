#include "engine/text/grammar/json_numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

#include "engine/text/grammar/code_point_dfa.h"

namespace engine::text::grammar {
namespace {

constexpr int64_t kMaxInteger = 999'999'999'999'999'999;  // 18 digits
// Decimal digits that a double tells apart: more could round to a bound that is excluded.
constexpr uint32_t kMaxDigits = 15;

double AsDouble(const Value& value) {
  if (const int64_t* integer = value.as_int()) return static_cast<double>(*integer);
  return *value.as_double();
}

// Digit strings of equal length, as expressions.
class DigitRanges {
 public:
  explicit DigitRanges(Expressions* expressions) : expressions_(*expressions) {}

  NodeId Digit(char first, char last) {
    return expressions_.Class(
        CodePointSet({{static_cast<uint32_t>(first), static_cast<uint32_t>(last)}}));
  }
  NodeId AnyDigits(uint32_t min, uint32_t max) {
    return expressions_.Repeat(Digit('0', '9'), min, max);
  }

  // Decimal integers low..high without leading zeros. REQUIRES: 0 <= low <= high.
  NodeId Integers(uint64_t low, uint64_t high) {
    std::vector<NodeId> options;
    std::string first = std::to_string(low);
    const std::string last = std::to_string(high);
    while (first.size() < last.size()) {
      options.push_back(SameLength(first, std::string(first.size(), '9')));
      first = "1" + std::string(first.size(), '0');
    }
    options.push_back(SameLength(first, last));
    return expressions_.Choice(options);
  }

 private:
  NodeId SameLength(std::string_view low, std::string_view high) {
    if (low.empty()) return expressions_.Empty();
    const auto rest = static_cast<uint32_t>(low.size() - 1);
    const bool lowest = low.find_first_not_of('0', 1) == std::string_view::npos;
    const bool highest = high.find_first_not_of('9', 1) == std::string_view::npos;
    if (lowest && highest) {
      return expressions_.Sequence({Digit(low[0], high[0]), AnyDigits(rest, rest)});
    }
    if (low[0] == high[0]) {
      return expressions_.Sequence(
          {Digit(low[0], low[0]), SameLength(low.substr(1), high.substr(1))});
    }
    const std::string zeros(rest, '0');
    const std::string nines(rest, '9');
    std::vector<NodeId> options = {
        expressions_.Sequence({Digit(low[0], low[0]), SameLength(low.substr(1), nines)}),
        expressions_.Sequence({Digit(high[0], high[0]), SameLength(zeros, high.substr(1))})};
    if (high[0] - low[0] > 1) {
      const char after = static_cast<char>(low[0] + 1);
      const char before = static_cast<char>(high[0] - 1);
      options.push_back(expressions_.Sequence({Digit(after, before), AnyDigits(rest, rest)}));
    }
    return expressions_.Choice(options);
  }

  Expressions& expressions_;
};

// The least integer that the bound allows.
int64_t LeastInteger(const NumberBounds::Bound& bound) {
  if (const int64_t* integer = bound.value.as_int()) {
    return std::clamp(*integer, -kMaxInteger - 1, kMaxInteger) + (bound.exclusive ? 1 : 0);
  }
  const double number = *bound.value.as_double();
  const double least = bound.exclusive ? std::floor(number) + 1.0 : std::ceil(number);
  return static_cast<int64_t>(std::clamp(least, -1e18, 1e18));
}

Value Negated(const Value& value) {
  if (const int64_t* integer = value.as_int()) {
    return *integer == std::numeric_limits<int64_t>::min() ? Value(-static_cast<double>(*integer))
                                                           : Value(-*integer);
  }
  return Value(-*value.as_double());
}

int64_t GreatestInteger(const NumberBounds::Bound& bound) {
  return -LeastInteger({Negated(bound.value), bound.exclusive});
}

NodeId WithMultiples(Expressions* expressions, NodeId integers, uint32_t divisor) {
  if (divisor == 1) return integers;
  CompileBudget& budget = expressions->budget();
  CompileBudget::CheckAtMost(divisor, budget.limits().dfa_states, "states for 'multipleOf'");
  return CodePointDfa::FromNode(*expressions, integers)
      .Intersect(CodePointDfa::Multiples(divisor), budget)
      .ToNode(expressions, Spelling::kPlain);
}

// A bound >= 0 in digits.
struct Magnitude {
  uint64_t whole = 0;
  std::string fraction;  // without trailing zeros
  bool exclusive = false;
};

Magnitude MagnitudeOf(const Value& value, bool exclusive) {
  Magnitude result{0, {}, exclusive};
  if (const int64_t* integer = value.as_int()) {
    const auto bits = static_cast<uint64_t>(*integer);
    result.whole = *integer < 0 ? 0 - bits : bits;
  } else {
    char buffer[400];
    const double number = std::abs(*value.as_double());
    const auto end =
        std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed).ptr;
    const std::string text(buffer, end);
    const size_t point = text.find('.');
    if (std::min(point, text.size()) > 18) result.whole = UINT64_MAX;
    if (result.whole == 0) result.whole = std::stoull(text.substr(0, point));
    if (point != std::string::npos) result.fraction = text.substr(point + 1);
    result.fraction.resize(std::min<size_t>(result.fraction.find_last_not_of('0') + 1, 300));
  }
  if (result.whole > static_cast<uint64_t>(kMaxInteger) / 10) {
    throw GrammarError("A bound of a number has more than 17 digits before the point.");
  }
  return result;
}

// Decimal numbers >= 0 without exponents.
class DecimalRanges {
 public:
  // Digits after the point: what is left of kMaxDigits by the largest bound.
  DecimalRanges(Expressions* expressions, uint32_t max_fraction)
      : expressions_(*expressions), digits_(expressions), max_fraction_(max_fraction) {}

  NodeId Between(const Magnitude& low, const std::optional<Magnitude>& high) {
    const uint64_t last = high ? high->whole : static_cast<uint64_t>(kMaxInteger) / 10;
    if (low.whole > last) return expressions_.Never();
    if (high && low.whole == high->whole) {
      const NodeId both = CodePointDfa::FromNode(expressions_, FractionFrom(low))
                              .Intersect(CodePointDfa::FromNode(expressions_, FractionTo(*high)),
                                         expressions_.budget())
                              .ToNode(&expressions_, Spelling::kPlain);
      return expressions_.Sequence({Whole(low), both});
    }
    std::vector<NodeId> options = {expressions_.Sequence({Whole(low), FractionFrom(low)})};
    const uint64_t before_last = high ? last - 1 : last;
    if (low.whole + 1 <= before_last) {
      options.push_back(
          expressions_.Sequence({digits_.Integers(low.whole + 1, before_last), AnyFraction()}));
    }
    if (high) options.push_back(expressions_.Sequence({Whole(*high), FractionTo(*high)}));
    return expressions_.Choice(options);
  }

 private:
  NodeId Whole(const Magnitude& magnitude) {
    return expressions_.Literal(std::to_string(magnitude.whole));
  }
  // What may follow `digits` digits after the point.
  NodeId Tail(size_t digits) {
    const auto used = static_cast<uint32_t>(std::min<size_t>(digits, max_fraction_));
    return digits_.AnyDigits(0, max_fraction_ - used);
  }
  NodeId Point() { return expressions_.Literal("."); }
  NodeId AnyFraction() {
    return expressions_.Optional(
        expressions_.Sequence({Point(), digits_.AnyDigits(1, max_fraction_)}));
  }
  // Digits that are not all zero.
  NodeId SomeValue(uint32_t max_digits) {
    std::vector<NodeId> options;
    for (uint32_t zeros = 0; zeros < max_digits; ++zeros) {
      options.push_back(expressions_.Sequence({expressions_.Literal(std::string(zeros, '0')),
                                               digits_.Digit('1', '9'),
                                               digits_.AnyDigits(0, max_digits - zeros - 1)}));
    }
    return expressions_.Choice(options);
  }

  // Fractions not below that of the bound.
  NodeId FractionFrom(const Magnitude& bound) {
    const std::string& least = bound.fraction;
    if (least.empty() && !bound.exclusive) return AnyFraction();
    std::vector<NodeId> options;
    for (size_t i = 0; i < least.size(); ++i) {
      if (least[i] == '9') continue;
      const char above = static_cast<char>(least[i] + 1);
      options.push_back(expressions_.Sequence(
          {expressions_.Literal(least.substr(0, i)), digits_.Digit(above, '9'), Tail(i + 1)}));
    }
    if (!bound.exclusive) {
      options.push_back(expressions_.Sequence({expressions_.Literal(least), Tail(least.size())}));
    } else if (least.size() < max_fraction_) {
      options.push_back(
          expressions_.Sequence({expressions_.Literal(least),
                                 SomeValue(max_fraction_ - static_cast<uint32_t>(least.size()))}));
    }
    return expressions_.Sequence({Point(), expressions_.Choice(options)});
  }

  NodeId FractionTo(const Magnitude& bound) {
    const std::string& most = bound.fraction;
    std::vector<NodeId> options;
    for (size_t i = 0; i < most.size(); ++i) {
      if (i > 0) options.push_back(expressions_.Literal(most.substr(0, i)));
      if (most[i] == '0') continue;
      const char below = static_cast<char>(most[i] - 1);
      options.push_back(expressions_.Sequence(
          {expressions_.Literal(most.substr(0, i)), digits_.Digit('0', below), Tail(i + 1)}));
    }
    if (!bound.exclusive) {
      const uint32_t min_zeros = most.empty() ? 1 : 0;
      options.push_back(expressions_.Sequence(
          {expressions_.Literal(most),
           expressions_.Repeat(digits_.Digit('0', '0'), min_zeros, max_fraction_)}));
    }
    std::vector<NodeId> forms = {expressions_.Sequence({Point(), expressions_.Choice(options)})};
    if (!most.empty() || !bound.exclusive) forms.push_back(expressions_.Empty());
    return expressions_.Choice(forms);
  }

  Expressions& expressions_;
  DigitRanges digits_;
  uint32_t max_fraction_;
};

uint32_t FractionDigits(const NumberBounds& bounds) {
  size_t whole = 1;
  for (const auto& bound : {bounds.low, bounds.high}) {
    if (!bound) continue;
    whole = std::max(whole, std::to_string(MagnitudeOf(bound->value, false).whole).size());
  }
  return whole < kMaxDigits ? kMaxDigits - static_cast<uint32_t>(whole) : 1;
}

}  // namespace

NodeId AddIntegers(Expressions* expressions, const NumberBounds& bounds) {
  const int64_t low = bounds.low ? LeastInteger(*bounds.low) : -kMaxInteger;
  const int64_t high = bounds.high ? GreatestInteger(*bounds.high) : kMaxInteger;
  DigitRanges digits(expressions);
  std::vector<NodeId> options;
  if (low <= high && high >= 0) {
    options.push_back(digits.Integers(static_cast<uint64_t>(std::max<int64_t>(low, 0)),
                                      static_cast<uint64_t>(high)));
  }
  if (low <= high && low < 0) {
    const auto least = static_cast<uint64_t>(-std::min<int64_t>(high, -1));
    options.push_back(expressions->Sequence(
        {expressions->Literal("-"), digits.Integers(least, static_cast<uint64_t>(-low))}));
  }
  const NodeId integers = expressions->Choice(options);
  return bounds.multiple_of ? WithMultiples(expressions, integers, *bounds.multiple_of) : integers;
}

NodeId AddNumbers(Expressions* expressions, const NumberBounds& bounds) {
  if (bounds.multiple_of) return AddIntegers(expressions, bounds);
  DecimalRanges decimals(expressions, FractionDigits(bounds));
  std::vector<NodeId> options;
  const bool has_negative = !bounds.low || AsDouble(bounds.low->value) < 0;
  const bool has_positive = !bounds.high || AsDouble(bounds.high->value) >= 0;
  if (has_positive) {
    Magnitude low;
    if (!has_negative) low = MagnitudeOf(bounds.low->value, bounds.low->exclusive);
    std::optional<Magnitude> high;
    if (bounds.high) high = MagnitudeOf(bounds.high->value, bounds.high->exclusive);
    options.push_back(decimals.Between(low, high));
  }
  if (has_negative) {
    // Zero belongs to the positive numbers.
    Magnitude low{0, {}, true};
    if (!has_positive) low = MagnitudeOf(bounds.high->value, bounds.high->exclusive);
    std::optional<Magnitude> high;
    if (bounds.low) high = MagnitudeOf(bounds.low->value, bounds.low->exclusive);
    options.push_back(
        expressions->Sequence({expressions->Literal("-"), decimals.Between(low, high)}));
  }
  return expressions->Choice(options);
}

bool NumberLess(const Value& a, const Value& b) {
  if (a.as_int() != nullptr && b.as_int() != nullptr) return *a.as_int() < *b.as_int();
  return AsDouble(a) < AsDouble(b);
}

}  // namespace engine::text::grammar
