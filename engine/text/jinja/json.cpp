#include <algorithm>
#include <cmath>

#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace engine::text::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Interpreter* interpreter, const JsonStyle& style)
      : interpreter_(interpreter), style_(style) {}

  std::string Run(const Datum& value) {
    Write(value);
    interpreter_->budget().Make(out_.size());
    return std::move(out_);
  }

 private:
  void Write(const Datum& value) {
    const Interpreter::Depth depth(interpreter_);
    interpreter_->budget().Step();
    interpreter_->budget().CheckLength(out_.size());
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += value.boolean() ? "true" : "false";
        return;
      case Kind::kInt:
        out_ += std::to_string(value.integer());
        return;
      case Kind::kFloat:
        out_ += Number(value.real());
        return;
      case Kind::kString:
        return WriteString(value.string());
      case Kind::kList:
      case Kind::kTuple:
        return WriteItems(value.items());
      case Kind::kDict:
        return WriteDict(value.dict());
      default:
        FailType("Object of type " + std::string(value.type_name()) + " is not JSON serializable");
    }
  }

  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value);
  }

  void NewLine() {
    if (!style_.indent) return;
    interpreter_->budget().CheckLength(out_.size() + level_ * style_.indent->size());
    out_ += '\n';
    for (size_t i = 0; i < level_; ++i) out_ += *style_.indent;
  }

  void WriteItems(const std::vector<Datum>& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      NewLine();
      Write(items[i]);
    }
    --level_;
    NewLine();
    out_ += ']';
  }

  std::string KeyText(const Datum& key) const {
    switch (key.kind()) {
      case Kind::kString:
        return key.string();
      case Kind::kInt:
        return std::to_string(key.integer());
      case Kind::kFloat:
        return Number(key.real());
      case Kind::kBool:
        return key.boolean() ? "true" : "false";
      case Kind::kNone:
        return "null";
      default:
        FailType("keys must be str, int, float, bool or None, not " + std::string(key.type_name()));
    }
  }

  void WriteDict(const DictObject& dict) {
    if (dict.size() == 0) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Datum, Datum>*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
        return Compare(*interpreter_, CompareOp::kLt, a->first, b->first);
      });
    }
    out_ += '{';
    ++level_;
    bool first = true;
    for (const auto* entry : entries) {
      if (!std::exchange(first, false)) out_ += style_.item_separator;
      NewLine();
      WriteString(KeyText(entry->first));
      out_ += style_.key_separator;
      Write(entry->second);
    }
    --level_;
    NewLine();
    out_ += '}';
  }

  void WriteEscape(uint32_t unit) {
    static constexpr char kHex[] = "0123456789abcdef";
    out_ += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out_ += kHex[(unit >> shift) & 15];
  }

  void WriteString(const std::string& text) {
    interpreter_->budget().Touch(text.size());
    out_ += '"';
    for (size_t p = 0; p < text.size();) {
      const size_t start = p;
      const uint32_t c = NextCodePoint(text, &p);
      static constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
      static constexpr std::string_view kNames = "\"\\nrtbf";
      const size_t index = c < 0x80 ? kShort.find(static_cast<char>(c)) : std::string_view::npos;
      if (index != std::string_view::npos) {
        out_ += '\\';
        out_ += kNames[index];
      } else if (c < 0x20) {
        WriteEscape(c);
      } else if (c < 0x7F || !style_.ensure_ascii || c > 0x10FFFF) {
        out_.append(text, start, p - start);
      } else if (c >= 0x10000) {
        WriteEscape(0xD800 + ((c - 0x10000) >> 10));
        WriteEscape(0xDC00 + ((c - 0x10000) & 0x3FF));
      } else {
        WriteEscape(c);
      }
    }
    out_ += '"';
  }

  Interpreter* interpreter_;
  const JsonStyle& style_;
  std::string out_;
  size_t level_ = 0;
};

}  // namespace

std::string ToJson(Interpreter& interpreter, const Datum& value, const JsonStyle& style) {
  return JsonWriter(&interpreter, style).Run(value);
}

}  // namespace engine::text::jinja
