#include "engine/text/grammar/state_sets.h"

#include <algorithm>
#include <initializer_list>
#include <map>

namespace engine::text::grammar {
namespace {

// Pairs that one byte, or one mask, may visit before the rest counts as dead: some 50 ms.
constexpr uint64_t kMaxWork = 2'000'000;
// Words of 32 bits in sets, contexts and local masks before another object takes over: 16 MiB.
constexpr size_t kMaxStored = 4 << 20;

// Beyond this part of the trie, walking below the exits costs more than walking all of it.
constexpr uint64_t kExitShare = 4;

template <typename Words>
uint64_t HashWords(const Words& words, uint64_t hash) {
  for (const uint64_t word : words) hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL ^ (hash >> 29);
  return hash;
}

void SetBit(std::vector<uint64_t>* mask, TokenId token) {
  const auto bit = static_cast<size_t>(token);
  (*mask)[bit / 64] |= uint64_t{1} << (bit % 64);
}

}  // namespace

class StateSets::Closure {
 public:
  explicit Closure(StateSets& sets) : sets_(sets), automaton_(sets.automaton_) {}

  void Add(uint32_t state, uint32_t context) { work_.push_back({state, context}); }
  void Call(uint32_t rule, const Frame& frame) { calls_[Key(rule)].push_back(frame); }

  // Ends the rule of a context: what follows is added.
  void Return(uint32_t context) {
    // By index and copy: returns intern no contexts, but calls made later do.
    for (size_t i = 0; i < sets_.contexts_[context].size(); ++i) {
      const Frame frame = sets_.contexts_[context][i];
      sets_.work_ -= sets_.work_ != 0 ? 1 : 0;
      if (frame.edge == kRootEdge) {
        result_.accepts = true;
      } else if (frame.edge == kAnyCallEdge) {
        result_.exits = true;
      } else {
        ReturnTo(frame);
      }
    }
  }

  SetId Finish() {
    while (true) {
      Follow();
      if (calls_.empty() || dead_) break;
      const auto first = calls_.begin();
      const uint32_t rule = first->first.second;
      Context context = std::move(first->second);
      calls_.erase(first);
      std::sort(context.begin(), context.end());
      context.erase(std::unique(context.begin(), context.end()), context.end());
      if (context.size() > kMaxItems || sets_.DepthOf(context) > kMaxDepth) return kDead;
      Add(automaton_.rules[rule].start, sets_.InternContext(std::move(context)));
    }
    if (dead_ || result_.items.size() > kMaxItems) return kDead;
    return sets_.InternSet(std::move(result_));
  }

 private:
  // Rules in the order of their ranks: when a rule's turn comes, all who call it are known.
  std::pair<uint32_t, uint32_t> Key(uint32_t rule) const {
    return {automaton_.rules[rule].rank, rule};
  }

  void ReturnTo(const Frame& frame) {
    const Automaton::CallEdge& edge = automaton_.call_edges[frame.edge];
    if (frame.count >= edge.min) Add(edge.to, frame.parent);
    if (edge.max == kUnbounded) {
      Call(edge.rule,
           {frame.edge, std::min(frame.count + 1, std::max(edge.min, 1U)), frame.parent});
    } else if (frame.count < edge.max) {
      Call(edge.rule, {frame.edge, frame.count + 1, frame.parent});
    }
  }

  void Follow() {
    while (!work_.empty()) {
      const Item item = work_.back();
      work_.pop_back();
      if (!Insert(item)) continue;
      if (sets_.work_ == 0 || seen_count_ > 8 * kMaxItems) {
        dead_ = true;
        return;
      }
      --sets_.work_;
      const Automaton::State& state = automaton_.states[item.state];
      if (state.bytes_begin != state.bytes_end) result_.items.push_back(item);
      for (const uint32_t to : automaton_.empties(state)) Add(to, item.context);
      for (uint32_t i = state.calls_begin; i < state.calls_end; ++i) AddCall(i, item.context);
      if (state.accepting) Return(item.context);
    }
  }

  // A call that ends its own rule returns to where that would return.
  void AddCall(uint32_t index, uint32_t context) {
    const Automaton::CallEdge& edge = automaton_.call_edges[index];
    if (!edge.tail) return Call(edge.rule, {index, 1, context});
    const Context& frames = sets_.contexts_[context];
    Context& pending = calls_[Key(edge.rule)];
    pending.insert(pending.end(), frames.begin(), frames.end());
    sets_.work_ -= std::min<uint64_t>(sets_.work_, frames.size());
  }

  bool Insert(const Item& item) {
    const uint64_t key = (uint64_t{item.state} << 32) | item.context;
    const bool added = seen_.emplace(key, true).second;
    seen_count_ += added ? 1 : 0;
    return added;
  }

