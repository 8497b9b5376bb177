#include "engine/text/grammar/automaton.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace engine::text::grammar {
namespace {

// Repetitions whose copies have at most this many states are copied; larger ones are counted.
constexpr uint64_t kMaxCopiedStates = 64;

constexpr CodePointSet::Range kControls = {0x00, 0x1F};

// What is known of every node: whether it has the empty text, whether it has any text at all, and
// about how many states it takes.
class NodeFacts {
 public:
  explicit NodeFacts(const Expressions& expressions) : expressions_(expressions) {
    nullable_.assign(expressions.nodes(), false);
    productive_.assign(expressions.nodes(), false);
    Settle(&nullable_, true);
    Settle(&productive_, false);
    sizes_.resize(expressions.nodes());
    for (NodeId id = 0; id < sizes_.size(); ++id) sizes_[id] = std::min(Size(id), kHuge);
  }

  bool nullable(NodeId id) const { return nullable_[id]; }
  bool productive(NodeId id) const { return productive_[id]; }
  uint64_t size(NodeId id) const { return sizes_[id]; }

  // Why a part without which `id` has no text has none; empty when no one part is to blame.
  std::string WhyNoText(NodeId id) const {
    std::vector<bool> seen(expressions_.nodes());
    while (!seen[id]) {
      seen[id] = true;
      const Node& node = expressions_.node(id);
      if (node.kind == NodeKind::kNever) return expressions_.why(node);
      if (node.kind == NodeKind::kCall) {
        id = expressions_.rules()[node.index].body;
      } else if (node.kind == NodeKind::kGraph) {
        id = BlockedLabel(expressions_.graph(node)).value_or(id);
      } else {
        id = *std::find_if(node.children.begin(), node.children.end(),
                           [&](NodeId child) { return !productive_[child]; });
      }
    }
    return {};
  }

 private:
  static constexpr uint64_t kHuge = 1 << 20;

  // Least fixed point of "has the empty text" (for_empty) or "has a text".
  void Settle(std::vector<bool>* holds, bool for_empty) {
    for (bool changed = true; changed;) {
      changed = false;
      for (NodeId id = 0; id < holds->size(); ++id) {
        expressions_.budget().Step();
        if ((*holds)[id] || !Holds(id, *holds, for_empty)) continue;
        (*holds)[id] = true;
        changed = true;
      }
    }
  }

  bool Holds(NodeId id, const std::vector<bool>& holds, bool for_empty) const {
    const Node& node = expressions_.node(id);
    const auto of = [&](NodeId child) { return static_cast<bool>(holds[child]); };
    switch (node.kind) {
      case NodeKind::kEmpty:
        return true;
      case NodeKind::kNever:
        return false;
      case NodeKind::kLiteral:
      case NodeKind::kClass:
        return !for_empty;
      case NodeKind::kSequence:
        return std::all_of(node.children.begin(), node.children.end(), of);
      case NodeKind::kChoice:
        return std::any_of(node.children.begin(), node.children.end(), of);
      case NodeKind::kRepeat:
        return node.min == 0 || of(node.children.front());
      case NodeKind::kCall:
        return of(expressions_.rules()[node.index].body);
      case NodeKind::kGraph:
        return GraphHolds(expressions_.graph(node), holds);
    }
    return false;
  }

  // The label without a text that ends the longest way through the graph: parts come in order.
  std::optional<NodeId> BlockedLabel(const Graph& graph) const {
    const std::vector<bool> reached = Reached(graph, productive_);
    const Graph::Edge* last = nullptr;
    for (const Graph::Edge& edge : graph.edges) {
      if (!reached[edge.from] || productive_[edge.label]) continue;
      if (last == nullptr || edge.from > last->from) last = &edge;
    }
    if (last == nullptr) return std::nullopt;
    return last->label;
  }

