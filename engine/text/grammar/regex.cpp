#include "engine/text/grammar/regex.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text::grammar {
namespace {

using Ranges = std::vector<CodePointSet::Range>;

CodePointSet Digits() { return CodePointSet({{'0', '9'}}); }
CodePointSet WordCharacters() {
  return CodePointSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
}
CodePointSet Spaces() { return CodePointSet({{'\t', '\r'}, {' ', ' '}}); }
CodePointSet LineEnds() { return CodePointSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }

std::optional<CodePointSet> ClassEscape(uint32_t code) {
  switch (code) {
    case 'd':
      return Digits();
    case 'D':
      return Digits().Complement();
    case 'w':
      return WordCharacters();
    case 'W':
      return WordCharacters().Complement();
    case 's':
      return Spaces();
    case 'S':
      return Spaces().Complement();
    default:
      return std::nullopt;
  }
}

class RegexParser {
 public:
  RegexParser(Expressions* expressions, std::string_view pattern, RegexMode mode, Spelling spelling)
      : expressions_(*expressions), mode_(mode), spelling_(spelling) {
    expressions_.budget().CheckSource(pattern.size());
    while (!pattern.empty()) {
      const Utf8Step step = NextUtf8(pattern);
      if (!step.valid) throw GrammarError("The regular expression is not valid UTF-8.");
      text_.push_back(step.code);
      pattern.remove_prefix(step.length);
    }
  }

  NodeId Run() {
    std::vector<NodeId> options;
    do {
      options.push_back(TopAlternative());
    } while (TakeIf('|'));
    if (!AtEnd()) Fail("an unmatched ')'");
    return expressions_.Choice(options);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw GrammarError("The regular expression has " + what + " at character " +
                       std::to_string(position_ + 1) + ".");
  }

  bool AtEnd() const { return position_ == text_.size(); }
  uint32_t Peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : 0;
  }
  bool At(uint32_t code) const { return !AtEnd() && text_[position_] == code; }
  bool TakeIf(uint32_t code) {
    if (!At(code)) return false;
    ++position_;
    return true;
  }
  uint32_t Take() {
    if (AtEnd()) Fail("an early end");
    return text_[position_++];
  }

  NodeId Class(CodePointSet set) { return expressions_.Class(std::move(set), spelling_); }
  NodeId Anything() { return expressions_.Repeat(Class(CodePointSet::All()), 0, kUnbounded); }

  NodeId TopAlternative() {
    std::vector<NodeId> parts;
    const bool from_start = TakeIf('^');
    if (mode_ == RegexMode::kSearch && !from_start) parts.push_back(Anything());
    parts.push_back(Terms());
    const bool to_end = TakeIf('$');
    if (to_end && !AtEnd() && !At('|')) Fail("'$' before more characters");
    if (mode_ == RegexMode::kSearch && !to_end) parts.push_back(Anything());
    return expressions_.Sequence(parts);
  }

  // Up to a '|', a ')', a '$' or the end.
  NodeId Terms() {
    std::vector<NodeId> parts;
    while (!AtEnd() && !At('|') && !At(')') && !At('$')) {
      expressions_.budget().Step();
      parts.push_back(Quantified(Atom()));
    }
    return expressions_.Sequence(parts);
  }

  NodeId Group() {
    expressions_.budget().CheckNesting(++depth_);
    if (TakeIf('?')) GroupKind();
    std::vector<NodeId> options;
    do {
      options.push_back(Terms());
      if (At('$')) Fail("'$' inside a group");
    } while (TakeIf('|'));
    if (!TakeIf(')')) Fail("a group without ')'");
    --depth_;
    return expressions_.Choice(options);
  }

  void GroupKind() {
    if (TakeIf(':')) return;
    const bool python = TakeIf('P');
    if (!TakeIf('<') || At('=') || At('!')) {
      Fail(python ? "an unsupported group" : "an unsupported look-around or flag group");
    }
    while (!TakeIf('>')) Take();
  }

  NodeId Atom() {
    const uint32_t code = Take();
    switch (code) {
      case '(':
        return Group();
      case '[':
        return Class(BracketClass());
      case '.':
        return Class(LineEnds().Complement());
      case '\\':
        return EscapedAtom();
      case '^':
        --position_;
        Fail("'^' that is not at the beginning of the expression");
      case '*':
      case '+':
      case '?':
        --position_;
        Fail("a quantifier with nothing to repeat");
      default:
        return Class(CodePointSet::One(code));
    }
  }

  NodeId EscapedAtom() {
    if (const auto set = ClassEscape(Peek())) {
      ++position_;
      return Class(*set);
    }
    if (Peek() == 'b' || Peek() == 'B') Fail("an unsupported word boundary");
    return Class(CodePointSet::One(CharacterEscape()));
  }

