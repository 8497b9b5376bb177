#include "engine/text/jinja/operators.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/objects.h"
#include "engine/text/jinja/unicode.h"

namespace engine::text::jinja {
namespace {

[[noreturn]] void FailOverflow() { throw RenderError("an integer does not fit 64 bits"); }

std::string Quoted(std::string_view type) { return "'" + std::string(type) + "'"; }

// Appends the repr() of values. A set of steps bounds shared structure that prints exponentially
// often; namespaces can hold themselves, so the depth is bounded too.
class Printer {
 public:
  Printer(Interpreter* interpreter, std::string* out) : interpreter_(interpreter), out_(out) {}

  void Print(const Datum& value) {
    const Interpreter::Depth depth(interpreter_);
    interpreter_->budget().Step();
    interpreter_->budget().CheckLength(out_->size());
    switch (value.kind()) {
      case Kind::kMissing:
      case Kind::kUndefined:
        *out_ += "Undefined";
        return;
      case Kind::kNone:
        *out_ += "None";
        return;
      case Kind::kBool:
        *out_ += value.boolean() ? "True" : "False";
        return;
      case Kind::kInt:
        *out_ += std::to_string(value.integer());
        return;
      case Kind::kFloat:
        *out_ += FloatRepr(value.real());
        return;
      case Kind::kString:
        interpreter_->budget().Touch(value.string().size());
        *out_ += StringRepr(value.string());
        return;
      case Kind::kList:
        return PrintItems(value.items(), "[", "]");
      case Kind::kTuple:
        return PrintItems(value.items(), "(", value.items().size() == 1 ? ",)" : ")");
      case Kind::kDict:
        return PrintDict(value.dict());
      case Kind::kExotic:
        *out_ += value.exotic().Repr(*interpreter_);
        return;
    }
  }

 private:
  void PrintItems(const std::vector<Datum>& items, const char* open, const char* close) {
    *out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) *out_ += ", ";
      Print(items[i]);
    }
    *out_ += close;
  }

  void PrintDict(const DictObject& dict) {
    *out_ += '{';
    bool first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!std::exchange(first, false)) *out_ += ", ";
      Print(key);
      *out_ += ": ";
      Print(value);
    }
    *out_ += '}';
  }

  Interpreter* interpreter_;
  std::string* out_;
};

// -1, 0, 1, or 2 when a NaN makes them unordered. Exact for all int64 and double values.
int CompareNumbers(const Datum& left, const Datum& right) {
  if (left.is_integral() && right.is_integral()) {
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer();
  }
  const auto widen = [](const Datum& value) {
    return value.is(Kind::kFloat) ? static_cast<long double>(value.real())
                                  : static_cast<long double>(value.integer());
  };
  const long double a = widen(left), b = widen(right);
  if (std::isnan(a) || std::isnan(b)) return 2;
  return a < b ? -1 : a > b;
}

int CompareStrings(Interpreter& interpreter, const std::string& left, const std::string& right) {
  interpreter.budget().Touch(std::min(left.size(), right.size()));
  const int order = left.compare(right);
  return order < 0 ? -1 : order > 0;
}

std::string_view OpText(CompareOp op) {
  switch (op) {
    case CompareOp::kLt:
      return "<";
    case CompareOp::kLe:
      return "<=";
    case CompareOp::kGt:
      return ">";
    case CompareOp::kGe:
      return ">=";
    default:
      return "==";
  }
}

bool Ordered(CompareOp op, int order) {
  switch (op) {
    case CompareOp::kLt:
      return order == -1;
    case CompareOp::kLe:
      return order == -1 || order == 0;
    case CompareOp::kGt:
      return order == 1;
    case CompareOp::kGe:
      return order == 1 || order == 0;
    default:
      return order == 0;
  }
}

