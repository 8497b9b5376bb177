#include "server/python_literal.h"

#include <nlohmann/json.hpp>

#include "engine/text/grammar/json_grammar.h"
#include "engine/text/tokenizer_utf8.h"
#include "engine/text/value.h"
#include "server/json.h"

namespace server {
namespace {

using engine::text::Value;
using engine::text::grammar::JsonText;

constexpr int kMaxDepth = 64;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : text_(text) {}

  std::optional<std::string> Run() {
    std::string json;
    if (!Literal(&json, 0)) return std::nullopt;
    SkipSpace();
    if (at_ != text_.size()) return std::nullopt;
    return json;
  }

 private:
  bool AtEnd() const { return at_ == text_.size(); }
  bool At(char c) const { return !AtEnd() && text_[at_] == c; }
  void SkipSpace() {
    while (!AtEnd() && IsSpace(text_[at_])) ++at_;
  }
  bool Take(char c) {
    SkipSpace();
    if (!At(c)) return false;
    ++at_;
    return true;
  }
  bool TakeWord(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  bool Literal(std::string* out, int depth) {
    SkipSpace();
    if (AtEnd() || depth > kMaxDepth) return false;
    switch (text_[at_]) {
      case '"':
      case '\'':
        return String(out);
      case '[':
        return List('[', ']', out, depth);
      case '(':
        return List('(', ')', out, depth);
      case '{':
        return Dict(out, depth);
      default:
        return Word(out) || Number(out);
    }
  }

  bool Word(std::string* out) {
    static constexpr std::string_view kWords[][2] = {{"True", "true"},   {"False", "false"},
                                                     {"None", "null"},   {"true", "true"},
                                                     {"false", "false"}, {"null", "null"}};
    for (const auto& [python, json] : kWords) {
      if (!TakeWord(python)) continue;
      *out += json;
      return true;
    }
    return false;
  }

  bool Number(std::string* out) {
    const size_t begin = at_;
    while (!AtEnd() && std::string_view("+-.0123456789eE_").find(text_[at_]) != std::string::npos) {
      ++at_;
    }
    std::string number;
    for (const char c : text_.substr(begin, at_ - begin)) {
      if (c != '_') number += c;
    }
    if (number.starts_with('+')) number.erase(0, 1);
    if (!Json::accept(number)) return false;
    *out += number;
    return true;
  }

  bool List(char open, char close, std::string* out, int depth) {
    if (!Take(open)) return false;
    *out += '[';
    for (bool first = true; !Take(close); first = false) {
      if (!first) {
        if (!Take(',')) return false;
        if (Take(close)) break;
        *out += ", ";
      }
      if (!Literal(out, depth + 1)) return false;
    }
    *out += ']';
    return true;
  }

  bool Dict(std::string* out, int depth) {
    if (!Take('{')) return false;
    *out += '{';
    for (bool first = true; !Take('}'); first = false) {
      if (!first) {
        if (!Take(',')) return false;
        if (Take('}')) break;
        *out += ", ";
      }
      SkipSpace();
      if (!At('"') && !At('\'')) return false;
      if (!String(out) || !Take(':')) return false;
      *out += ": ";
      if (!Literal(out, depth + 1)) return false;
    }
    *out += '}';
    return true;
  }

  bool String(std::string* out) {
    const char quote = text_[at_++];
    std::string value;
    while (!At(quote)) {
      if (AtEnd()) return false;
      const char c = text_[at_++];
      if (c != '\\') {
        value += c;
      } else if (!Escape(&value)) {
        return false;
      }
    }
    ++at_;
    *out += JsonText(Value(value));
    return true;
  }

  bool Escape(std::string* value) {
    if (AtEnd()) return false;
    const char c = text_[at_++];
    static constexpr std::string_view kNames = "nrtbfav0\\'\"/";
    static constexpr std::string_view kBytes("\n\r\t\b\f\a\v\0\\'\"/", 12);
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      *value += kBytes[known];
    } else if (c == 'x') {
      return Hex(2, value);
    } else if (c == 'u') {
      return Hex(4, value);
    } else if (c == 'U') {
      return Hex(8, value);
    } else if (c != '\n') {
      *value += {'\\', c};  // as Python reads it
    }
    return true;
  }

  std::optional<uint32_t> HexDigits(size_t count) {
    uint32_t code = 0;
    if (text_.size() - at_ < count) return std::nullopt;
    for (size_t i = 0; i < count; ++i) {
      const char c = text_[at_++];
      const char lower = static_cast<char>(c | 0x20);
      const bool digit = c >= '0' && c <= '9';
      if (!digit && (lower < 'a' || lower > 'f')) return std::nullopt;
      code = code * 16 + static_cast<uint32_t>(digit ? c - '0' : lower - 'a' + 10);
    }
    return code;
  }

  bool Hex(size_t count, std::string* value) {
    std::optional<uint32_t> code = HexDigits(count);
    // A pair of surrogates is one character, as in JSON.
    if (code && *code >= 0xD800 && *code <= 0xDBFF && TakeWord("\\u")) {
      const std::optional<uint32_t> low = HexDigits(4);
      if (!low || *low < 0xDC00 || *low > 0xDFFF) return false;
      code = 0x10000 + ((*code - 0xD800) << 10) + (*low - 0xDC00);
    }
    if (!code || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF)) return false;
    engine::text::AppendUtf8(*code, value);
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<std::string> PythonLiteralToJson(std::string_view text) {
  return PythonReader(text).Run();
}

std::string LooseValueToJson(std::string_view text) {
  if (Json::accept(text)) return std::string(text);
  if (auto json = PythonLiteralToJson(text)) return *std::move(json);
  return JsonText(Value(text));
}

}  // namespace server
