#include "engine/text/grammar/gbnf.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text::grammar {
namespace {

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

class GbnfParser {
 public:
  GbnfParser(Expressions* expressions, std::string_view text)
      : expressions_(*expressions), text_(text) {
    expressions_.budget().CheckSource(text.size());
    if (ValidUtf8Prefix(text) != text.size()) Fail("bytes that are not UTF-8");
  }

  RuleId Run() {
    SkipSpace(true);
    while (!AtEnd()) {
      ParseRule();
      SkipSpace(true);
    }
    for (const auto& [name, rule] : rules_) {
      if (!rule.defined) {
        throw GrammarError("The grammar uses rule '" + name + "' (line " +
                           std::to_string(rule.line) + ") and does not define it.");
      }
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) throw GrammarError("The grammar has no rule named 'root'.");
    return root->second.id;
  }

 private:
  struct KnownRule {
    RuleId id = 0;
    size_t line = 0;
    bool defined = false;
  };

  size_t Line() const {
    const std::string_view before = text_.substr(0, position_);
    return 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  }
  [[noreturn]] void Fail(const std::string& what) const {
    throw GrammarError("The grammar has " + what + " in line " + std::to_string(Line()) + ".");
  }

  bool AtEnd() const { return position_ == text_.size(); }
  bool At(char c) const { return !AtEnd() && text_[position_] == c; }
  bool TakeIf(std::string_view word) {
    if (!text_.substr(position_).starts_with(word)) return false;
    position_ += word.size();
    return true;
  }

  void SkipSpace(bool over_lines) {
    while (!AtEnd()) {
      if (At('#')) {
        while (!AtEnd() && !At('\n')) ++position_;
      } else if (At(' ') || At('\t') || At('\r') || (over_lines && At('\n'))) {
        ++position_;
      } else {
        return;
      }
    }
  }

  std::string Name() {
    const size_t begin = position_;
    while (!AtEnd() && IsNameByte(text_[position_])) ++position_;
    if (position_ == begin) Fail("something else where a rule's name belongs");
    return std::string(text_.substr(begin, position_ - begin));
  }

  KnownRule& Find(const std::string& name) {
    KnownRule& rule = rules_[name];
    if (rule.line == 0) {
      rule.id = expressions_.AddRule(name);
      rule.line = Line();
    }
    return rule;
  }

  void ParseRule() {
    const std::string name = Name();
    SkipSpace(false);
    if (!TakeIf("::=")) Fail("no '::=' after '" + name + "'");
    KnownRule& rule = Find(name);
    if (std::exchange(rule.defined, true)) Fail("a second definition of '" + name + "'");
    SkipSpace(true);
    const NodeId body = Alternatives(false);
    expressions_.Define(rule.id, body);
    if (!AtEnd() && !At('\n')) Fail("an unexpected '" + Shown() + "'");
  }

  std::string Shown() const {
    return std::string(text_.substr(position_, NextUtf8(text_.substr(position_)).length));
  }

  NodeId Alternatives(bool nested) {
    expressions_.budget().CheckNesting(++depth_);
    std::vector<NodeId> options = {Terms(nested)};
    while (TakeIf("|")) {
      SkipSpace(true);
      options.push_back(Terms(nested));
    }
    --depth_;
    return expressions_.Choice(options);
  }

  NodeId Terms(bool nested) {
    std::vector<NodeId> parts;
    while (true) {
      expressions_.budget().Step();
      const std::optional<NodeId> atom = Atom();
      if (!atom) return expressions_.Sequence(parts);
      SkipSpace(nested);
      parts.push_back(Quantified(*atom, nested));
    }
  }

  std::optional<NodeId> Atom() {
    if (AtEnd()) return std::nullopt;
    if (IsNameByte(text_[position_])) return expressions_.Call(Find(Name()).id);
    switch (text_[position_]) {
      case '"':
        ++position_;
        return Literal();
      case '[':
        ++position_;
        return Class();
      case '.':
        ++position_;
        return expressions_.Class(CodePointSet::All());
      case '(': {
        ++position_;
        SkipSpace(true);
        const NodeId group = Alternatives(true);
        if (!TakeIf(")")) Fail("a group without ')'");
        return group;
      }
      case '<':
      case '!':
        Fail("a token reference, which is not supported,");
      default:
        return std::nullopt;
    }
  }