bool CompareOrder(Interpreter& interpreter, CompareOp op, const Datum& left, const Datum& right) {
  if (left.is_undefined()) FailUndefined(left);
  if (right.is_undefined()) FailUndefined(right);
  interpreter.budget().Step();
  if (left.is_number() && right.is_number()) return Ordered(op, CompareNumbers(left, right));
  if (left.is_string() && right.is_string()) {
    return Ordered(op, CompareStrings(interpreter, left.string(), right.string()));
  }
  if (left.is_sequence() && left.kind() == right.kind()) {
    const auto& a = left.items();
    const auto& b = right.items();
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (!Equal(interpreter, a[i], b[i])) return CompareOrder(interpreter, op, a[i], b[i]);
    }
    return Ordered(op, a.size() < b.size() ? -1 : a.size() > b.size());
  }
  FailType(Quoted(OpText(op)) + " not supported between instances of " + Quoted(left.type_name()) +
           " and " + Quoted(right.type_name()));
}

bool EqualItems(Interpreter& interpreter, const std::vector<Datum>& left,
                const std::vector<Datum>& right) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    if (!Equal(interpreter, left[i], right[i])) return false;
  }
  return true;
}

bool EqualDicts(Interpreter& interpreter, const DictObject& left, const DictObject& right) {
  if (left.size() != right.size()) return false;
  for (const auto& [key, value] : left.entries()) {
    const Datum* other = right.Find(key);
    if (other == nullptr || !Equal(interpreter, value, *other)) return false;
  }
  return true;
}

[[noreturn]] void FailOperands(std::string_view op, const Datum& left, const Datum& right) {
  FailType("unsupported operand type(s) for " + std::string(op) + ": " + Quoted(left.type_name()) +
           " and " + Quoted(right.type_name()));
}

std::string_view OpText(ArithmeticOp op) {
  static constexpr std::string_view kTexts[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return kTexts[static_cast<size_t>(op)];
}

int64_t FloorDiv(int64_t a, int64_t b) {
  if (b == 0) FailType("integer division or modulo by zero");
  if (b == -1) {
    int64_t result;
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) FailOverflow();
    return result;
  }
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

int64_t FloorMod(int64_t a, int64_t b) {
  if (b == 0) FailType("integer modulo by zero");
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double FloatMod(double a, double b) {
  if (b == 0) FailType("float modulo");
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  if ((rest < 0) != (b < 0)) rest += b;
  return rest;
}

double FloatFloorDiv(double a, double b) {
  if (b == 0) FailType("float floor division by zero");
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1.0 : floor;
}

Datum IntPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) FailType("0.0 cannot be raised to a negative power");
    return Datum::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Datum::Int(exponent == 0 ? 1 : base);
  if (base == -1) return Datum::Int(exponent % 2 == 0 ? 1 : -1);
  int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) FailOverflow();
  }
  return Datum::Int(result);
}

Datum IntArithmetic(ArithmeticOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case ArithmeticOp::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case ArithmeticOp::kSub:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case ArithmeticOp::kMul:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case ArithmeticOp::kDiv:
      if (b == 0) FailType("division by zero");
      return Datum::Float(static_cast<double>(a) / static_cast<double>(b));
    case ArithmeticOp::kFloorDiv:
      return Datum::Int(FloorDiv(a, b));
    case ArithmeticOp::kMod:
      return Datum::Int(FloorMod(a, b));
    case ArithmeticOp::kPow:
      return IntPower(a, b);
  }
  if (overflow) FailOverflow();
  return Datum::Int(result);
}

Datum FloatArithmetic(ArithmeticOp op, double a, double b) {
  switch (op) {
    case ArithmeticOp::kAdd:
      return Datum::Float(a + b);
    case ArithmeticOp::kSub:
      return Datum::Float(a - b);
    case ArithmeticOp::kMul:
      return Datum::Float(a * b);
    case ArithmeticOp::kDiv:
      if (b == 0) FailType("float division by zero");
      return Datum::Float(a / b);
    case ArithmeticOp::kFloorDiv:
      return Datum::Float(FloatFloorDiv(a, b));
    case ArithmeticOp::kMod:
      return Datum::Float(FloatMod(a, b));
    case ArithmeticOp::kPow: {
      if (a == 0 && b < 0) FailType("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(b) && b != std::floor(b)) {
        FailType("complex numbers are not supported");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        FailType("(34, 'Numerical result out of range')");
      }
      return Datum::Float(result);
    }
  }
  return Datum();
}

