#pragma once

#include <cstdint>
#include <vector>

#include "engine/text/grammar/expressions.h"

namespace engine::text::grammar {

// A deterministic automaton over characters, for what an expression tree can't say: texts that
// match two patterns, that don't match one, or that have a length as well.
//
// Threads: immutable.
// Errors:  GrammarError beyond limits().dfa_states.
class CodePointDfa {
 public:
  // `node` may have no calls and no JSON spelling; a tree of characters, as AddRegex() makes it.
  static CodePointDfa FromNode(const Expressions& expressions, NodeId node);

  CodePointDfa Intersect(const CodePointDfa& other, CompileBudget& budget) const;
  CodePointDfa Complement() const;
  // Texts of min to max characters.
  CodePointDfa WithLength(uint32_t min, uint32_t max, CompileBudget& budget) const;
  // Texts that are decimal integers divisible by `divisor`.
  static CodePointDfa Multiples(uint32_t divisor);

  bool Matches(std::string_view text) const;
  bool IsEmpty() const;  // no text matches
  // The same texts as an expression.
  NodeId ToNode(Expressions* expressions, Spelling spelling) const;

 private:
  struct Edge {
    CodePointSet set;  // disjoint among the edges of a state
    uint32_t to;
  };
  struct State {
    std::vector<Edge> edges;  // what no edge covers matches nothing
    bool accepting = false;
  };
  // States that reach an accepting one.
  std::vector<bool> Alive() const;

  std::vector<State> states_;  // starts at 0
};

}  // namespace engine::text::grammar