  // Whether an accepting state is reached along edges that hold.
  bool GraphHolds(const Graph& graph, const std::vector<bool>& holds) const {
    const std::vector<bool> reached = Reached(graph, holds);
    return std::any_of(graph.accepting.begin(), graph.accepting.end(),
                       [&](uint32_t state) { return reached[state]; });
  }

  std::vector<bool> Reached(const Graph& graph, const std::vector<bool>& holds) const {
    std::vector<std::vector<uint32_t>> next(graph.states);
    for (const Graph::Edge& edge : graph.edges) {
      expressions_.budget().Step();
      if (holds[edge.label]) next[edge.from].push_back(edge.to);
    }
    std::vector<bool> seen(graph.states, false);
    std::vector<uint32_t> work = {0};
    seen[0] = true;
    while (!work.empty()) {
      const uint32_t state = work.back();
      work.pop_back();
      for (const uint32_t to : next[state]) {
        if (seen[to]) continue;
        seen[to] = true;
        work.push_back(to);
      }
    }
    return seen;
  }

  uint64_t Size(NodeId id) const {
    const Node& node = expressions_.node(id);
    uint64_t sum = 0;
    for (const NodeId child : node.children) sum += sizes_[child];
    switch (node.kind) {
      case NodeKind::kLiteral:
        return expressions_.literal(node).size();
      case NodeKind::kClass:
        return expressions_.code_points(node).ranges().back().last < 0x80 ? 1 : 8;
      case NodeKind::kRepeat:
        return sum * std::max(node.max == kUnbounded ? node.min : node.max, 1U);
      case NodeKind::kGraph:
        return kHuge;
      default:
        return std::max<uint64_t>(sum, 1);
    }
  }

  const Expressions& expressions_;
  std::vector<bool> nullable_;
  std::vector<bool> productive_;
  std::vector<uint64_t> sizes_;
};

}  // namespace

std::vector<bool> NodesWithText(const Expressions& expressions) {
  const NodeFacts facts(expressions);
  std::vector<bool> has_text(expressions.nodes());
  for (NodeId id = 0; id < has_text.size(); ++id) has_text[id] = facts.productive(id);
  return has_text;
}

namespace {

class Builder {
 public:
  Builder(const Expressions& expressions, RuleId root)
      : expressions_(expressions), facts_(expressions), rule_numbers_(expressions.rules().size()) {
    const Expressions::Rule& rule = expressions.rules()[root];
    if (!facts_.productive(rule.body)) {
      const std::string why = facts_.WhyNoText(rule.body);
      if (!why.empty()) throw GrammarError(why);
      throw GrammarError("The grammar has no finite text: '" + rule.name + "' can never end.");
    }
    NumberOf(root);
  }

  Automaton Run() {
    for (size_t i = 0; i < rules_.size(); ++i) BuildRule(i);  // building finds more rules
    for (size_t i = 0; i < rules_.size(); ++i) {
      const bool last = i + 1 == rules_.size();
      CloseStart(&rules_[i], last ? static_cast<uint32_t>(states_.size()) : rules_[i + 1].start);
    }
    RankRules();
    return Flatten();
  }

 private:
  struct RawState {
    std::vector<Automaton::ByteEdge> bytes;
    std::vector<Automaton::CallEdge> calls;
    std::vector<uint32_t> empties;
    bool accepting = false;
    bool alive = false;  // reaches the end of its rule
  };
  struct RawRule {
    std::string name;
    NodeId body;
    uint32_t start = 0;
    uint32_t end = 0;
    uint32_t rank = 0;
    bool nullable = false;
  };

  CompileBudget& budget() const { return expressions_.budget(); }

  uint32_t NewState() {
    budget().Step();
    CompileBudget::CheckAtMost(states_.size() + 1, budget().limits().states, "states");
    states_.emplace_back();
    return static_cast<uint32_t>(states_.size() - 1);
  }
  void CountEdge() {
    budget().Step();
    CompileBudget::CheckAtMost(++edges_, budget().limits().edges, "transitions");
  }
  void AddEmpty(uint32_t from, uint32_t to) {
    CountEdge();
    if (from != to) states_[from].empties.push_back(to);
  }
  void AddByte(uint32_t from, ByteRange range, uint32_t to) {
    CountEdge();
    states_[from].bytes.push_back({range.first, range.last, to});
  }