Datum Repeat(Interpreter& interpreter, const Datum& value, int64_t count) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  if (value.is_string()) {
    const std::string& text = value.string();
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(times, text.size(), &bytes)) FailOverflow();
    interpreter.budget().Make(bytes);
    std::string result;
    result.reserve(bytes);
    if (text.size() == 1) {
      result.append(bytes, text[0]);
    } else if (!text.empty()) {
      for (uint64_t i = 0; i < times; ++i) result += text;
    }
    return Datum::String(std::move(result));
  }
  const std::vector<Datum>& items = value.items();
  uint64_t size = 0;
  if (__builtin_mul_overflow(times, items.size(), &size)) FailOverflow();
  interpreter.budget().Step(size);
  std::vector<Datum> result;
  result.reserve(size);
  for (uint64_t i = 0; i < times && !items.empty(); ++i) {
    result.insert(result.end(), items.begin(), items.end());
  }
  return value.is(Kind::kList) ? Datum::List(std::move(result)) : Datum::Tuple(std::move(result));
}

Datum Add(Interpreter& interpreter, const Datum& left, const Datum& right) {
  if (left.is_string() && right.is_string()) {
    const std::string& a = left.string();
    const std::string& b = right.string();
    interpreter.budget().Make(a.size() + b.size());
    std::string text;
    text.reserve(a.size() + b.size());
    text.append(a).append(b);
    return Datum::String(std::move(text));
  }
  if (left.is_sequence() && left.kind() == right.kind()) {
    interpreter.budget().Step(left.items().size() + right.items().size());
    std::vector<Datum> items = left.items();
    items.insert(items.end(), right.items().begin(), right.items().end());
    return left.is(Kind::kList) ? Datum::List(std::move(items)) : Datum::Tuple(std::move(items));
  }
  if (left.is_string() || left.is_sequence()) {
    const std::string type(left.type_name());
    FailType("can only concatenate " + type + " (not \"" + std::string(right.type_name()) +
             "\") to " + type);
  }
  FailOperands("+", left, right);
}

// Index into a sequence of `size` items, or nothing when it is out of range or no integer.
std::optional<size_t> NormalIndex(const Datum& key, size_t size) {
  if (!key.is_integral()) return std::nullopt;
  int64_t index = key.integer();
  if (index < 0) index += static_cast<int64_t>(size);
  if (index < 0 || index >= static_cast<int64_t>(size)) return std::nullopt;
  return static_cast<size_t>(index);
}

Datum CharacterAt(Interpreter& interpreter, const std::string& text, size_t index) {
  const size_t start = ByteOffset(text, index);
  size_t end = start;
  NextCodePoint(text, &end);
  return interpreter.NewString(text.substr(start, end - start));
}

// object[key] without attributes; nothing where Python raises TypeError or LookupError.
std::optional<Datum> FindItem(Interpreter& interpreter, const Datum& object, const Datum& key) {
  switch (object.kind()) {
    case Kind::kDict: {
      if (key.is(Kind::kList) || key.is(Kind::kDict)) return std::nullopt;
      const Datum* value = object.dict().Find(key);
      return value != nullptr ? std::optional(*value) : std::nullopt;
    }
    case Kind::kList:
    case Kind::kTuple: {
      const auto index = NormalIndex(key, object.items().size());
      return index ? std::optional(object.items()[*index]) : std::nullopt;
    }
    case Kind::kString: {
      if (!key.is_integral()) return std::nullopt;
      interpreter.budget().Touch(object.string().size());
      const auto index = NormalIndex(key, CountCodePoints(object.string()));
      return index ? std::optional(CharacterAt(interpreter, object.string(), *index))
                   : std::nullopt;
    }
    case Kind::kUndefined:
      FailUndefined(object);
    case Kind::kExotic:
      return object.exotic().Item(interpreter, key);
    default:
      return std::nullopt;
  }
}

Datum UndefinedItem(Interpreter& interpreter, const Datum& object, const Datum& key) {
  if (key.is_string()) {
    return Datum::Undefined(StringRepr(TypeName(object)) + " has no attribute " +
                            StringRepr(key.string()));
  }
  return Datum::Undefined(TypeName(object) + " has no element " + Repr(interpreter, key));
}

