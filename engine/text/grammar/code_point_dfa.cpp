#include "engine/text/grammar/code_point_dfa.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text::grammar {
namespace {

void CheckStates(size_t states, CompileBudget& budget) {
  budget.Step();
  CompileBudget::CheckAtMost(states, budget.limits().dfa_states, "states in one pattern");
}

// Numbers pairs as they are met.
class PairNumbers {
 public:
  using Pair = std::pair<uint32_t, uint32_t>;
  uint32_t Of(const Pair& pair, CompileBudget& budget) {
    const auto [found, added] = numbers_.try_emplace(pair, static_cast<uint32_t>(pairs_.size()));
    if (added) {
      CheckStates(pairs_.size() + 1, budget);
      pairs_.push_back(pair);
    }
    return found->second;
  }
  size_t size() const { return pairs_.size(); }
  Pair operator[](size_t index) const { return pairs_[index]; }

 private:
  std::map<Pair, uint32_t> numbers_;
  std::vector<Pair> pairs_;
};

// A nondeterministic automaton of characters, made of a tree.
struct Nfa {
  struct State {
    std::vector<std::pair<const CodePointSet*, uint32_t>> edges;
    std::vector<uint32_t> empties;
  };
  std::vector<State> states;
  std::vector<std::unique_ptr<CodePointSet>> owned;

  explicit Nfa(const Expressions& expressions) : expressions_(expressions) {}

  uint32_t NewState() {
    // Determinised automata are seldom smaller.
    CheckStates(states.size() + 1, expressions_.budget());
    states.emplace_back();
    return static_cast<uint32_t>(states.size() - 1);
  }

  void Build(NodeId id, uint32_t from, uint32_t to) {
    const Node& node = expressions_.node(id);
    switch (node.kind) {
      case NodeKind::kEmpty:
        states[from].empties.push_back(to);
        return;
      case NodeKind::kNever:
        return;
      case NodeKind::kLiteral:
        return BuildLiteral(expressions_.literal(node), from, to);
      case NodeKind::kClass:
        states[from].edges.emplace_back(&expressions_.code_points(node), to);
        return;
      case NodeKind::kSequence:
        for (size_t i = 0; i < node.children.size(); ++i) {
          const uint32_t next = i + 1 == node.children.size() ? to : NewState();
          Build(node.children[i], from, next);
          from = next;
        }
        return;
      case NodeKind::kChoice:
        for (const NodeId child : node.children) Build(child, from, to);
        return;
      case NodeKind::kRepeat:
        return BuildRepeat(node, from, to);
      default:
        throw GrammarError("A pattern cannot be combined with other constraints here.");
    }
  }

 private:
  void BuildLiteral(std::string_view bytes, uint32_t from, uint32_t to) {
    while (!bytes.empty()) {
      const Utf8Step step = NextUtf8(bytes);
      bytes.remove_prefix(step.length);
      owned.push_back(std::make_unique<CodePointSet>(CodePointSet::One(step.code)));
      const uint32_t next = bytes.empty() ? to : NewState();
      states[from].edges.emplace_back(owned.back().get(), next);
      from = next;
    }
  }

  void BuildRepeat(const Node& node, uint32_t from, uint32_t to) {
    const NodeId body = node.children.front();
    const uint32_t copies = node.max == kUnbounded ? node.min : node.max;
    for (uint32_t i = 0; i < copies; ++i) {
      if (i >= node.min) states[from].empties.push_back(to);
      const uint32_t next = NewState();
      Build(body, from, next);
      from = next;
    }
    if (node.max == kUnbounded) {
      const uint32_t loop = NewState();
      states[from].empties.push_back(loop);
      Build(body, loop, loop);
      from = loop;
    }
    states[from].empties.push_back(to);
  }

  const Expressions& expressions_;
};

// Sets of NFA states, as the states of the DFA.
class Determinizer {
 public:
  Determinizer(const Nfa& nfa, CompileBudget& budget) : nfa_(nfa), budget_(budget) {}

  uint32_t Of(std::vector<uint32_t> states) {
    Close(&states);
    const auto [found, added] = numbers_.try_emplace(states, static_cast<uint32_t>(sets_.size()));
    if (added) {
      CheckStates(sets_.size() + 1, budget_);
      sets_.push_back(std::move(states));
    }
    return found->second;
  }
  size_t size() const { return sets_.size(); }
  const std::vector<uint32_t>& operator[](size_t index) const { return sets_[index]; }

