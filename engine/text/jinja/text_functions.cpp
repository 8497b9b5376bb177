#include "engine/text/jinja/text_functions.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace engine::text::jinja {
namespace {

std::string_view StripChars(std::string_view text, std::string_view chars, Side side) {
  std::vector<uint32_t> set;
  for (size_t p = 0; p < chars.size();) set.push_back(NextCodePoint(chars, &p));
  std::sort(set.begin(), set.end());
  size_t start = 0, end = text.size();
  while (side != Side::kRight && start < end) {
    size_t next = start;
    if (!std::binary_search(set.begin(), set.end(), NextCodePoint(text, &next))) break;
    start = next;
  }
  while (side != Side::kLeft && end > start) {
    const size_t previous = PreviousOffset(text, end);
    size_t at = previous;
    if (!std::binary_search(set.begin(), set.end(), NextCodePoint(text, &at))) break;
    end = previous;
  }
  return text.substr(start, end - start);
}

// Digits with single underscores between them, as Python reads numbers from text.
bool RemoveUnderscores(std::string* text) {
  std::string out;
  for (size_t i = 0; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (c != '_') {
      out += c;
      continue;
    }
    const auto alnum = [&](size_t at) {
      return at < text->size() && std::isalnum(static_cast<unsigned char>((*text)[at])) != 0;
    };
    if (i == 0 || !alnum(i - 1) || !alnum(i + 1)) return false;
  }
  *text = std::move(out);
  return true;
}

// Digits of any script as ASCII, and nothing else outside ASCII.
std::optional<std::string> AsciiNumber(std::string_view text) {
  std::string out;
  text = StripRight(StripLeft(text));
  for (size_t p = 0; p < text.size();) {
    const uint32_t c = NextCodePoint(text, &p);
    if (c < 0x80) {
      out += static_cast<char>(c);
      continue;
    }
    if (!IsDecimal(c)) return std::nullopt;
    // Decimal digits come in runs of ten that start at a zero.
    uint32_t zero = c;
    while (zero > 0 && c - zero < 9 && IsDecimal(zero - 1)) --zero;
    out += static_cast<char>('0' + (c - zero));
  }
  return out;
}

}  // namespace

Datum Strip(Interpreter& interpreter, const Datum& text, const std::string* chars, Side side) {
  const std::string& source = text.string();
  std::string_view view = source;
  if (chars != nullptr) {
    interpreter.budget().Touch(source.size() + chars->size());
    view = StripChars(view, *chars, side);
  } else {
    if (side != Side::kRight) view = StripLeft(view);
    if (side != Side::kLeft) view = StripRight(view);
  }
  return view.size() == source.size() ? text : interpreter.NewString(std::string(view));
}

Datum Justify(Interpreter& interpreter, const std::string& text, int64_t width,
              const std::string& fill, Side side) {
  if (CountCodePoints(fill) != 1) {
    FailType("The fill character must be exactly one character long");
  }
  interpreter.budget().Touch(text.size());
  const auto length = static_cast<int64_t>(CountCodePoints(text));
  if (width <= length) return interpreter.NewString(text);
  const int64_t padding = width - length;
  interpreter.budget().CheckLength(static_cast<uint64_t>(padding));
  int64_t left = side == Side::kLeft ? 0 : padding;
  if (side == Side::kBoth) left = padding / 2 + (padding & width & 1);
  std::string out;
  interpreter.budget().CheckLength(text.size() + static_cast<uint64_t>(padding) * fill.size());
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < padding; ++i) out += fill;
  return interpreter.NewString(std::move(out));
}

Datum Replace(Interpreter& interpreter, const std::string& text, const std::string& old,
              const std::string& replacement, int64_t count) {
  std::string out;
  size_t position = 0;
  interpreter.budget().Touch(text.size());
  if (old.empty()) {
    // Python puts the replacement before every character and at the end.
    for (int64_t done = 0; count < 0 || done < count; ++done) {
      out += replacement;
      interpreter.budget().CheckLength(out.size());
      if (position >= text.size()) break;
      const size_t start = position;
      NextCodePoint(text, &position);
      out.append(text, start, position - start);
    }
    out.append(text, position);
    return interpreter.NewString(std::move(out));
  }
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    const size_t found = FindIn(text, old, position);
    if (found == std::string_view::npos) break;
    out.append(text, position, found - position);
    out += replacement;
    interpreter.budget().CheckLength(out.size());
    position = found + old.size();
  }
  out.append(text, position);
  return interpreter.NewString(std::move(out));
}