Datum UnsafeAttribute(const Datum& object, std::string_view name) {
  return Datum::Undefined("access to attribute " + StringRepr(name) + " of " +
                          Quoted(object.type_name()) + " object is unsafe.");
}

// start, stop and step of a slice over `size` items, as Python clamps them.
struct SliceRange {
  int64_t start, stop, step;
};

SliceRange Clamp(const SliceBounds& bounds, int64_t size) {
  const int64_t step = bounds.step.value_or(1);
  if (step == 0) FailType("slice step cannot be zero");
  const int64_t low = step < 0 ? -1 : 0;
  const int64_t high = step < 0 ? size - 1 : size;
  const auto clamp = [&](std::optional<int64_t> bound, int64_t otherwise) {
    if (!bound) return otherwise;
    if (*bound < 0) return std::max(*bound + size, low);
    return std::min(*bound, high);
  };
  return {clamp(bounds.start, step < 0 ? high : low), clamp(bounds.stop, step < 0 ? low : high),
          step};
}

// Calls `take` with every index of the slice.
template <typename Take>
void ForEachIndex(const SliceRange& range, const Take& take) {
  int64_t i = range.start;
  while (range.step > 0 ? i < range.stop : i > range.stop) {
    take(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, range.step, &i)) return;
  }
}

Datum SliceString(Interpreter& interpreter, const std::string& text, const SliceBounds& bounds) {
  interpreter.budget().Touch(text.size());
  const SliceRange range = Clamp(bounds, static_cast<int64_t>(CountCodePoints(text)));
  if (range.step == 1) {
    if (range.start >= range.stop) return interpreter.NewString("");
    const size_t start = ByteOffset(text, static_cast<size_t>(range.start));
    const size_t length = ByteOffset(std::string_view(text).substr(start),
                                     static_cast<size_t>(range.stop - range.start));
    return interpreter.NewString(text.substr(start, length));
  }
  if (IsAscii(text)) {
    std::string result;
    ForEachIndex(range, [&](size_t i) { result += text[i]; });
    return interpreter.NewString(std::move(result));
  }
  interpreter.budget().Step(CountCodePoints(text));
  std::vector<std::string_view> characters;
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    NextCodePoint(text, &p);
    characters.push_back(std::string_view(text).substr(start, p - start));
  }
  std::string result;
  ForEachIndex(range, [&](size_t i) { result += characters[i]; });
  return interpreter.NewString(std::move(result));
}

class VectorIterator final : public Iterator {
 public:
  VectorIterator(Datum owner, const std::vector<Datum>& items)
      : owner_(std::move(owner)), items_(items) {}
  bool Next(Interpreter&, Datum* item) override {
    if (index_ >= items_.size()) return false;
    *item = items_[index_++];
    return true;
  }

 private:
  Datum owner_;  // keeps the items
  const std::vector<Datum>& items_;
  size_t index_ = 0;
};

class OwnedIterator final : public Iterator {
 public:
  explicit OwnedIterator(std::vector<Datum> items) : items_(std::move(items)) {}
  bool Next(Interpreter&, Datum* item) override {
    if (index_ >= items_.size()) return false;
    *item = std::move(items_[index_++]);
    return true;
  }

 private:
  std::vector<Datum> items_;
  size_t index_ = 0;
};

class CharacterIterator final : public Iterator {
 public:
  explicit CharacterIterator(Datum text) : text_(std::move(text)) {}
  bool Next(Interpreter& interpreter, Datum* item) override {
    const std::string& text = text_.string();
    if (position_ >= text.size()) return false;
    const size_t start = position_;
    NextCodePoint(text, &position_);
    *item = interpreter.NewString(text.substr(start, position_ - start));
    return true;
  }

 private:
  Datum text_;
  size_t position_ = 0;
};

class FunctionIterator final : public Iterator {
 public:
  explicit FunctionIterator(NextFunction next) : next_(std::move(next)) {}
  bool Next(Interpreter& interpreter, Datum* item) override { return next_(interpreter, item); }

 private:
  NextFunction next_;
};

}  // namespace

void FailType(const std::string& message) { throw RenderError(message); }

void FailUndefined(const Datum& value) { throw RenderError(value.undefined_message()); }

