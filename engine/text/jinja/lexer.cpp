#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <optional>

#include "engine/text/chat_template.h"
#include "engine/text/jinja/unicode.h"

namespace engine::text::jinja {
namespace {

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  return out;
}

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

int DigitValue(char c) {
  if (IsAsciiDigit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 99;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
  }

  std::vector<Token> Run() {
    while (position_ < source_.size()) LexData();
    Add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(const std::string& message) const {
    throw TemplateError("line " + std::to_string(line_) + ": " + message);
  }

  void Add(TokenType type, std::string text) { tokens_.push_back({type, line_, std::move(text)}); }

  std::string_view Rest() const { return std::string_view(source_).substr(position_); }

  bool At(std::string_view text, size_t position) const {
    return source_.compare(position, text.size(), text) == 0;
  }

  // Moves to `end`, counting lines. What ends in a newline leaves the next tag at a line start.
  void MoveTo(size_t end) {
    line_ += static_cast<uint32_t>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                              source_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    line_starting_ = end > position_ && source_[end - 1] == '\n';
    position_ = end;
  }

  size_t SkipSpace(size_t position) const {
    while (position < source_.size()) {
      size_t next = position;
      if (!IsSpace(NextCodePoint(source_, &next))) break;
      position = next;
    }
    return position;
  }

  // Where the tag's closing "%}" or "#}" (with its sign) ends if it starts at `position`. After "-"
  // all white space goes with it; without a sign one newline does when `trim_newline` is set.
  std::optional<size_t> MatchEnd(std::string_view close, size_t position, bool trim_newline,
                                 bool plus_allowed) const {
    if (position >= source_.size()) return std::nullopt;
    const char sign = source_[position];
    if (plus_allowed && sign == '+' && At(close, position + 1)) return position + 1 + close.size();
    if (sign == '-' && At(close, position + 1)) return SkipSpace(position + 1 + close.size());
    if (!At(close, position)) return std::nullopt;
    const size_t end = position + close.size();
    return trim_newline && end < source_.size() && source_[end] == '\n' ? end + 1 : end;
  }

  // Text before a tag, without what the tag's sign or lstrip_blocks removes.
  std::string_view StripBeforeTag(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return StripRight(text);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    if (start == 0 && !line_starting_) return text;
    return StripLeft(text.substr(start)).empty() ? text.substr(0, start) : text;
  }

  char SignAt(size_t position) const {
    const char c = position < source_.size() ? source_[position] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  // End of "{% raw %}" when the block tag that opens at `position` is one.
  std::optional<size_t> MatchRaw(size_t position) const {
    size_t p = SkipSpace(position + 2 + (SignAt(position + 2) != '\0' ? 1 : 0));
    if (!At("raw", p)) return std::nullopt;
    return MatchEnd("%}", SkipSpace(p + 3), /*trim_newline=*/false, /*plus_allowed=*/false);
  }

  void LexData() {
    size_t tag = position_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        Add(TokenType::kData, std::string(Rest()));
        MoveTo(source_.size());
        return;
      }
      const char kind = source_[tag + 1];
      if (kind == '%' || kind == '{' || kind == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(tag + 2);
    const std::string_view text = StripBeforeTag(
        std::string_view(source_).substr(position_, tag - position_), sign, kind == '{');
    if (!text.empty()) Add(TokenType::kData, std::string(text));
    const std::optional<size_t> raw = kind == '%' ? MatchRaw(tag) : std::nullopt;
    MoveTo(raw ? *raw : tag + 2 + (sign != '\0' ? 1 : 0));
    if (raw) {
      LexRaw();
    } else if (kind == '#') {
      LexComment();
    } else {
      LexTag(kind == '{');
    }
  }

  void LexComment() {
    for (size_t p = position_; (p = source_.find("#}", p)) != std::string::npos; ++p) {
      const bool has_sign = p > position_ && SignAt(p - 1) != '\0';
      MoveTo(*MatchEnd("#}", has_sign ? p - 1 : p, /*trim_newline=*/true, /*plus_allowed=*/true));
      return;
    }
    Fail("Missing end of comment tag");
  }

  void LexRaw() {
    for (size_t p = position_; (p = source_.find("{%", p)) != std::string::npos; ++p) {
      const char sign = SignAt(p + 2);
      const size_t name = SkipSpace(p + 2 + (sign != '\0' ? 1 : 0));
      if (!At("endraw", name)) continue;
      const std::optional<size_t> end = MatchEnd("%}", SkipSpace(name + 6), true, true);
      if (!end) continue;
      const std::string_view text = StripBeforeTag(
          std::string_view(source_).substr(position_, p - position_), sign, /*is_variable=*/false);
      if (!text.empty()) Add(TokenType::kData, std::string(text));
      MoveTo(*end);
      return;
    }
    Fail("Missing end of raw directive");
  }

  void LexTag(bool variable) {
    Add(variable ? TokenType::kVariableBegin : TokenType::kBlockBegin, "");
    std::string open;  // brackets that wait for their partner
    while (position_ < source_.size()) {
      if (open.empty()) {
        const auto end = variable ? MatchEnd("}}", position_, false, false)
                                  : MatchEnd("%}", position_, true, true);
        if (end) {
          Add(variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, "");
          MoveTo(*end);
          return;
        }
      }
      LexExpressionToken(&open);
    }
  }

  void LexExpressionToken(std::string* open) {
    const size_t after_space = SkipSpace(position_);
    if (after_space != position_) return MoveTo(after_space);
    const char c = source_[position_];
    if (IsAsciiDigit(c)) return LexNumber();
    if (c == '\'' || c == '"') return LexString(c);
    if (LexName()) return;
    LexOperator(open);
  }

  // Length of (\d+_)*\d+ at `position`.
  size_t MatchDigits(size_t position) const {
    size_t p = position;
    while (p < source_.size() &&
           (IsAsciiDigit(source_[p]) ||
            (source_[p] == '_' && p > position && IsAsciiDigit(source_[p - 1]) &&
             p + 1 < source_.size() && IsAsciiDigit(source_[p + 1])))) {
      ++p;
    }
    return p - position;
  }

  size_t MatchFloat(size_t position) const {
    if (position > 0 && source_[position - 1] == '.') return 0;
    size_t p = position + MatchDigits(position);
    bool fraction = false;
    if (p < source_.size() && source_[p] == '.' && MatchDigits(p + 1) > 0) {
      p += 1 + MatchDigits(p + 1);
      fraction = true;
    }
    if (p < source_.size() && (source_[p] | 0x20) == 'e') {
      const size_t digits = p + 1 + (SignAt(p + 1) != '\0' ? 1 : 0);
      if (MatchDigits(digits) > 0) return digits + MatchDigits(digits) - position;
    }
    return fraction ? p - position : 0;
  }

  size_t MatchPrefixedInteger(size_t position) const {
    const char kind =
        position + 1 < source_.size() ? static_cast<char>(source_[position + 1] | 0x20) : '\0';
    const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (source_[position] != '0' || base == 0) return 0;
    size_t p = position + 2;
    while (p < source_.size()) {
      const size_t digit = source_[p] == '_' ? p + 1 : p;
      if (digit >= source_.size() || DigitValue(source_[digit]) >= base) break;
      p = digit + 1;
    }
    return p > position + 2 ? p - position : 0;
  }

  void LexNumber() {
    TokenType type = TokenType::kFloat;
    size_t length = MatchFloat(position_);
    if (length == 0) {
      type = TokenType::kInteger;
      length = MatchPrefixedInteger(position_);
    }
    if (length == 0) {
      length = MatchDigits(position_);
      if (source_[position_] == '0') {  // a decimal zero: only zeros
        const size_t end = source_.find_first_not_of("0_", position_);
        length = std::min(length, (end == std::string::npos ? source_.size() : end) - position_);
      }
    }
    std::string text = source_.substr(position_, length);
    std::erase(text, '_');
    Add(type, std::move(text));
    MoveTo(position_ + length);
  }

  bool LexName() {
    size_t p = position_;
    while (p < source_.size()) {
      size_t next = p;
      if (!IsWord(NextCodePoint(source_, &next))) break;
      p = next;
    }
    if (p == position_) return false;
    Add(TokenType::kName, source_.substr(position_, p - position_));
    MoveTo(p);
    return true;
  }

  void LexOperator(std::string* open) {
    static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
    for (const std::string_view op : kTwo) {
      if (!At(op, position_)) continue;
      Add(TokenType::kOperator, std::string(op));
      return MoveTo(position_ + 2);
    }
    const char c = source_[position_];
    if (kOne.find(c) == std::string_view::npos) {
      Fail(std::string("unexpected char '") + c + "'");
    }
    if (c == '(') open->push_back(')');
    if (c == '[') open->push_back(']');
    if (c == '{') open->push_back('}');
    if (c == ')' || c == ']' || c == '}') {
      if (open->empty()) Fail(std::string("unexpected '") + c + "'");
      if (open->back() != c) {
        Fail(std::string("unexpected '") + c + "', expected '" + open->back() + "'");
      }
      open->pop_back();
    }
    Add(TokenType::kOperator, std::string(1, c));
    MoveTo(position_ + 1);
  }

  void LexString(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) Fail(std::string("unexpected char ") + quote);
    Add(TokenType::kString,
        Unescape(std::string_view(source_).substr(position_ + 1, end - position_ - 1)));
    MoveTo(end + 1);
  }

  uint32_t HexEscape(std::string_view text, size_t* position, size_t digits) const {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int digit = *position < text.size() ? DigitValue(text[*position]) : 99;
      if (digit >= 16) Fail("truncated escape in a string");
      value = value * 16 + static_cast<uint32_t>(digit);
      ++*position;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      Fail("a string escape is not a Unicode character");
    }
    return value;
  }

  static uint32_t OctalEscape(std::string_view text, size_t* position) {
    uint32_t value = 0;
    for (int i = 0; i < 3 && *position < text.size(); ++i, ++*position) {
      const char c = text[*position];
      if (c < '0' || c > '7') break;
      value = value * 8 + static_cast<uint32_t>(c - '0');
    }
    return value;
  }

  // A backslash before a character outside ASCII: Jinja first spells that character as an escape,
  // so that two backslashes meet and the spelling stays.
  static void AppendEscapedNonAscii(uint32_t code_point, std::string* out) {
    static constexpr char kHex[] = "0123456789abcdef";
    const int digits = code_point < 0x100 ? 2 : code_point < 0x10000 ? 4 : 8;
    *out += '\\';
    *out += digits == 2 ? 'x' : digits == 4 ? 'u' : 'U';
    for (int i = digits - 1; i >= 0; --i) *out += kHex[(code_point >> (4 * i)) & 15];
  }

  std::string Unescape(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size();) {
      if (text[i] != '\\') {
        out += text[i++];
        continue;
      }
      ++i;
      const char c = text[i];
      static constexpr std::string_view kNames = "\\'\"abfnrtv";
      static constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t known = kNames.find(c); known != std::string_view::npos) {
        out += kValues[known];
        ++i;
      } else if (c == '\n') {
        ++i;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        AppendCodePoint(HexEscape(text, &++i, c == 'x' ? 2 : c == 'u' ? 4 : 8), &out);
      } else if (c >= '0' && c <= '7') {
        AppendCodePoint(OctalEscape(text, &i), &out);
      } else if (c == 'N') {
        Fail("named characters (\\N{...}) are not supported");
      } else if (static_cast<unsigned char>(c) >= 0x80) {
        AppendEscapedNonAscii(NextCodePoint(text, &i), &out);
      } else {
        out += '\\';
      }
    }
    return out;
  }

  std::string source_;
  size_t position_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace engine::text::jinja