  StateSets& sets_;
  const Automaton& automaton_;
  std::vector<Item> work_;
  std::unordered_map<uint64_t, bool> seen_;
  size_t seen_count_ = 0;
  std::map<std::pair<uint32_t, uint32_t>, Context> calls_;
  Set result_;
  bool dead_ = false;
};

StateSets::StateSets(const Automaton& automaton, const TokenTrie& trie)
    : automaton_(automaton),
      trie_(trie),
      classes_(automaton.class_bytes.size()),
      path_(trie.max_depth() + 1, kDead) {
  InternContext({{kRootEdge, 1, 0}});
  InternContext({{kAnyCallEdge, 1, 0}});
  InternSet({});
  std::fill(next_.begin(), next_.end(), kDead);

  work_ = kMaxWork;
  const Automaton::Rule& root = automaton.rules.front();
  Closure closure(*this);
  closure.Add(root.start, kRootContext);
  if (root.nullable) closure.Return(kRootContext);
  initial_ = closure.Finish();
}

SetId StateSets::Read(SetId set, std::string_view bytes) {
  for (const char byte : bytes) {
    if (set == kDead) break;
    work_ = kMaxWork;
    set = Next(set, static_cast<uint8_t>(byte));
  }
  return set;
}

SetId StateSets::MakeNext(SetId set, uint8_t byte) {
  Closure closure(*this);
  for (const Item& item : sets_[set].items) {
    for (const Automaton::ByteEdge& edge : automaton_.bytes(automaton_.states[item.state])) {
      if (edge.first <= byte && byte <= edge.last) closure.Add(edge.to, item.context);
    }
  }
  const SetId next = closure.Finish();
  // Cut short, it may not be dead; another time finds out.
  if (next != kDead || work_ != 0) next_[set * classes_ + automaton_.class_of[byte]] = next;
  return next;
}

SetId StateSets::InternSet(Set set) {
  std::sort(set.items.begin(), set.items.end());
  uint64_t hash = (set.accepts ? 1U : 0U) + (set.exits ? 2U : 0U);
  for (const Item& item : set.items) {
    hash = HashWords(std::initializer_list<uint64_t>{item.state, item.context}, hash);
  }
  const auto [begin, end] = set_index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const Set& known = sets_[it->second];
    if (known.items == set.items && known.accepts == set.accepts && known.exits == set.exits) {
      return it->second;
    }
  }
  const auto id = static_cast<SetId>(sets_.size());
  stored_ += 16 + 2 * set.items.size() + classes_;
  sets_.push_back(std::move(set));
  next_.insert(next_.end(), classes_, kUnknown);
  set_index_.emplace(hash, id);
  return id;
}

uint32_t StateSets::InternContext(Context context) {
  uint64_t hash = 0;
  for (const Frame& frame : context) {
    hash = HashWords(std::initializer_list<uint64_t>{frame.edge, frame.count, frame.parent}, hash);
  }
  const auto [begin, end] = context_index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (contexts_[it->second] == context) return it->second;
  }
  const auto id = static_cast<uint32_t>(contexts_.size());
  stored_ += 16 + 3 * context.size();
  depths_.push_back(DepthOf(context));
  contexts_.push_back(std::move(context));
  after_context_.push_back(kUnknown);
  context_index_.emplace(hash, id);
  return id;
}

uint32_t StateSets::DepthOf(const Context& context) const {
  uint32_t depth = 0;
  for (const Frame& frame : context) {
    if (frame.edge < kAnyCallEdge) depth = std::max(depth, depths_[frame.parent] + 1);
  }
  return depth;
}

// The set when the rule of the context has just ended.
SetId StateSets::AfterContext(uint32_t context) {
  if (after_context_[context] == kUnknown) {
    Closure closure(*this);
    closure.Return(context);
    const SetId after = closure.Finish();
    after_context_[context] = after;
  }
  return after_context_[context];
}

std::span<const uint64_t> StateSets::Mask(SetId set, bool skips_space) {
  const uint64_t key = uint64_t{set} * 2 + (skips_space ? 1 : 0);
  const auto found = masks_.find(key);
  if (found != masks_.end() && found->second.complete) {
    found->second.last_use = ++uses_;
    return found->second.bits;
  }
  if (found != masks_.end()) masks_.erase(found);
  if (masks_.size() >= kMaxMasks) {
    const auto oldest = std::min_element(
        masks_.begin(), masks_.end(),
        [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; });
    masks_.erase(oldest);
  }
  work_ = kMaxWork;
  CachedMask mask{std::vector<uint64_t>(trie_.mask_words(), 0), ++uses_, true};
  const uint32_t space = skips_space ? trie_.RootChild(' ') : 0;
  if (space == 0) {
    FillMask(set, &mask.bits);
  } else {
    const uint32_t after = trie_.nodes()[space].end;
    Walk(1, space, set, &mask.bits);
    Walk(after, trie_.size(), set, &mask.bits);
    Walk(space + 1, after, set, &mask.bits);
  }
  mask.complete = work_ != 0;
  return masks_.emplace(key, std::move(mask)).first->second.bits;
}

