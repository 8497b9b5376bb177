#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_functions.h"
#include "engine/text/jinja/unicode.h"

// Python's two ways to format: "%d items" % 3 and "{} items".format(3).

namespace engine::text::jinja {
namespace {

bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }

// A number read from a format; widths beyond the output limit fail before anything is padded.
size_t ReadNumber(Interpreter& interpreter, std::string_view text, size_t* position) {
  size_t value = 0;
  while (*position < text.size() && IsDigitChar(text[*position])) {
    value = value * 10 + static_cast<size_t>(text[(*position)++] - '0');
    interpreter.budget().CheckLength(value);
  }
  return value;
}

std::string PrintFloat(Interpreter& interpreter, double value, char type, size_t precision,
                       bool alternate) {
  interpreter.budget().Make(precision + 400);
  const char format[] = {'%',
                         alternate ? '#' : '.',
                         alternate ? '.' : '*',
                         alternate ? '*' : type,
                         alternate ? type : '\0',
                         '\0'};
  const int digits = static_cast<int>(precision);
  std::string text(static_cast<size_t>(std::snprintf(nullptr, 0, format, digits, value)), '\0');
  std::snprintf(text.data(), text.size() + 1, format, digits, value);
  return text;
}

std::string InBase(uint64_t value, unsigned base, bool upper) {
  const char* digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string text;
  do {
    text.insert(text.begin(), digits[value % base]);
    value /= base;
  } while (value != 0);
  return text;
}

uint64_t Magnitude(int64_t value) {
  return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

std::string PadSpaces(Interpreter& interpreter, std::string text, size_t width, bool left) {
  const size_t length = CountCodePoints(text);
  if (length >= width) return text;
  interpreter.budget().Make(width);
  if (left) return text + std::string(width - length, ' ');
  return std::string(width - length, ' ') + text;
}

// A number as sign ("" or "-"), prefix ("0x") and digits.
struct NumberText {
  bool negative = false;
  std::string prefix;
  std::string digits;
};

// One conversion of a % format.
struct Conversion {
  bool left = false, plus = false, space = false, alternate = false, zero = false;
  size_t width = 0;
  std::optional<size_t> precision;
  char type = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, const std::string& format, const Datum& value)
      : interpreter_(interpreter), format_(format), value_(value) {}

  std::string Run() {
    while (position_ < format_.size()) {
      const size_t percent = format_.find('%', position_);
      out_.append(format_, position_, percent - position_);
      if (percent == std::string::npos) break;
      position_ = percent + 1;
      Convert();
      interpreter_.budget().CheckLength(out_.size());
    }
    const size_t given = value_.is(Kind::kTuple) ? value_.items().size() : 1;
    if (next_ < given && !IsMappingLike() && !used_mapping_) {
      FailType("not all arguments converted during string formatting");
    }
    interpreter_.budget().Make(out_.size());
    return std::move(out_);
  }

 private:
  // What PyMapping_Check accepts and the % operator does not complain about.
  bool IsMappingLike() const {
    return value_.is(Kind::kDict) || value_.is(Kind::kList) || value_.is_undefined() ||
           (value_.is(Kind::kExotic) && value_.exotic().has_items());
  }

  Datum NextArgument() {
    if (value_.is(Kind::kTuple)) {
      if (next_ < value_.items().size()) return value_.items()[next_++];
    } else if (next_ == 0) {
      ++next_;
      return value_;
    }
    FailType("not enough arguments for format string");
  }

  char Peek() const {
    if (position_ >= format_.size()) FailType("incomplete format");
    return format_[position_];
  }

  std::optional<Datum> ReadKey() {
    if (Peek() != '(') return std::nullopt;
    const size_t start = ++position_;
    for (size_t depth = 1; depth > 0; ++position_) {
      if (position_ >= format_.size()) FailType("incomplete format key");
      depth += format_[position_] == '(' ? 1 : 0;
      depth -= format_[position_] == ')' ? 1 : 0;
    }
    const std::string key = format_.substr(start, position_ - 1 - start);
    if (!value_.is(Kind::kDict)) FailType("format requires a mapping");
    used_mapping_ = true;
    const Datum* found = value_.dict().Find(std::string_view(key));
    if (found == nullptr) FailType(StringRepr(key));
    return *found;
  }

  void ReadFlags(Conversion* conversion) {
    while (true) {
      switch (Peek()) {
        case '-':
          conversion->left = true;
          break;
        case '+':
          conversion->plus = true;
          break;
        case ' ':
          conversion->space = true;
          break;
        case '#':
          conversion->alternate = true;
          break;
        case '0':
          conversion->zero = true;
          break;
        default:
          return;
      }
      ++position_;
    }
  }

  int64_t StarArgument() {
    ++position_;
    const Datum value = NextArgument();
    if (!value.is_integral()) FailType("* wants int");
    interpreter_.budget().CheckLength(Magnitude(value.integer()));
    return value.integer();
  }

  void Convert() {
    if (Peek() == '%') {
      ++position_;
      out_ += '%';
      return;
    }
    const std::optional<Datum> keyed = ReadKey();
    Conversion conversion;
    ReadFlags(&conversion);
    if (Peek() == '*') {
      const int64_t width = StarArgument();
      conversion.left = conversion.left || width < 0;
      conversion.width = Magnitude(width);
    } else {
      conversion.width = ReadNumber(interpreter_, format_, &position_);
    }
    if (Peek() == '.') {
      ++position_;
      conversion.precision = Peek() == '*'
                                 ? static_cast<size_t>(std::max<int64_t>(StarArgument(), 0))
                                 : ReadNumber(interpreter_, format_, &position_);
    }
    while (Peek() == 'h' || Peek() == 'l' || Peek() == 'L') ++position_;
    conversion.type = Peek();
    ++position_;
    if (conversion.type == '%') {
      out_ += '%';
      return;
    }
    const Datum value = keyed ? *keyed : NextArgument();
    out_ += Render(conversion, value);
  }

  std::string Render(const Conversion& conversion, const Datum& value) {
    switch (conversion.type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text =
            conversion.type == 's' ? Str(interpreter_, value) : Repr(interpreter_, value);
        if (conversion.precision) text.resize(ByteOffset(text, *conversion.precision));
        return PadSpaces(interpreter_, std::move(text), conversion.width, conversion.left);
      }
      case 'c':
        return PadSpaces(interpreter_, Character(value), conversion.width, conversion.left);
      case 'd':
      case 'i':
      case 'u':
      case 'o':
      case 'x':
      case 'X':
        return Layout(conversion, Integer(conversion, value));
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return Layout(conversion, Real(conversion, value));
      default:
        FailType(std::string("unsupported format character '") + conversion.type + "'");
    }
  }