std::string TypeName(const Datum& value) {
  if (value.is(Kind::kNone)) return "None";
  const std::string name = value.is(Kind::kExotic) ? value.exotic().qualified_type_name()
                                                   : std::string(value.type_name());
  return name + " object";
}

std::unique_ptr<Iterator> IterateItems(Datum owner, const std::vector<Datum>& items) {
  return std::make_unique<VectorIterator>(std::move(owner), items);
}

std::unique_ptr<Iterator> IterateVector(std::vector<Datum> items) {
  return std::make_unique<OwnedIterator>(std::move(items));
}

std::unique_ptr<Iterator> IterateWith(NextFunction next) {
  return std::make_unique<FunctionIterator>(std::move(next));
}

bool Truth(Interpreter& interpreter, const Datum& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kString:
      return !value.string().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return value.dict().size() != 0;
    case Kind::kExotic:
      return value.exotic().Truth(interpreter);
  }
  return false;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(result.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t sign = text[e + 1] == '+' ? 2 : 1;
  std::from_chars(text.data() + e + sign, text.data() + text.size(), exponent);
  std::string out = value < 0 || std::signbit(value) ? "-" : "";
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    char tail[16];
    std::snprintf(tail, sizeof(tail), "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out + tail;
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (exponent + 1 >= count) {
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  const auto point = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

std::string StringRepr(std::string_view text) {
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (c == static_cast<uint32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c) || c == ' ') {
      out += text.substr(start, p - start);
    } else {
      const uint32_t value = c & ~kInvalidByte;
      char escape[16];
      const char* format = value < 0x100 ? "\\x%02x" : value < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(escape, sizeof(escape), format, value);
      out += escape;
    }
  }
  return out + quote;
}

std::string Repr(Interpreter& interpreter, const Datum& value) {
  std::string text;
  Printer(&interpreter, &text).Print(value);
  interpreter.budget().Make(text.size());
  return text;
}

void AppendStr(Interpreter& interpreter, const Datum& value, std::string* out) {
  if (value.is_string()) {
    interpreter.budget().CheckLength(out->size() + value.string().size());
    interpreter.budget().Touch(value.string().size());
    *out += value.string();
  } else if (!value.is_undefined()) {
    Printer(&interpreter, out).Print(value);
  }
}

std::string Str(Interpreter& interpreter, const Datum& value) {
  std::string text;
  AppendStr(interpreter, value, &text);
  interpreter.budget().Make(text.size());
  return text;
}

bool Identical(const Datum& left, const Datum& right) {
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return left.integer() == right.integer();
    case Kind::kFloat:
      return left.real() == right.real();
    case Kind::kString:
      return left.identity() == right.identity() || left.string() == right.string();
    default:
      return left.identity() == right.identity();
  }
}

bool SameKey(const Datum& left, const Datum& right) {
  if (left.is_number() && right.is_number()) return CompareNumbers(left, right) == 0;
  if (left.is_undefined() && right.is_undefined()) return true;
  if (left.is(Kind::kTuple) && right.is(Kind::kTuple)) {
    const auto& a = left.items();
    const auto& b = right.items();
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), SameKey);
  }
  if (left.is_string() && right.is_string()) return left.string() == right.string();
  return left.kind() == right.kind() && left.identity() == right.identity();
}

bool Equal(Interpreter& interpreter, const Datum& left, const Datum& right) {
  interpreter.budget().Step();
  if (left.is_number() && right.is_number()) return CompareNumbers(left, right) == 0;
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (left.identity() == right.identity()) return true;
      if (left.string().size() != right.string().size()) return false;
      return CompareStrings(interpreter, left.string(), right.string()) == 0;
    case Kind::kList:
    case Kind::kTuple:
      return left.identity() == right.identity() ||
             EqualItems(interpreter, left.items(), right.items());
    case Kind::kDict:
      return left.identity() == right.identity() ||
             EqualDicts(interpreter, left.dict(), right.dict());
    case Kind::kExotic:
      return left.identity() == right.identity() ||
             left.exotic().Equals(interpreter, right.exotic()).value_or(false);
    default:
      return false;
  }
}