  // After the backslash.
  uint32_t CharacterEscape() {
    const uint32_t code = Take();
    switch (code) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case '0':
        if (Peek() < '0' || Peek() > '9') return 0;
        break;
      case 'x':
        return Hex(2);
      case 'u':
        return UnicodeEscape();
      default:
        break;
    }
    const bool letter = (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
    if (letter || (code >= '0' && code <= '9')) {
      --position_;
      Fail(code >= '1' && code <= '9' ? "an unsupported back reference" : "an unsupported escape");
    }
    return code;
  }

  uint32_t UnicodeEscape() {
    if (!TakeIf('{')) {
      const uint32_t code = Hex(4);
      const bool high = code >= 0xD800 && code <= 0xDBFF;
      if (!high || Peek() != '\\' || Peek(1) != 'u') return code;
      position_ += 2;
      const uint32_t low = Hex(4);
      if (low < 0xDC00 || low > 0xDFFF) Fail("half a surrogate pair");
      return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    uint32_t code = 0;
    do {
      code = code * 16 + HexDigit();
      if (code > 0x10FFFF) Fail("a code point above U+10FFFF");
    } while (!TakeIf('}'));
    return code;
  }

  uint32_t HexDigit() {
    const uint32_t code = Take();
    if (code >= '0' && code <= '9') return code - '0';
    const uint32_t lower = code | 0x20;
    if (lower < 'a' || lower > 'f') Fail("an escape without its hexadecimal digits");
    return lower - 'a' + 10;
  }
  uint32_t Hex(int digits) {
    uint32_t code = 0;
    for (int i = 0; i < digits; ++i) code = code * 16 + HexDigit();
    return code;
  }

  // After the '['.
  CodePointSet BracketClass() {
    const bool negated = TakeIf('^');
    Ranges ranges;
    while (!TakeIf(']')) {
      expressions_.budget().Step();
      const std::optional<uint32_t> first = ClassMember(&ranges);
      const bool range = At('-') && Peek(1) != ']' && position_ + 1 < text_.size();
      if (!range) {
        if (first) ranges.push_back({*first, *first});
        continue;
      }
      ++position_;
      const std::optional<uint32_t> last = ClassMember(&ranges);
      if (!first || !last) Fail("a range between classes");
      if (*first > *last) Fail("a range whose ends are out of order");
      ranges.push_back({*first, *last});
    }
    const CodePointSet set(std::move(ranges));
    return negated ? set.Complement() : set;
  }

  // A character; or nothing for a class such as \d, which is added.
  std::optional<uint32_t> ClassMember(Ranges* ranges) {
    const uint32_t code = Take();
    if (code != '\\') return code;
    if (const auto set = ClassEscape(Peek())) {
      ++position_;
      ranges->insert(ranges->end(), set->ranges().begin(), set->ranges().end());
      return std::nullopt;
    }
    if (TakeIf('b')) return '\b';
    return CharacterEscape();
  }

  NodeId Quantified(NodeId atom) {
    uint32_t min = 0;
    uint32_t max = kUnbounded;
    if (TakeIf('+')) {
      min = 1;
    } else if (TakeIf('?')) {
      max = 1;
    } else if (!TakeIf('*') && !Counts(&min, &max)) {
      return atom;
    }
    TakeIf('?');  // lazy: the same texts
    if (At('*') || At('+') || At('?')) Fail("a second quantifier");
    return expressions_.Repeat(atom, min, max);
  }

  // {m}, {m,} or {m,n}. Other braces stand for themselves, as in ECMA-262's annex B.
  bool Counts(uint32_t* min, uint32_t* max) {
    if (!At('{')) return false;
    const size_t begin = position_++;
    const std::optional<uint32_t> low = Number();
    std::optional<uint32_t> high = low;
    if (low && TakeIf(',')) high = At('}') ? kUnbounded : Number();
    if (!low || !high || !TakeIf('}')) {
      position_ = begin;
      return false;
    }
    if (*low > *high) Fail("counts out of order");
    *min = *low;
    *max = *high;
    return true;
  }

  std::optional<uint32_t> Number() {
    const size_t begin = position_;
    uint64_t value = 0;
    while (!AtEnd() && Peek() >= '0' && Peek() <= '9') {
      value = value * 10 + (Take() - '0');
      if (value > expressions_.budget().limits().repetition) Fail("a count that is too large");
    }
    if (position_ == begin) return std::nullopt;
    return static_cast<uint32_t>(value);
  }

  Expressions& expressions_;
  RegexMode mode_;
  Spelling spelling_;
  std::vector<uint32_t> text_;  // code points
  size_t position_ = 0;
  size_t depth_ = 0;
};

}  // namespace

NodeId AddRegex(Expressions* expressions, std::string_view pattern, RegexMode mode,
                Spelling spelling) {
  return RegexParser(expressions, pattern, mode, spelling).Run();
}

}  // namespace engine::text::grammar
