#include "engine/text/grammar/free_text.h"

#include <cassert>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text::grammar {
namespace {

// Aho and Corasick's automaton (1975) over code points: a state says how much of which word the
// text ends with.
class WordAutomaton {
 public:
  explicit WordAutomaton(const std::vector<std::string>& words) : states_(1) {
    for (const std::string& word : words) Insert(word);
    FindFallbacks();
  }

  uint32_t size() const { return static_cast<uint32_t>(states_.size()); }
  // The text ends with a whole word.
  bool forbidden(uint32_t state) const { return states_[state].forbidden; }
  const std::set<uint32_t>& alphabet() const { return alphabet_; }

  uint32_t Next(uint32_t state, uint32_t code) const {
    while (true) {
      const auto found = states_[state].children.find(code);
      if (found != states_[state].children.end()) return found->second;
      if (state == 0) return 0;
      state = states_[state].fallback;
    }
  }

 private:
  struct State {
    std::map<uint32_t, uint32_t> children;
    uint32_t fallback = 0;
    bool forbidden = false;
  };

  void Insert(std::string_view word) {
    assert(!word.empty());
    uint32_t state = 0;
    while (!word.empty()) {
      const Utf8Step step = NextUtf8(word);
      word.remove_prefix(step.length);
      alphabet_.insert(step.code);
      const auto [child, added] = states_[state].children.try_emplace(step.code, size());
      state = child->second;
      if (added) states_.emplace_back();
    }
    states_[state].forbidden = true;
  }

  void FindFallbacks() {
    std::vector<uint32_t> order = {0};
    for (size_t i = 0; i < order.size(); ++i) {
      const uint32_t parent = order[i];
      for (const auto& [code, child] : states_[parent].children) {
        if (parent != 0) states_[child].fallback = Next(states_[parent].fallback, code);
        if (states_[states_[child].fallback].forbidden) states_[child].forbidden = true;
        order.push_back(child);
      }
    }
  }

  std::vector<State> states_;
  std::set<uint32_t> alphabet_;
};

}  // namespace

NodeId TextWithout(Expressions* expressions, const std::vector<std::string>& words) {
  const WordAutomaton automaton(words);
  Graph graph;
  graph.states = automaton.size();
  for (uint32_t state = 0; state < automaton.size(); ++state) {
    if (automaton.forbidden(state)) continue;
    graph.accepting.push_back(state);
    // Characters of no word lead to the start.
    CodePointSet to_start = CodePointSet::All();
    std::map<uint32_t, std::vector<CodePointSet::Range>> targets;
    for (const uint32_t code : automaton.alphabet()) {
      const uint32_t next = automaton.Next(state, code);
      if (next == 0) continue;
      to_start = to_start.Intersect(CodePointSet::One(code).Complement());
      if (!automaton.forbidden(next)) targets[next].push_back({code, code});
    }
    graph.edges.push_back({state, 0, expressions->Class(to_start)});
    for (auto& [next, ranges] : targets) {
      graph.edges.push_back({state, next, expressions->Class(CodePointSet(std::move(ranges)))});
    }
  }
  const RuleId rule = expressions->AddRule("free text");
  expressions->Define(rule, expressions->AddGraph(std::move(graph)));
  return expressions->Call(rule);
}

}  // namespace engine::text::grammar