bool Compare(Interpreter& interpreter, CompareOp op, const Datum& left, const Datum& right) {
  switch (op) {
    case CompareOp::kEq:
      return Equal(interpreter, left, right);
    case CompareOp::kNe:
      return !Equal(interpreter, left, right);
    case CompareOp::kIn:
      return Contains(interpreter, left, right);
    case CompareOp::kNotIn:
      return !Contains(interpreter, left, right);
    default:
      return CompareOrder(interpreter, op, left, right);
  }
}

bool Contains(Interpreter& interpreter, const Datum& item, const Datum& container) {
  if (container.is_string()) {
    if (!item.is_string()) {
      FailType("'in <string>' requires string as left operand, not " +
               std::string(item.type_name()));
    }
    interpreter.budget().Touch(container.string().size());
    return FindIn(container.string(), item.string()) != std::string_view::npos;
  }
  if (container.is(Kind::kDict)) {
    RequireHashable(item);
    return container.dict().Find(item) != nullptr;
  }
  if (const auto* view = container.As<DictView>(); view && view->what() == DictView::What::kKeys) {
    RequireHashable(item);
    return view->dict().Find(item) != nullptr;
  }
  if (const auto* range = container.As<RangeObject>(); range && item.is_integral()) {
    return range->Contains(item.integer());
  }
  if (!IsIterable(container)) {
    FailType("argument of type " + Quoted(container.type_name()) + " is not iterable");
  }
  const std::unique_ptr<Iterator> iterator = Iterate(interpreter, container);
  Datum other;
  while (iterator->Next(interpreter, &other)) {
    if (Equal(interpreter, item, other)) return true;
  }
  return false;
}

Datum Arithmetic(Interpreter& interpreter, ArithmeticOp op, const Datum& left, const Datum& right) {
  if (left.is_string() && op == ArithmeticOp::kMod) {
    return Datum::String(PercentFormat(interpreter, left.string(), right));
  }
  if (left.is_undefined()) FailUndefined(left);
  if (right.is_undefined()) FailUndefined(right);
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) {
      return IntArithmetic(op, left.integer(), right.integer());
    }
    return FloatArithmetic(op, left.number(), right.number());
  }
  if (op == ArithmeticOp::kAdd) return Add(interpreter, left, right);
  if (op == ArithmeticOp::kMul) {
    const auto repeatable = [](const Datum& d) { return d.is_string() || d.is_sequence(); };
    if (repeatable(left) && right.is_integral()) return Repeat(interpreter, left, right.integer());
    if (repeatable(right) && left.is_integral()) return Repeat(interpreter, right, left.integer());
    if (repeatable(left) || repeatable(right)) {
      const Datum& other = repeatable(left) ? right : left;
      FailType("can't multiply sequence by non-int of type " + Quoted(other.type_name()));
    }
  }
  FailOperands(OpText(op), left, right);
}

Datum Negate(const Datum& value, bool negative) {
  if (value.is_undefined()) FailUndefined(value);
  if (value.is_integral()) {
    int64_t result = value.integer();
    if (negative && __builtin_sub_overflow(int64_t{0}, result, &result)) FailOverflow();
    return Datum::Int(result);
  }
  if (value.is(Kind::kFloat)) return Datum::Float(negative ? -value.real() : value.real());
  FailType(std::string("bad operand type for unary ") + (negative ? "-" : "+") + ": " +
           Quoted(value.type_name()));
}

