#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/text/grammar/expressions.h"

namespace engine::text::grammar {

// A pushdown automaton over bytes: one nondeterministic automaton per rule, whose edges read a byte
// or call a rule.
//
// Invariants:
//   1. A call reads at least one byte: where a rule may be empty, an empty edge goes beside the
//      call. So a rule's start state is never accepting and has no empty edges, and no edge enters
//      it.
//   2. Every state can reach the end of its rule: what has begun can always be finished.
//   3. No rule begins with itself (no left recursion), so the rules that a state begins can be
//      ordered: a rule begins only rules of higher rank.
// Repetitions with counts are calls that count, so x{0,1000} costs one edge.
//
// Threads: immutable.
struct Automaton {
  struct ByteEdge {
    uint8_t first;  // both ends belong to it
    uint8_t last;
    uint32_t to;
  };
  struct CallEdge {
    uint32_t rule;
    uint32_t to;
    uint32_t min;  // times the rule is called in a row; 0: the empty edge beside it exists
    uint32_t max;  // kUnbounded: no end
    bool tail;     // nothing but the end of the caller's rule follows
  };
  // Ranges into byte_edges, call_edges and empty_edges.
  struct State {
    uint32_t bytes_begin, bytes_end;
    uint32_t calls_begin, calls_end;
    uint32_t empties_begin, empties_end;
    bool accepting;
  };
  struct Rule {
    uint32_t start;
    uint32_t rank;
    bool nullable;
    std::string name;
  };

  std::vector<State> states;
  std::vector<ByteEdge> byte_edges;
  std::vector<CallEdge> call_edges;
  std::vector<uint32_t> empty_edges;
  std::vector<Rule> rules;  // rules[0] is the root

  // Bytes that no edge tells apart share a class.
  std::array<uint8_t, 256> class_of{};
  std::vector<uint8_t> class_bytes;  // one byte of each class

  std::span<const ByteEdge> bytes(const State& state) const {
    return std::span(byte_edges).subspan(state.bytes_begin, state.bytes_end - state.bytes_begin);
  }
  std::span<const uint32_t> empties(const State& state) const {
    return std::span(empty_edges)
        .subspan(state.empties_begin, state.empties_end - state.empties_begin);
  }
};

// Of every node, whether some finite text is one of it.
std::vector<bool> NodesWithText(const Expressions& expressions);

// Errors: GrammarError for left recursion, for a grammar without any finite text, and beyond
//         limits.
Automaton BuildAutomaton(const Expressions& expressions, RuleId root);

}  // namespace engine::text::grammar