  static std::string Character(const Datum& value) {
    if (value.is_string() && CountCodePoints(value.string()) == 1) return value.string();
    if (!value.is_integral()) FailType("%c requires int or char");
    const int64_t code = value.integer();
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      FailType("%c arg not in range(0x110000)");
    }
    std::string text;
    AppendCodePoint(static_cast<uint32_t>(code), &text);
    return text;
  }

  NumberText Integer(const Conversion& conversion, const Datum& value) {
    if (value.is_undefined()) FailUndefined(value);
    const bool decimal = conversion.type == 'd' || conversion.type == 'i' || conversion.type == 'u';
    int64_t number = 0;
    if (value.is_integral()) {
      number = value.integer();
    } else if (decimal && value.is(Kind::kFloat) &&
               std::fabs(value.real()) < 9223372036854775808.0) {
      number = static_cast<int64_t>(value.real());
    } else {
      FailType(std::string("%") + conversion.type +
               " format: " + (decimal ? "a real number" : "an integer") + " is required, not " +
               std::string(value.type_name()));
    }
    NumberText text;
    text.negative = number < 0;
    const unsigned base = decimal ? 10 : conversion.type == 'o' ? 8 : 16;
    text.digits = InBase(Magnitude(number), base, conversion.type == 'X');
    if (conversion.precision && text.digits.size() < *conversion.precision) {
      interpreter_.budget().Make(*conversion.precision);
      text.digits.insert(0, *conversion.precision - text.digits.size(), '0');
    }
    if (conversion.alternate && !decimal) text.prefix = std::string("0") + conversion.type;
    return text;
  }

  NumberText Real(const Conversion& conversion, const Datum& value) {
    if (value.is_undefined()) FailUndefined(value);
    if (!value.is_number()) {
      FailType("must be real number, not " + std::string(value.type_name()));
    }
    const double number = value.number();
    NumberText text;
    text.negative = std::signbit(number) && !std::isnan(number);
    text.digits = PrintFloat(interpreter_, std::fabs(number), conversion.type,
                             conversion.precision.value_or(6), conversion.alternate);
    return text;
  }

  std::string Layout(const Conversion& conversion, const NumberText& number) {
    std::string sign = number.negative ? "-" : conversion.plus ? "+" : conversion.space ? " " : "";
    sign += number.prefix;
    const size_t length = sign.size() + number.digits.size();
    if (conversion.zero && !conversion.left && length < conversion.width) {
      interpreter_.budget().Make(conversion.width);
      return sign + std::string(conversion.width - length, '0') + number.digits;
    }
    return PadSpaces(interpreter_, sign + number.digits, conversion.width, conversion.left);
  }

  Interpreter& interpreter_;
  const std::string& format_;
  const Datum& value_;
  size_t position_ = 0;
  size_t next_ = 0;
  bool used_mapping_ = false;
  std::string out_;
};