  // Disjoint sets of characters and the NFA states after each.
  std::map<std::vector<uint32_t>, std::vector<CodePointSet::Range>> Steps(size_t index) {
    std::vector<std::pair<const CodePointSet*, uint32_t>> edges;
    for (const uint32_t state : sets_[index]) {
      for (const auto& edge : nfa_.states[state].edges) edges.push_back(edge);
    }
    std::map<uint32_t, std::vector<std::pair<uint32_t, bool>>> events;
    for (uint32_t i = 0; i < edges.size(); ++i) {
      for (const CodePointSet::Range& range : edges[i].first->ranges()) {
        budget_.Step();
        events[range.first].emplace_back(i, true);
        events[range.last + 1].emplace_back(i, false);
      }
    }
    std::map<std::vector<uint32_t>, std::vector<CodePointSet::Range>> steps;
    std::map<uint32_t, bool> open;  // edges
    for (auto event = events.begin(); event != events.end(); ++event) {
      for (const auto& [edge, begins_here] : event->second) {
        budget_.Step();
        if (begins_here) {
          open[edge] = true;
        } else {
          open.erase(edge);
        }
      }
      const auto after = std::next(event);
      if (open.empty() || after == events.end()) continue;
      std::vector<uint32_t> targets;
      targets.reserve(open.size());
      for (const auto& [edge, unused] : open) targets.push_back(edges[edge].second);
      std::sort(targets.begin(), targets.end());
      targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
      steps[std::move(targets)].push_back({event->first, after->first - 1});
    }
    return steps;
  }

 private:
  void Close(std::vector<uint32_t>* states) {
    std::vector<bool> seen(nfa_.states.size(), false);
    for (const uint32_t state : *states) seen[state] = true;
    for (size_t i = 0; i < states->size(); ++i) {
      for (const uint32_t to : nfa_.states[(*states)[i]].empties) {
        budget_.Step();
        if (seen[to]) continue;
        seen[to] = true;
        states->push_back(to);
      }
    }
    std::sort(states->begin(), states->end());
  }

  const Nfa& nfa_;
  CompileBudget& budget_;
  std::map<std::vector<uint32_t>, uint32_t> numbers_;
  std::vector<std::vector<uint32_t>> sets_;
};

}  // namespace

CodePointDfa CodePointDfa::FromNode(const Expressions& expressions, NodeId node) {
  Nfa nfa(expressions);
  const uint32_t start = nfa.NewState();
  const uint32_t end = nfa.NewState();
  nfa.Build(node, start, end);
  Determinizer sets(nfa, expressions.budget());
  sets.Of({start});
  CodePointDfa dfa;
  for (size_t i = 0; i < sets.size(); ++i) {
    State state;
    state.accepting = std::binary_search(sets[i].begin(), sets[i].end(), end);
    for (auto& [targets, ranges] : sets.Steps(i)) {
      state.edges.push_back({CodePointSet(std::move(ranges)), sets.Of(targets)});
    }
    dfa.states_.push_back(std::move(state));
  }
  return dfa;
}

CodePointDfa CodePointDfa::Intersect(const CodePointDfa& other, CompileBudget& budget) const {
  CodePointDfa result;
  PairNumbers numbers;
  numbers.Of({0, 0}, budget);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const State& a = states_[numbers[i].first];
    const State& b = other.states_[numbers[i].second];
    State state;
    state.accepting = a.accepting && b.accepting;
    for (const Edge& x : a.edges) {
      for (const Edge& y : b.edges) {
        budget.Step();
        CodePointSet both = x.set.Intersect(y.set);
        if (!both.empty()) {
          state.edges.push_back({std::move(both), numbers.Of({x.to, y.to}, budget)});
        }
      }
    }
    result.states_.push_back(std::move(state));
  }
  return result;
}