  uint32_t Character() {
    if (AtEnd()) Fail("an early end");
    if (!At('\\')) {
      const Utf8Step step = NextUtf8(text_.substr(position_));
      position_ += step.length;
      return step.code;
    }
    if (++position_ == text_.size()) Fail("an early end");
    const char code = text_[position_++];
    switch (code) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case '"':
      case '\\':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<uint32_t>(code);
      case 'x':
        return Hex(2);
      case 'u':
        return Hex(4);
      case 'U':
        return Hex(8);
      default:
        --position_;
        Fail("an unknown escape '\\" + Shown() + "'");
    }
  }

  uint32_t Hex(int digits) {
    uint32_t code = 0;
    for (int i = 0; i < digits; ++i) {
      const char c = AtEnd() ? ' ' : text_[position_];
      const char lower = static_cast<char>(c | 0x20);
      const bool digit = c >= '0' && c <= '9';
      if (!digit && (lower < 'a' || lower > 'f')) Fail("an escape without its digits");
      code = code * 16 + static_cast<uint32_t>(digit ? c - '0' : lower - 'a' + 10);
      ++position_;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      Fail("an escape that is no Unicode character");
    }
    return code;
  }

  NodeId Literal() {
    std::string bytes;
    while (!At('"')) {
      if (AtEnd() || At('\n')) Fail("a literal without its closing '\"'");
      AppendUtf8(Character(), &bytes);
    }
    ++position_;
    return expressions_.Literal(bytes);
  }

  NodeId Class() {
    const bool negated = TakeIf("^");
    std::vector<CodePointSet::Range> ranges;
    while (!TakeIf("]")) {
      expressions_.budget().Step();
      const uint32_t first = Character();
      uint32_t last = first;
      if (At('-') && !text_.substr(position_).starts_with("-]")) {
        ++position_;
        last = Character();
      }
      if (first > last) Fail("a range whose ends are out of order");
      ranges.push_back({first, last});
    }
    const CodePointSet set(std::move(ranges));
    return expressions_.Class(negated ? set.Complement() : set);
  }

  NodeId Quantified(NodeId atom, bool nested) {
    while (true) {
      if (TakeIf("*")) {
        atom = expressions_.Repeat(atom, 0, kUnbounded);
      } else if (TakeIf("+")) {
        atom = expressions_.Repeat(atom, 1, kUnbounded);
      } else if (TakeIf("?")) {
        atom = expressions_.Optional(atom);
      } else if (TakeIf("{")) {
        atom = Counted(atom);
      } else {
        return atom;
      }
      SkipSpace(nested);
    }
  }

  NodeId Counted(NodeId atom) {
    SkipSpace(false);
    const uint32_t min = At(',') ? 0 : Number();
    uint32_t max = min;
    SkipSpace(false);
    if (TakeIf(",")) {
      SkipSpace(false);
      max = At('}') ? kUnbounded : Number();
      SkipSpace(false);
    }
    if (!TakeIf("}")) Fail("a count without '}'");
    if (min > max) Fail("counts out of order");
    return expressions_.Repeat(atom, min, max);
  }

  uint32_t Number() {
    const size_t begin = position_;
    uint64_t value = 0;
    while (!AtEnd() && text_[position_] >= '0' && text_[position_] <= '9') {
      value = value * 10 + static_cast<uint64_t>(text_[position_++] - '0');
      if (value > expressions_.budget().limits().repetition) Fail("a count that is too large");
    }
    if (position_ == begin) Fail("a count without a number");
    return static_cast<uint32_t>(value);
  }

  Expressions& expressions_;
  std::string_view text_;
  size_t position_ = 0;
  size_t depth_ = 0;
  std::map<std::string, KnownRule> rules_;
};

}  // namespace

RuleId AddGbnf(Expressions* expressions, std::string_view text) {
  return GbnfParser(expressions, text).Run();
}

}  // namespace engine::text::grammar