// The part after the colon of a replacement field.
struct FormatSpec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  size_t width = 0;
  char grouping = 0;
  std::optional<size_t> precision;
  char type = 0;
};

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const Arguments& arguments)
      : interpreter_(interpreter), arguments_(arguments) {}

  // `levels`: how deep fields may still nest in format specs.
  std::string Run(std::string_view format, int levels) {
    if (levels < 0) FailType("Max string recursion exceeded");
    std::string out;
    size_t p = 0;
    while (p < format.size()) {
      const char c = format[p];
      if (c != '{' && c != '}') {
        out += c;
        ++p;
        continue;
      }
      if (p + 1 < format.size() && format[p + 1] == c) {
        out += c;
        p += 2;
        continue;
      }
      if (c == '}') FailType("Single '}' encountered in format string");
      out += Field(format, &p, levels);
      interpreter_.budget().CheckLength(out.size());
    }
    interpreter_.budget().Make(out.size());
    return out;
  }

 private:
  std::string Field(std::string_view format, size_t* position, int levels) {
    const size_t start = *position + 1;
    size_t end = start;
    size_t conversion_at = std::string_view::npos, spec_at = std::string_view::npos;
    int depth = 1;
    for (bool bracket = false;; ++end) {
      if (end >= format.size()) FailType("expected '}' before end of string");
      const char c = format[end];
      if (c == '{') ++depth;
      if (c == '}' && --depth == 0) break;
      if (depth != 1 || spec_at != std::string_view::npos) continue;
      if (c == '[') bracket = true;
      if (c == ']') bracket = false;
      if (bracket) continue;
      if (c == ':') spec_at = end;
      if (c == '!' && conversion_at == std::string_view::npos) conversion_at = end;
    }
    *position = end + 1;
    const size_t name_end = std::min({end, conversion_at, spec_at});
    Datum value = Lookup(format.substr(start, name_end - start));
    if (conversion_at != std::string_view::npos) {
      const size_t conversion_end = std::min(end, spec_at);
      value =
          ConvertValue(value, format.substr(conversion_at + 1, conversion_end - conversion_at - 1));
    }
    std::string spec;
    if (spec_at != std::string_view::npos) {
      spec = Run(format.substr(spec_at + 1, end - spec_at - 1), levels - 1);
    }
    return FormatValue(value, spec);
  }

  Datum ConvertValue(const Datum& value, std::string_view conversion) {
    if (conversion == "s") return Datum::String(Str(interpreter_, value));
    if (conversion == "r" || conversion == "a") return Datum::String(Repr(interpreter_, value));
    FailType("Unknown conversion specifier " + std::string(conversion));
  }

  // "name.attribute[key]…" among the arguments.
  Datum Lookup(std::string_view name) {
    const size_t first_end = std::min(name.find('.'), name.find('['));
    Datum value = Argument(name.substr(0, first_end));
    size_t p = std::min(first_end, name.size());
    while (p < name.size()) {
      if (name[p] == '.') {
        const size_t end = std::min({name.find('.', p + 1), name.find('[', p + 1), name.size()});
        value = GetAttribute(interpreter_, value, name.substr(p + 1, end - p - 1));
        p = end;
        continue;
      }
      const size_t close = name.find(']', p);
      if (name[p] != '[' || close == std::string_view::npos) {
        FailType("Only '.' or '[' may follow ']' in format field specifier");
      }
      const std::string_view key = name.substr(p + 1, close - p - 1);
      const auto index = IsNumberText(key) ? ParseInt(key, 10) : std::nullopt;
      value = GetItem(interpreter_, value,
                      index ? Datum::Int(*index) : Datum::String(std::string(key)));
      p = close + 1;
    }
    return value;
  }

  static bool IsNumberText(std::string_view text) {
    return !text.empty() && text.size() < 19 && std::all_of(text.begin(), text.end(), IsDigitChar);
  }

  Datum Argument(std::string_view name) {
    if (name.empty() || IsNumberText(name)) {
      if (name.empty() ? manual_ : automatic_ > 0) {
        FailType("cannot switch between manual and automatic field numbering");
      }
      manual_ = manual_ || !name.empty();
      const size_t index = name.empty() ? automatic_++ : static_cast<size_t>(*ParseInt(name, 10));
      if (index >= arguments_.positional.size()) {
        FailType("Replacement index " + std::to_string(index) +
                 " out of range for positional args tuple");
      }
      return arguments_.positional[index];
    }
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) return value;
    }
    FailType(StringRepr(name));
  }

  FormatSpec ParseSpec(std::string_view text) {
    FormatSpec spec;
    size_t p = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
    size_t after_fill = 0;
    if (!text.empty()) NextCodePoint(text, &after_fill);
    if (after_fill < text.size() && after_fill > 0 && is_align(text[after_fill])) {
      spec.fill = std::string(text.substr(0, after_fill));
      spec.align = text[after_fill];
      p = after_fill + 1;
    } else if (!text.empty() && is_align(text[0])) {
      spec.align = text[0];
      p = 1;
    }
    const auto take = [&](std::string_view any) {
      return p < text.size() && any.find(text[p]) != any.npos ? text[p++] : '\0';
    };
    if (const char sign = take("+- ")) spec.sign = sign;
    spec.alternate = take("#") != 0;
    if (take("0") != 0) {
      spec.zero = true;
      if (spec.align == 0) {
        spec.align = '=';
        spec.fill = "0";
      }
    }
    spec.width = ReadNumber(interpreter_, text, &p);
    spec.grouping = take(",_");
    if (take(".") != 0) {
      if (p >= text.size() || !IsDigitChar(text[p])) FailType("Format specifier missing precision");
      spec.precision = ReadNumber(interpreter_, text, &p);
    }
    if (p < text.size()) spec.type = text[p++];
    if (p != text.size()) FailType("Invalid format specifier");
    return spec;
  }

  std::string FormatValue(const Datum& value, const std::string& spec_text) {
    if (spec_text.empty()) return Str(interpreter_, value);
    if (value.is_string()) return FormatString(value.string(), ParseSpec(spec_text));
    if (value.is_number()) return FormatNumber(value, ParseSpec(spec_text));
    FailType("unsupported format string passed to " + std::string(value.type_name()) +
             ".__format__");
  }

  [[noreturn]] static void FailCode(char type, std::string_view name) {
    FailType(std::string("Unknown format code '") + type + "' for object of type '" +
             std::string(name) + "'");
  }

  std::string Pad(std::string text, const FormatSpec& spec, char default_align) {
    const char align = spec.align == 0 ? default_align : spec.align;
    const size_t length = CountCodePoints(text);
    if (length >= spec.width) return text;
    const size_t padding = spec.width - length;
    interpreter_.budget().Make(text.size() + padding * spec.fill.size());
    const size_t left = align == '<' ? 0 : align == '^' ? padding / 2 : padding;
    std::string out;
    for (size_t i = 0; i < left; ++i) out += spec.fill;
    out += text;
    for (size_t i = left; i < padding; ++i) out += spec.fill;
    return out;
  }

  std::string FormatString(std::string text, const FormatSpec& spec) {
    if (spec.type != 0 && spec.type != 's') FailCode(spec.type, "str");
    if (spec.sign != '-') FailType("Sign not allowed in string format specifier");
    if (spec.alternate) FailType("Alternate form (#) not allowed in string format specifier");
    if (spec.align == '=' && !spec.zero) {
      FailType("'=' alignment not allowed in string format specifier");
    }
    if (spec.grouping != 0)
      FailType(std::string("Cannot specify '") + spec.grouping + "' with 's'.");
    if (spec.precision) text.resize(ByteOffset(text, *spec.precision));
    FormatSpec padded = spec;
    if (padded.align == '=') padded.align = '<';
    return Pad(std::move(text), padded, '<');
  }

  std::string FormatNumber(const Datum& value, const FormatSpec& spec) {
    constexpr std::string_view kIntegerTypes = "bcdoxXn";
    const bool as_integer = value.is_integral() &&
                            (spec.type == 0 || kIntegerTypes.find(spec.type) != std::string::npos);
    if (as_integer) return FormatInteger(value.integer(), spec);
    if (std::string_view("eEfFgGn%").find(spec.type) == std::string::npos && spec.type != 0) {
      FailCode(spec.type, value.type_name());
    }
    return FormatFloat(value.number(), spec);
  }

  std::string FormatInteger(int64_t value, const FormatSpec& spec) {
    if (spec.precision) FailType("Precision not allowed in integer format specifier");
    NumberText number;
    number.negative = value < 0;
    switch (spec.type) {
      case 'c': {
        if (spec.sign != '-') FailType("Sign not allowed with integer format specifier 'c'");
        if (value < 0 || value > 0x10FFFF) FailType("%c arg not in range(0x110000)");
        std::string text;
        AppendCodePoint(static_cast<uint32_t>(value), &text);
        return Pad(std::move(text), spec, '<');
      }
      case 'b':
        number.prefix = "0b";
        number.digits = InBase(Magnitude(value), 2, false);
        break;
      case 'o':
        number.prefix = "0o";
        number.digits = InBase(Magnitude(value), 8, false);
        break;
      case 'x':
      case 'X':
        number.prefix = std::string("0") + spec.type;
        number.digits = InBase(Magnitude(value), 16, spec.type == 'X');
        break;
      default:
        number.digits = std::to_string(Magnitude(value));
    }
    if (!spec.alternate) number.prefix.clear();
    const bool power_of_two =
        spec.type == 'b' || spec.type == 'o' || spec.type == 'x' || spec.type == 'X';
    if (power_of_two && spec.grouping == ',') {
      FailType(std::string("Cannot specify ',' with '") + spec.type + "'.");
    }
    return Layout(number, spec, power_of_two ? 4 : 3);
  }

  std::string FormatFloat(double value, const FormatSpec& spec) {
    NumberText number;
    number.negative = std::signbit(value) && !std::isnan(value);
    const double magnitude = std::fabs(value);
    const char type = spec.type == 'n' ? 'g' : spec.type;
    if (type == 0 && !spec.precision) {
      number.digits = FloatRepr(magnitude);
    } else if (type == 0) {
      number.digits = PrintFloat(interpreter_, magnitude, 'g', std::max<size_t>(*spec.precision, 1),
                                 spec.alternate);
      if (number.digits.find_first_of(".en") == std::string::npos) number.digits += ".0";
    } else if (type == '%') {
      number.digits = PrintFloat(interpreter_, magnitude * 100, 'f', spec.precision.value_or(6),
                                 spec.alternate) +
                      "%";
    } else {
      number.digits =
          PrintFloat(interpreter_, magnitude, type, spec.precision.value_or(6), spec.alternate);
    }
    return Layout(number, spec, 3);
  }

  // Digits before the point in groups, with zeros up to `width` in groups too.
  static std::string Group(const std::string& digits, char separator, size_t group, size_t width) {
    size_t whole = 0;
    while (whole < digits.size() && std::isalnum(static_cast<unsigned char>(digits[whole])) != 0 &&
           digits[whole] != 'e') {
      ++whole;
    }
    std::string head = digits.substr(0, whole);
    const std::string tail = digits.substr(whole);
    const auto grouped_size = [&](size_t count) { return count + (count - 1) / group; };
    while (head.size() < width && grouped_size(head.size()) + tail.size() < width) {
      head.insert(head.begin(), '0');
    }
    std::string out;
    for (size_t i = 0; i < head.size(); ++i) {
      if (i != 0 && (head.size() - i) % group == 0) out += separator;
      out += head[i];
    }
    return out + tail;
  }

  std::string Layout(const NumberText& number, const FormatSpec& spec, size_t group) {
    std::string sign = number.negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
    sign += number.prefix;
    const bool inside = spec.align == '=';
    std::string digits = number.digits;
    if (spec.grouping != 0) {
      const bool zeros = inside && spec.fill == "0" && spec.width > sign.size();
      if (zeros && spec.width > 4096) FailType("the width of a grouped number is too large");
      digits = Group(digits, spec.grouping, group, zeros ? spec.width - sign.size() : 0);
    }
    if (!inside) return Pad(sign + digits, spec, '>');
    FormatSpec rest = spec;
    rest.align = '>';
    rest.width = spec.width > sign.size() ? spec.width - sign.size() : 0;
    return sign + Pad(std::move(digits), rest, '>');
  }

  Interpreter& interpreter_;
  const Arguments& arguments_;
  size_t automatic_ = 0;
  bool manual_ = false;
};

}  // namespace

std::string PercentFormat(Interpreter& interpreter, const std::string& format, const Datum& value) {
  return PercentFormatter(interpreter, format, value).Run();
}

std::string BraceFormat(Interpreter& interpreter, const std::string& format,
                        const Arguments& arguments) {
  return BraceFormatter(interpreter, arguments).Run(format, 2);
}

}  // namespace engine::text::jinja