CodePointDfa CodePointDfa::Complement() const {
  CodePointDfa result = *this;
  const auto rest = static_cast<uint32_t>(states_.size());
  result.states_.push_back({{}, false});  // what matches no more; complemented below
  for (State& state : result.states_) {
    CodePointSet covered;
    for (const Edge& edge : state.edges) covered = covered.Union(edge.set);
    CodePointSet open = covered.Complement();
    if (!open.empty()) state.edges.push_back({std::move(open), rest});
    state.accepting = !state.accepting;
  }
  return result;
}

CodePointDfa CodePointDfa::WithLength(uint32_t min, uint32_t max, CompileBudget& budget) const {
  // Beyond the last length that matters, counting stops.
  const uint32_t stop = max == kUnbounded ? min : max;
  CodePointDfa result;
  PairNumbers numbers;
  numbers.Of({0, 0}, budget);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto [from, length] = numbers[i];
    State state;
    state.accepting = states_[from].accepting && length >= min && length <= max;
    const bool grows = length < stop || max == kUnbounded;
    for (const Edge& edge : states_[from].edges) {
      if (!grows) break;
      state.edges.push_back({edge.set, numbers.Of({edge.to, std::min(length + 1, stop)}, budget)});
    }
    result.states_.push_back(std::move(state));
  }
  return result;
}

CodePointDfa CodePointDfa::Multiples(uint32_t divisor) {
  // 0: before the sign; 1: before the digits; 2 + r: the digits so far leave r.
  CodePointDfa dfa;
  dfa.states_.resize(2 + divisor);
  const auto add_digits = [&](State* state, uint32_t remainder) {
    std::map<uint32_t, std::vector<CodePointSet::Range>> steps;
    for (uint32_t digit = 0; digit < 10; ++digit) {
      steps[(remainder * 10 + digit) % divisor].push_back({'0' + digit, '0' + digit});
    }
    for (auto& [to, ranges] : steps) state->edges.push_back({CodePointSet(ranges), 2 + to});
  };
  dfa.states_[0].edges.push_back({CodePointSet::One('-'), 1});
  add_digits(&dfa.states_[0], 0);
  add_digits(&dfa.states_[1], 0);
  for (uint32_t remainder = 0; remainder < divisor; ++remainder) {
    add_digits(&dfa.states_[2 + remainder], remainder);
  }
  dfa.states_[2].accepting = true;
  return dfa;
}

bool CodePointDfa::Matches(std::string_view text) const {
  uint32_t state = 0;
  while (!text.empty()) {
    const Utf8Step step = NextUtf8(text);
    text.remove_prefix(step.length);
    const auto& edges = states_[state].edges;
    const auto edge = std::find_if(edges.begin(), edges.end(), [&](const Edge& candidate) {
      return candidate.set.Contains(step.code);
    });
    if (edge == edges.end()) return false;
    state = edge->to;
  }
  return states_[state].accepting;
}

std::vector<bool> CodePointDfa::Alive() const {
  std::vector<std::vector<uint32_t>> before(states_.size());
  std::vector<bool> alive(states_.size(), false);
  std::vector<uint32_t> work;
  for (uint32_t i = 0; i < states_.size(); ++i) {
    for (const Edge& edge : states_[i].edges) before[edge.to].push_back(i);
    if (states_[i].accepting) work.push_back(i);
  }
  for (const uint32_t state : work) alive[state] = true;
  while (!work.empty()) {
    const uint32_t state = work.back();
    work.pop_back();
    for (const uint32_t from : before[state]) {
      if (alive[from]) continue;
      alive[from] = true;
      work.push_back(from);
    }
  }
  return alive;
}

bool CodePointDfa::IsEmpty() const { return !Alive()[0]; }

NodeId CodePointDfa::ToNode(Expressions* expressions, Spelling spelling) const {
  const std::vector<bool> alive = Alive();
  if (!alive[0]) return expressions->Never();
  Graph graph;
  graph.states = static_cast<uint32_t>(states_.size());
  for (uint32_t i = 0; i < states_.size(); ++i) {
    if (!alive[i]) continue;
    if (states_[i].accepting) graph.accepting.push_back(i);
    for (const Edge& edge : states_[i].edges) {
      if (alive[edge.to]) {
        graph.edges.push_back({i, edge.to, expressions->Class(edge.set, spelling)});
      }
    }
  }
  return expressions->AddGraph(std::move(graph));
}

}  // namespace engine::text::grammar