  uint32_t AddRule(std::string name, NodeId body) {
    rules_.push_back({std::move(name), body});
    return static_cast<uint32_t>(rules_.size() - 1);
  }
  uint32_t NumberOf(RuleId rule) {
    std::optional<uint32_t>& number = rule_numbers_[rule];
    const Expressions::Rule& source = expressions_.rules()[rule];
    if (!number) number = AddRule(source.name, source.body);
    return *number;
  }

  void BuildRule(size_t index) {
    const uint32_t start = NewState();
    const uint32_t end = NewState();
    states_[end].accepting = true;
    rules_[index].start = start;
    rules_[index].end = end;
    Build(rules_[index].body, start, end);
  }

  // Adds paths from `from` to `to` for every text of the node. Edges are added out of `from` and
  // into `to` only, and between new states.
  void Build(NodeId id, uint32_t from, uint32_t to) {
    const Node& node = expressions_.node(id);
    if (!facts_.productive(id)) return;
    switch (node.kind) {
      case NodeKind::kEmpty:
        return AddEmpty(from, to);
      case NodeKind::kNever:
        return;
      case NodeKind::kLiteral:
        return BuildLiteral(expressions_.literal(node), from, to);
      case NodeKind::kClass:
        return BuildClass(node, from, to);
      case NodeKind::kSequence:
        return BuildSequence(node, from, to);
      case NodeKind::kChoice:
        return BuildChoice(node, from, to);
      case NodeKind::kRepeat:
        return BuildRepeat(node, from, to);
      case NodeKind::kCall:
        return BuildCall(NumberOf(node.index), facts_.nullable(id), 1, 1, from, to);
      case NodeKind::kGraph:
        return BuildGraph(expressions_.graph(node), from, to);
    }
  }