void StateSets::FillMask(SetId set, std::vector<uint64_t>* mask) {
  if (FillByContext(set, mask)) return;
  Walk(1, trie_.size(), set, mask);
}

// The mask as the union over the contexts of the set: what each one's rule accepts by itself, and
// beyond its exits what follows in the context. False where walking all is cheaper.
bool StateSets::FillByContext(SetId set, std::vector<uint64_t>* mask) {
  std::map<uint32_t, std::vector<Item>> groups;
  for (const Item& item : sets_[set].items) {
    groups[item.context].push_back({item.state, kAnyContext});
  }
  constexpr size_t kManyContexts = 16;
  if (groups.size() > kManyContexts) return false;
  uint64_t exit_nodes = 0;
  std::vector<std::pair<uint32_t, SetId>> locals;
  for (auto& [context, items] : groups) {
    // Near the bound of nesting the context matters.
    if (depths_[context] + trie_.max_depth() > kMaxDepth) return false;
    const SetId local = InternSet({std::move(items), false, false, nullptr});
    exit_nodes += Local(local)->exit_nodes;
    locals.emplace_back(context, local);
  }
  if (exit_nodes * kExitShare > trie_.size()) return false;
  for (const auto& [context, local] : locals) {
    const LocalMask& known = *sets_[local].local;
    for (size_t i = 0; i < mask->size(); ++i) (*mask)[i] |= known.bits[i];
    const SetId after = AfterContext(context);
    if (after == kDead || AtEnd(after)) continue;
    // By index: the walk may add sets, but a local mask stays where it is.
    for (const uint32_t node : known.exits) {
      Walk(node + 1, trie_.nodes()[node].end, after, mask);
    }
  }
  return true;
}

const StateSets::LocalMask* StateSets::Local(SetId set) {
  if (!sets_[set].local || !sets_[set].local->complete) {
    auto local = std::make_unique<LocalMask>();
    local->bits.assign(trie_.mask_words(), 0);
    Walk(1, trie_.size(), set, &local->bits, local.get());
    local->complete = work_ != 0;
    stored_ += 2 * local->bits.size() + local->exits.size();
    sets_[set].local = std::move(local);
  }
  return sets_[set].local.get();
}

void StateSets::Walk(uint32_t first, uint32_t end, SetId set, std::vector<uint64_t>* mask,
                     LocalMask* exits) {
  if (first >= end) return;
  const std::span<const TokenTrie::Node> nodes = trie_.nodes();
  path_[nodes[first].depth - 1U] = set;
  for (uint32_t i = first; i < end;) {
    const TokenTrie::Node& node = nodes[i];
    const SetId next = Next(path_[node.depth - 1U], node.byte);
    if (next == kDead) {
      i = node.end;
      continue;
    }
    path_[node.depth] = next;
    for (uint32_t token = node.first_token; token < nodes[i + 1].first_token; ++token) {
      SetBit(mask, trie_.tokens()[token]);
    }
    if (exits != nullptr && sets_[next].exits && node.end > i + 1) {
      exits->exits.push_back(i);
      exits->exit_nodes += node.end - i - 1;
    }
    ++i;
  }
}

bool StateSets::Full() const { return stored_ > kMaxStored; }

void StateSets::Import(const StateSets& other, std::span<SetId> sets) {
  // Parents are interned before the contexts that name them: ascending ids are a safe order.
  std::map<uint32_t, uint32_t> contexts;
  std::vector<uint32_t> work;
  const auto need = [&](uint32_t context) {
    if (contexts.emplace(context, 0).second) work.push_back(context);
  };
  for (const SetId set : sets) {
    for (const Item& item : other.sets_[set].items) need(item.context);
  }
  while (!work.empty()) {
    const uint32_t context = work.back();
    work.pop_back();
    for (const Frame& frame : other.contexts_[context]) {
      if (frame.edge < kAnyCallEdge) need(frame.parent);
    }
  }
  for (auto& [theirs, ours] : contexts) {
    Context context = other.contexts_[theirs];
    for (Frame& frame : context) {
      if (frame.edge < kAnyCallEdge) frame.parent = contexts.at(frame.parent);
    }
    std::sort(context.begin(), context.end());
    ours = InternContext(std::move(context));
  }
  for (SetId& set : sets) {
    Set copy;
    copy.accepts = other.sets_[set].accepts;
    copy.exits = other.sets_[set].exits;
    for (const Item& item : other.sets_[set].items) {
      copy.items.push_back({item.state, contexts.at(item.context)});
    }
    set = InternSet(std::move(copy));
  }
}

}  // namespace engine::text::grammar