std::optional<int64_t> ParseInt(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  const std::optional<std::string> ascii = AsciiNumber(text);
  if (!ascii) return std::nullopt;
  std::string digits(*ascii);
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  const char kind = digits.size() > 1 && digits[0] == '0' ? static_cast<char>(digits[1] | 0x20) : 0;
  const int64_t prefix = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
  if (prefix != 0 && (base == 0 || base == prefix)) {
    base = prefix;
    digits.erase(0, 2);
    if (!digits.empty() && digits[0] == '_') digits.erase(0, 1);
  } else if (base == 0) {
    if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of("0_") != digits.npos) {
      return std::nullopt;
    }
    base = 10;
  }
  if (digits.empty() || digits[0] == '-' || !RemoveUnderscores(&digits)) return std::nullopt;
  if (negative) digits.insert(0, 1, '-');
  int64_t value = 0;
  const auto result =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (result.ptr != digits.data() + digits.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) FailType("an integer does not fit 64 bits");
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<double> ParseFloat(std::string_view text) {
  std::optional<std::string> ascii = AsciiNumber(text);
  if (!ascii || !RemoveUnderscores(&*ascii)) return std::nullopt;
  std::string_view rest = *ascii;
  bool negative = false;
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) {
    negative = rest[0] == '-';
    rest.remove_prefix(1);
  }
  if (rest.empty() || rest[0] == '-' || rest[0] == '+') return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (result.ptr != rest.data() + rest.size() || rest.find('(') != rest.npos) return std::nullopt;
  // from_chars leaves the value alone where strtod gives infinity or zero.
  if (result.ec == std::errc::result_out_of_range) value = std::strtod(ascii->c_str(), nullptr);
  if (result.ec == std::errc::invalid_argument) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) return value;
  return negative ? -value : value;
}

Datum RoundNumber(const Datum& number, int64_t precision) {
  if (number.is_integral()) {
    if (precision >= 0) return Datum::Int(number.integer());
    if (precision < -18) return Datum::Int(0);
    int64_t unit = 1;
    for (int64_t i = 0; i < -precision; ++i) unit *= 10;
    int64_t quotient = number.integer() / unit;
    const int64_t rest = number.integer() % unit;
    const int64_t half = unit / 2;
    const int64_t magnitude = rest < 0 ? -rest : rest;
    if (magnitude > half || (magnitude == half && quotient % 2 != 0)) {
      quotient += rest < 0 ? -1 : 1;
    }
    int64_t result = 0;
    if (__builtin_mul_overflow(quotient, unit, &result)) {
      FailType("an integer does not fit 64 bits");
    }
    return Datum::Int(result);
  }
  const double value = number.real();
  if (!std::isfinite(value) || precision > 323) return number;
  if (precision < -308) return Datum::Float(std::copysign(0.0, value));
  char buffer[700];
  if (precision >= 0) {
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), value);
    return Datum::Float(std::strtod(buffer, nullptr));
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  const double scaled = value / unit;
  double rounded = std::round(scaled);
  if (std::fabs(scaled - rounded) == 0.5) rounded = 2.0 * std::round(scaled / 2.0);
  return Datum::Float(rounded * unit);
}

std::string TitleWords(std::string_view text) {
  std::string out;
  const auto is_separator = [](uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c);
  };
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    size_t after_first = p;
    NextCodePoint(text, &after_first);
    size_t end = p;
    bool separator = false;
    for (size_t q = p; q < text.size(); end = q) {
      const bool now = is_separator(NextCodePoint(text, &q));
      if (end == start) separator = now;
      if (now != separator) break;
    }
    if (end == start) end = text.size();
    out += Upper(text.substr(start, after_first - start));
    out += Lower(text.substr(after_first, end - after_first));
    p = end;
  }
  return out;
}

std::string UrlQuote(std::string_view text, bool for_query) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte < 0x80 && std::isalnum(byte) != 0) || c == '_' || c == '.' ||
                       c == '-' || c == '~' || (c == '/' && !for_query);
    if (plain) {
      out += c;
    } else if (c == ' ' && for_query) {
      out += '+';
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace engine::text::jinja