  void BuildLiteral(std::string_view bytes, uint32_t from, uint32_t to) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      const auto byte = static_cast<uint8_t>(bytes[i]);
      const uint32_t next = i + 1 == bytes.size() ? to : NewState();
      AddByte(from, {byte, byte}, next);
      from = next;
    }
  }

  // Sequences that end alike share the states of their ends.
  void BuildSequences(const std::vector<std::vector<ByteRange>>& sequences, uint32_t from,
                      uint32_t to) {
    const auto less = [](const std::vector<ByteRange>& a, const std::vector<ByteRange>& b) {
      return std::lexicographical_compare(
          a.begin(), a.end(), b.begin(), b.end(), [](const ByteRange& x, const ByteRange& y) {
            return std::pair(x.first, x.last) < std::pair(y.first, y.last);
          });
    };
    std::map<std::vector<ByteRange>, uint32_t, decltype(less)> tails(less);
    for (const std::vector<ByteRange>& sequence : sequences) {
      uint32_t target = to;
      for (size_t i = sequence.size() - 1; i > 0; --i) {
        const std::vector<ByteRange> tail(sequence.begin() + static_cast<ptrdiff_t>(i),
                                          sequence.end());
        const auto [found, added] = tails.try_emplace(tail, 0);
        if (added) {
          found->second = NewState();
          AddByte(found->second, sequence[i], target);
        }
        target = found->second;
      }
      AddByte(from, sequence.front(), target);
    }
  }

  void BuildClass(const Node& node, uint32_t from, uint32_t to) {
    const CodePointSet& set = expressions_.code_points(node);
    if (node.spelling == Spelling::kPlain) return BuildSequences(Utf8Sequences(set), from, to);
    const CodePointSet escaped({kControls, {'"', '"'}, {'\\', '\\'}});
    BuildSequences(Utf8Sequences(set.Intersect(escaped.Complement())), from, to);
    const CodePointSet needed = set.Intersect(escaped);
    if (!needed.empty()) BuildEscapes(needed, from, to);
  }

  // The escapes of JSON that have no shorter form: \" \\ \b \f \n \r \t, \u00XX for other controls.
  void BuildEscapes(const CodePointSet& set, uint32_t from, uint32_t to) {
    static constexpr std::string_view kShort = "\"\\\b\f\n\r\t";
    static constexpr std::string_view kNames = "\"\\bfnrt";
    static constexpr std::string_view kHex = "0123456789abcdef";
    const uint32_t backslash = NewState();
    AddByte(from, {'\\', '\\'}, backslash);
    std::optional<uint32_t> rows[2];  // after \u000 and \u001
    for (const CodePointSet::Range& range : set.ranges()) {
      for (uint32_t code = range.first; code <= range.last; ++code) {
        const size_t index = kShort.find(static_cast<char>(code));
        if (index != std::string_view::npos) {
          const auto name = static_cast<uint8_t>(kNames[index]);
          AddByte(backslash, {name, name}, to);
          continue;
        }
        std::optional<uint32_t>& row = rows[code >> 4];
        if (!row) {
          row = NewState();
          BuildLiteral(code < 16 ? "u000" : "u001", backslash, *row);
        }
        const auto digit = static_cast<uint8_t>(kHex[code & 15]);
        AddByte(*row, {digit, digit}, to);
        const auto upper = static_cast<uint8_t>(digit - ('a' - 'A'));
        if (digit >= 'a') AddByte(*row, {upper, upper}, to);
      }
    }
  }

  void BuildSequence(const Node& node, uint32_t from, uint32_t to) {
    for (size_t i = 0; i < node.children.size(); ++i) {
      const uint32_t next = i + 1 == node.children.size() ? to : NewState();
      Build(node.children[i], from, next);
      from = next;
    }
  }

  // Literals among the options share their beginnings.
  void BuildChoice(const Node& node, uint32_t from, uint32_t to) {
    std::vector<std::map<uint8_t, uint32_t>> branches(1);  // of the trie, by its nodes
    std::vector<uint32_t> trie_states = {from};
    for (const NodeId option : node.children) {
      if (expressions_.node(option).kind != NodeKind::kLiteral) {
        Build(option, from, to);
        continue;
      }
      const std::string& bytes = expressions_.literal(expressions_.node(option));
      uint32_t place = 0;
      for (size_t i = 0; i + 1 < bytes.size(); ++i) {
        const auto byte = static_cast<uint8_t>(bytes[i]);
        const auto [found, added] = branches[place].try_emplace(byte, 0);
        if (added) {
          const uint32_t state = NewState();
          AddByte(trie_states[place], {byte, byte}, state);
          found->second = static_cast<uint32_t>(branches.size());
          place = found->second;
          branches.emplace_back();
          trie_states.push_back(state);
        } else {
          place = found->second;
        }
      }
      const auto last = static_cast<uint8_t>(bytes.back());
      AddByte(trie_states[place], {last, last}, to);
    }
  }

  void BuildRepeat(const Node& node, uint32_t from, uint32_t to) {
    const NodeId body = node.children.front();
    const uint32_t copies = node.max == kUnbounded ? node.min : node.max;
    if (facts_.size(body) * copies > kMaxCopiedStates) {
      const Node& child = expressions_.node(body);
      const uint32_t rule =
          child.kind == NodeKind::kCall ? NumberOf(child.index) : AddRule("a repeated part", body);
      return BuildCall(rule, facts_.nullable(body), node.min, node.max, from, to);
    }
    for (uint32_t i = 0; i < copies; ++i) {
      if (i >= node.min) AddEmpty(from, to);
      const uint32_t next = NewState();
      Build(body, from, next);
      from = next;
    }
    if (node.max != kUnbounded) return AddEmpty(from, to);
    const uint32_t loop = NewState();
    AddEmpty(from, loop);
    Build(body, loop, loop);
    AddEmpty(loop, to);
  }

  void BuildCall(uint32_t rule, bool nullable, uint32_t min, uint32_t max, uint32_t from,
                 uint32_t to) {
    CountEdge();
    if (nullable) min = 0;
    states_[from].calls.push_back({rule, to, min, max, false});
    if (min == 0) AddEmpty(from, to);
  }

  void BuildGraph(const Graph& graph, uint32_t from, uint32_t to) {
    std::vector<uint32_t> numbers(graph.states);
    for (uint32_t& number : numbers) number = NewState();
    AddEmpty(from, numbers[0]);
    for (const Graph::Edge& edge : graph.edges) {
      Build(edge.label, numbers[edge.from], numbers[edge.to]);
    }
    for (const uint32_t state : graph.accepting) AddEmpty(numbers[state], to);
  }

  // Gives the start state the edges of all states that are reached from it without reading.
  // The rule's states are those from its start to `states_end`.
  void CloseStart(RawRule* rule, uint32_t states_end) {
    std::vector<uint32_t> closure = {rule->start};
    std::vector<bool> seen(states_end - rule->start, false);
    seen[0] = true;
    for (size_t i = 0; i < closure.size(); ++i) {
      for (const uint32_t to : states_[closure[i]].empties) {
        budget().Step();
        if (seen[to - rule->start]) continue;
        seen[to - rule->start] = true;
        closure.push_back(to);
      }
    }
    RawState& start = states_[rule->start];
    start.empties.clear();
    for (size_t i = 1; i < closure.size(); ++i) {
      const RawState& state = states_[closure[i]];
      rule->nullable |= state.accepting;
      for (const auto& edge : state.bytes) AddByte(rule->start, {edge.first, edge.last}, edge.to);
      for (const auto& edge : state.calls) {
        CountEdge();
        start.calls.push_back(edge);
      }
    }
  }

  // Orders the rules so that each begins only later ones; throws where that is impossible.
  void RankRules() {
    enum : uint8_t { kNew, kOpen, kDone };
    std::vector<uint8_t> colours(rules_.size(), kNew);
    struct Place {
      uint32_t rule;
      size_t next;
    };
    auto rank = static_cast<uint32_t>(rules_.size());
    for (uint32_t first = 0; first < rules_.size(); ++first) {
      if (colours[first] != kNew) continue;
      std::vector<Place> path = {{first, 0}};
      colours[first] = kOpen;
      while (!path.empty()) {
        Place& place = path.back();
        const auto& calls = states_[rules_[place.rule].start].calls;
        if (place.next == calls.size()) {
          colours[place.rule] = kDone;
          rules_[place.rule].rank = --rank;
          path.pop_back();
          continue;
        }
        const uint32_t callee = calls[place.next++].rule;
        if (colours[callee] == kOpen) ThrowLeftRecursion(callee);
        if (colours[callee] != kNew) continue;
        colours[callee] = kOpen;
        path.push_back({callee, 0});
      }
    }
  }

  [[noreturn]] void ThrowLeftRecursion(uint32_t rule) const {
    throw GrammarError("The grammar is left-recursive: '" + rules_[rule].name +
                       "' can begin with itself before anything is read.");
  }

  void MarkAlive() {
    std::vector<std::vector<uint32_t>> before(states_.size());
    std::vector<uint32_t> work;
    for (uint32_t i = 0; i < states_.size(); ++i) {
      const RawState& state = states_[i];
      for (const auto& edge : state.bytes) before[edge.to].push_back(i);
      for (const auto& edge : state.calls) before[edge.to].push_back(i);
      for (const uint32_t to : state.empties) before[to].push_back(i);
      if (state.accepting) work.push_back(i);
    }
    for (const uint32_t state : work) states_[state].alive = true;
    while (!work.empty()) {
      const uint32_t state = work.back();
      work.pop_back();
      for (const uint32_t from : before[state]) {
        if (std::exchange(states_[from].alive, true)) continue;
        work.push_back(from);
      }
    }
  }

  // True when nothing is read between the state and the end of its rule.
  bool OnlyEnds(uint32_t state) const {
    constexpr size_t kFewStates = 8;
    std::vector<uint32_t> closure = {state};
    for (size_t i = 0; i < closure.size(); ++i) {
      const RawState& current = states_[closure[i]];
      if (!current.bytes.empty() || !current.calls.empty()) return false;
      for (const uint32_t to : current.empties) {
        if (!states_[to].alive) continue;
        if (std::find(closure.begin(), closure.end(), to) == closure.end()) closure.push_back(to);
      }
      if (closure.size() > kFewStates) return false;
    }
    return true;
  }

  Automaton Flatten() {
    MarkAlive();
    Automaton out;
    std::vector<uint32_t> numbers(states_.size(), 0);
    uint32_t alive = 0;
    for (uint32_t i = 0; i < states_.size(); ++i) {
      // A rule's start stays even where the rule has only the empty text.
      if (states_[i].alive || IsStart(i)) numbers[i] = alive++;
    }
    out.states.reserve(alive);
    for (uint32_t i = 0; i < states_.size(); ++i) {
      budget().Step();
      if (states_[i].alive || IsStart(i)) AppendState(states_[i], numbers, &out);
    }
    for (const RawRule& rule : rules_) {
      out.rules.push_back({numbers[rule.start], rule.rank, rule.nullable, rule.name});
    }
    FindByteClasses(&out);
    return out;
  }

  bool IsStart(uint32_t state) const {
    const auto after =
        std::upper_bound(rules_.begin(), rules_.end(), state,
                         [](uint32_t value, const RawRule& rule) { return value < rule.start; });
    return after != rules_.begin() && std::prev(after)->start == state;
  }

  void AppendState(const RawState& raw, const std::vector<uint32_t>& numbers, Automaton* out) {
    const auto size = [](const auto& edges) { return static_cast<uint32_t>(edges.size()); };
    Automaton::State state{};
    state.accepting = raw.accepting;
    state.bytes_begin = size(out->byte_edges);
    for (const auto& edge : raw.bytes) {
      if (states_[edge.to].alive) {
        out->byte_edges.push_back({edge.first, edge.last, numbers[edge.to]});
      }
    }
    state.bytes_end = size(out->byte_edges);
    state.calls_begin = size(out->call_edges);
    for (const auto& edge : raw.calls) {
      if (!states_[edge.to].alive) continue;
      const bool tail = edge.max == 1 && OnlyEnds(edge.to);
      out->call_edges.push_back({edge.rule, numbers[edge.to], edge.min, edge.max, tail});
    }
    state.calls_end = size(out->call_edges);
    state.empties_begin = size(out->empty_edges);
    for (const uint32_t to : raw.empties) {
      if (states_[to].alive) out->empty_edges.push_back(numbers[to]);
    }
    state.empties_end = size(out->empty_edges);
    out->states.push_back(state);
  }

  static void FindByteClasses(Automaton* out) {
    std::array<bool, 257> begins{};
    begins[0] = true;
    for (const auto& edge : out->byte_edges) {
      begins[edge.first] = true;
      begins[edge.last + 1U] = true;
    }
    for (size_t byte = 0; byte < 256; ++byte) {
      if (begins[byte]) out->class_bytes.push_back(static_cast<uint8_t>(byte));
      out->class_of[byte] = static_cast<uint8_t>(out->class_bytes.size() - 1);
    }
  }

  const Expressions& expressions_;
  NodeFacts facts_;
  std::vector<std::optional<uint32_t>> rule_numbers_;
  std::vector<RawRule> rules_;
  std::vector<RawState> states_;
  size_t edges_ = 0;
};

}  // namespace

Automaton BuildAutomaton(const Expressions& expressions, RuleId root) {
  return Builder(expressions, root).Run();
}

}  // namespace engine::text::grammar
