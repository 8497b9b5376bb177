#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/grammar/automaton.h"
#include "engine/text/grammar/token_trie.h"

namespace engine::text::grammar {

using SetId = uint32_t;

// The states of an Automaton that is run on all its ways at once, made as they are met.
//
// A *context* says what follows when the current rule ends: a set of frames, each a call and its
// own context. Calls of one rule at one place share a context, so the number of contexts does not
// explode where a grammar is ambiguous. A *set* is what the automaton may be in: pairs of a state
// and a context. Equal contexts and equal sets are the same object; a set keeps the sets that
// follow each byte, so running over known ground is one table look-up per byte.
//
// Masks: the tokens that may follow a set are found by walking the trie of the vocabulary. What a
// rule accepts by itself is found once, whatever the context; only tokens that go on beyond the
// rule's end are walked in their context. The last kMaxMasks whole masks are kept.
//
// Bounds: a set or context of more than kMaxItems pairs is treated as empty (dead), so is what is
//         nested deeper than kMaxDepth or not reached within the work of one mask. Both forbid,
//         never allow wrongly.
// Threads: one at a time.
class StateSets {
 public:
  static constexpr SetId kDead = 0;
  static constexpr size_t kMaxItems = 2048;
  static constexpr uint32_t kMaxDepth = 10'000;  // of calls inside calls
  static constexpr size_t kMaxMasks = 256;

  // Both outlive it.
  StateSets(const Automaton& automaton, const TokenTrie& trie);

  SetId initial() const { return initial_; }
  // The set after a byte; kDead when there is none.
  SetId Next(SetId set, uint8_t byte) {
    const SetId next = next_[set * classes_ + automaton_.class_of[byte]];
    return next != kUnknown ? next : MakeNext(set, byte);
  }
  SetId Read(SetId set, std::string_view bytes);
  // The text so far is complete.
  bool Accepts(SetId set) const { return sets_[set].accepts; }
  // Nothing can follow.
  bool AtEnd(SetId set) const { return sets_[set].items.empty(); }

  // Bit per token of the vocabulary: the tokens whose bytes may follow. skips_space: the first
  // space of a token is not part of the text. Valid until the next call.
  std::span<const uint64_t> Mask(SetId set, bool skips_space = false);

  // Memory and table sizes beyond which a new object should take over.
  bool Full() const;
  // Replaces sets of `other`, of the same automaton, by the same sets here.
  void Import(const StateSets& other, std::span<SetId> sets);

 private:
  static constexpr uint32_t kUnknown = UINT32_MAX;
  // "Calls" of frames that mean something else.
  static constexpr uint32_t kRootEdge = UINT32_MAX;        // the whole text ends
  static constexpr uint32_t kAnyCallEdge = kRootEdge - 1;  // the rule ends, whoever called it
  static constexpr uint32_t kRootContext = 0;
  static constexpr uint32_t kAnyContext = 1;

  struct Frame {
    uint32_t edge;
    uint32_t count;   // calls in a row, this one included; stops at min where there is no max
    uint32_t parent;  // context
    auto operator<=>(const Frame&) const = default;
  };
  using Context = std::vector<Frame>;  // ascending
  struct Item {
    uint32_t state;
    uint32_t context;
    auto operator<=>(const Item&) const = default;
  };
  // What the tokens are that a set of one context allows without looking at the context.
  struct LocalMask {
    std::vector<uint64_t> bits;
    std::vector<uint32_t> exits;  // trie nodes below which the rule has ended
    uint64_t exit_nodes = 0;      // trie nodes below those
    bool complete = true;         // false: found with too little work
  };
  struct Set {
    std::vector<Item> items;  // ascending; those with byte edges only
    bool accepts = false;
    bool exits = false;  // the rule of kAnyContext has ended
    std::unique_ptr<LocalMask> local;
  };
  struct CachedMask {
    std::vector<uint64_t> bits;
    uint64_t last_use = 0;
    bool complete = true;
  };

  // Gathers a set: follows empty edges, calls and returns until only states that read are left.
  class Closure;

  SetId MakeNext(SetId set, uint8_t byte);
  SetId InternSet(Set set);
  uint32_t InternContext(Context context);
  uint32_t DepthOf(const Context& context) const;
  SetId AfterContext(uint32_t context);
  void FillMask(SetId set, std::vector<uint64_t>* mask);
  bool FillByContext(SetId set, std::vector<uint64_t>* mask);
  const LocalMask* Local(SetId set);
  // Walks the nodes [first, end), children of a node where the set is `set`; *exits gets nodes
  // where a set exits.
  void Walk(uint32_t first, uint32_t end, SetId set, std::vector<uint64_t>* mask,
            LocalMask* exits = nullptr);

  const Automaton& automaton_;
  const TokenTrie& trie_;
  size_t classes_;
  std::vector<Context> contexts_;
  std::vector<uint32_t> depths_;  // [contexts]
  std::vector<Set> sets_;
  std::vector<SetId> next_;           // [sets, classes]
  std::vector<SetId> after_context_;  // [contexts]
  // By hash; equal hashes are told apart by comparing.
  std::unordered_multimap<uint64_t, uint32_t> context_index_;
  std::unordered_multimap<uint64_t, SetId> set_index_;
  std::unordered_map<uint64_t, CachedMask> masks_;  // by set and skips_space
  uint64_t uses_ = 0;
  size_t stored_ = 0;  // frames, items and mask words
  uint64_t work_ = 0;  // left to the current mask or byte
  std::vector<SetId> path_;
  SetId initial_ = kDead;
};

}  // namespace engine::text::grammar