std::optional<Datum> FindAttribute(Interpreter& interpreter, const Datum& object,
                                   std::string_view name) {
  if (object.is_undefined()) FailUndefined(object);
  if (object.is(Kind::kExotic)) return object.exotic().Attribute(interpreter, name);
  if (IsMutatingMethod(object.kind(), name)) return UnsafeAttribute(object, name);
  if (name.starts_with("__")) {
    if (name == "__class__" || name == "__doc__" || name == "__init__" || name == "__len__" ||
        name == "__getitem__" || name == "__str__" || name == "__repr__") {
      return UnsafeAttribute(object, name);
    }
    return std::nullopt;
  }
  if (object.is_group_tuple()) {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (object.is_integral()) {
    if (name == "real" || name == "numerator") return Datum::Int(object.integer());
    if (name == "imag") return Datum::Int(0);
    if (name == "denominator") return Datum::Int(1);
  }
  if (object.is(Kind::kFloat)) {
    if (name == "real") return object;
    if (name == "imag") return Datum::Float(0.0);
  }
  const Builtin method = FindMethod(object.kind(), name);
  if (method == nullptr) return std::nullopt;
  return Datum::From(std::make_shared<FunctionObject>(std::string(name), method, object));
}

Datum GetAttribute(Interpreter& interpreter, const Datum& object, std::string_view name) {
  if (std::optional<Datum> value = FindAttribute(interpreter, object, name)) {
    return *std::move(value);
  }
  if (object.is(Kind::kDict)) {
    if (const Datum* value = object.dict().Find(name)) return *value;
  }
  return Datum::Undefined(StringRepr(TypeName(object)) + " has no attribute " + StringRepr(name));
}

Datum GetItem(Interpreter& interpreter, const Datum& object, const Datum& key) {
  if (std::optional<Datum> value = FindItem(interpreter, object, key)) return *std::move(value);
  if (key.is_string()) {
    std::optional<Datum> value = FindAttribute(interpreter, object, key.string());
    if (value) return *std::move(value);
  }
  return UndefinedItem(interpreter, object, key);
}

std::optional<int64_t> SliceIndex(const Datum& value) {
  if (value.is(Kind::kNone)) return std::nullopt;
  if (!value.is_integral()) {
    FailType("slice indices must be integers or None or have an __index__ method");
  }
  return value.integer();
}

Datum GetSlice(Interpreter& interpreter, const Datum& object, const SliceBounds& bounds) {
  if (object.is_undefined()) FailUndefined(object);
  if (object.is_string()) return SliceString(interpreter, object.string(), bounds);
  if (object.is_sequence()) {
    const std::vector<Datum>& items = object.items();
    std::vector<Datum> result;
    ForEachIndex(Clamp(bounds, static_cast<int64_t>(items.size())), [&](size_t i) {
      interpreter.budget().Step();
      result.push_back(items[i]);
    });
    return object.is(Kind::kList) ? Datum::List(std::move(result))
                                  : Datum::Tuple(std::move(result));
  }
  if (const auto* range = object.As<RangeObject>()) {
    const SliceRange slice = Clamp(bounds, range->length());
    int64_t step = 0;
    if (__builtin_mul_overflow(range->step(), slice.step, &step)) FailOverflow();
    return Datum::From(
        std::make_shared<RangeObject>(range->At(slice.start), range->At(slice.stop), step));
  }
  if (object.is(Kind::kDict)) FailType("unhashable type: 'slice'");
  FailType(Quoted(object.type_name()) + " object is not subscriptable");
}

std::optional<int64_t> Length(Interpreter& interpreter, const Datum& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      interpreter.budget().Touch(value.string().size());
      return static_cast<int64_t>(CountCodePoints(value.string()));
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::kExotic:
      return value.exotic().Length(interpreter);
    default:
      return std::nullopt;
  }
}

bool IsIterable(const Datum& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return true;
    case Kind::kExotic:
      return value.exotic().iterable();
    default:
      return false;
  }
}

std::unique_ptr<Iterator> Iterate(Interpreter& interpreter, const Datum& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return IterateVector({});
    case Kind::kString:
      return std::make_unique<CharacterIterator>(value);
    case Kind::kList:
    case Kind::kTuple:
      return IterateItems(value, value.items());
    case Kind::kDict:
      return DictView(value.dict_ptr(), DictView::What::kKeys).Iterate(interpreter);
    case Kind::kExotic:
      if (auto iterator = value.exotic().Iterate(interpreter)) return iterator;
      break;
    default:
      break;
  }
  FailType(Quoted(value.type_name()) + " object is not iterable");
}

std::vector<Datum> ToVector(Interpreter& interpreter, const Datum& value) {
  std::vector<Datum> items;
  const std::unique_ptr<Iterator> iterator = Iterate(interpreter, value);
  Datum item;
  while (iterator->Next(interpreter, &item)) {
    interpreter.budget().Step();
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace engine::text::jinja
