#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

// The tests that follow `is`.

namespace engine::text::jinja {
namespace {

void NoArguments(Arguments& arguments) {
  static constexpr std::array<std::string_view, 0> kNames = {};
  const Bound<0> bound("test", kNames, 0, arguments);
}

template <bool (*Predicate)(const Datum&)>
Datum Simple(Interpreter&, const Datum& value, Arguments& arguments) {
  NoArguments(arguments);
  return Datum::Bool(Predicate(value));
}

template <CompareOp Op>
Datum Compared(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"other"};
  const Bound<1> bound("test", kNames, 1, arguments);
  return Datum::Bool(Compare(interpreter, Op, value, bound[0]));
}

bool IsDefined(const Datum& value) { return !value.is_undefined(); }
bool IsUndefined(const Datum& value) { return value.is_undefined(); }
bool IsNone(const Datum& value) { return value.is(Kind::kNone); }
bool IsBoolean(const Datum& value) { return value.is(Kind::kBool); }
bool IsTrue(const Datum& value) { return value.is(Kind::kBool) && value.boolean(); }
bool IsFalse(const Datum& value) { return value.is(Kind::kBool) && !value.boolean(); }
bool IsInteger(const Datum& value) { return value.is(Kind::kInt); }
bool IsFloat(const Datum& value) { return value.is(Kind::kFloat); }
bool IsNumber(const Datum& value) { return value.is_number(); }
bool IsString(const Datum& value) { return value.is_string(); }
bool IsMapping(const Datum& value) { return value.is(Kind::kDict); }
bool IsCallable(const Datum& value) {
  // Undefined has a __call__, which fails.
  return value.is_undefined() || (value.is(Kind::kExotic) && value.exotic().callable());
}
bool IsEscaped(const Datum&) { return false; }
bool IsFilterName(const Datum& value) {
  return value.is_string() && FindFilter(value.string()) != nullptr;
}
bool IsTestName(const Datum& value) {
  return value.is_string() && FindTest(value.string()) != nullptr;
}
bool IsSequence(const Datum& value) {
  return value.is_undefined() || value.is_string() || value.is_sequence() ||
         value.is(Kind::kDict) || (value.is(Kind::kExotic) && value.exotic().has_items());
}

Datum Modulo(Interpreter& interpreter, const Datum& value, const Datum& divisor) {
  return Arithmetic(interpreter, ArithmeticOp::kMod, value, divisor);
}

Datum Odd(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments(arguments);
  return Datum::Bool(Equal(interpreter, Modulo(interpreter, value, Datum::Int(2)), Datum::Int(1)));
}

Datum Even(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments(arguments);
  return Datum::Bool(Equal(interpreter, Modulo(interpreter, value, Datum::Int(2)), Datum::Int(0)));
}

Datum DivisibleBy(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"num"};
  const Bound<1> bound("divisibleby", kNames, 1, arguments);
  return Datum::Bool(Equal(interpreter, Modulo(interpreter, value, bound[0]), Datum::Int(0)));
}

Datum SameAs(Interpreter&, const Datum& value, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"other"};
  const Bound<1> bound("sameas", kNames, 1, arguments);
  return Datum::Bool(Identical(value, bound[0]));
}

// Whether a text has cased letters and all of them satisfy `wanted`.
template <bool (*Wanted)(uint32_t), bool (*Other)(uint32_t)>
Datum CasedTest(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments(arguments);
  const std::string text = Str(interpreter, value);
  bool found = false;
  for (size_t p = 0; p < text.size();) {
    const uint32_t c = NextCodePoint(text, &p);
    if (Other(c) || IsTitle(c)) return Datum::Bool(false);
    found = found || Wanted(c);
  }
  return Datum::Bool(found);
}

}  // namespace

Builtin FindTest(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kTests[] = {
      {"odd", Odd},
      {"even", Even},
      {"divisibleby", DivisibleBy},
      {"defined", Simple<IsDefined>},
      {"undefined", Simple<IsUndefined>},
      {"filter", Simple<IsFilterName>},
      {"test", Simple<IsTestName>},
      {"none", Simple<IsNone>},
      {"boolean", Simple<IsBoolean>},
      {"false", Simple<IsFalse>},
      {"true", Simple<IsTrue>},
      {"integer", Simple<IsInteger>},
      {"float", Simple<IsFloat>},
      {"lower", CasedTest<IsLower, IsUpper>},
      {"upper", CasedTest<IsUpper, IsLower>},
      {"string", Simple<IsString>},
      {"mapping", Simple<IsMapping>},
      {"number", Simple<IsNumber>},
      {"sequence", Simple<IsSequence>},
      {"iterable", Simple<IsIterable>},
      {"callable", Simple<IsCallable>},
      {"sameas", SameAs},
      {"escaped", Simple<IsEscaped>},
      {"in", Compared<CompareOp::kIn>},
      {"==", Compared<CompareOp::kEq>},
      {"eq", Compared<CompareOp::kEq>},
      {"equalto", Compared<CompareOp::kEq>},
      {"!=", Compared<CompareOp::kNe>},
      {"ne", Compared<CompareOp::kNe>},
      {">", Compared<CompareOp::kGt>},
      {"gt", Compared<CompareOp::kGt>},
      {"greaterthan", Compared<CompareOp::kGt>},
      {"ge", Compared<CompareOp::kGe>},
      {">=", Compared<CompareOp::kGe>},
      {"<", Compared<CompareOp::kLt>},
      {"lt", Compared<CompareOp::kLt>},
      {"lessthan", Compared<CompareOp::kLt>},
      {"<=", Compared<CompareOp::kLe>},
      {"le", Compared<CompareOp::kLe>},
  };
  for (const auto& [test, function] : kTests) {
    if (test == name) return function;
  }
  return nullptr;
}

}  // namespace engine::text::jinja
