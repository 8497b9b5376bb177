#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/text/grammar/automaton.h"
#include "engine/text/grammar/state_sets.h"
#include "engine/text/grammar/token_trie.h"
#include "engine/token.h"

namespace engine::text::grammar {

// A grammar compiled for one vocabulary, with what its users have found out about masks so far.
//
// Threads: any; matchers share it under a lock that is held for one call.
class Constraint {
 public:
  // Finds the masks of the first token, too.
  Constraint(Automaton automaton, std::shared_ptr<const TokenTrie> trie);

  const TokenTrie& trie() const { return *trie_; }

 private:
  friend class Matcher;
  struct Shared {
    std::mutex mutex;
    StateSets sets;
    Shared(const Automaton& automaton, const TokenTrie& trie) : sets(automaton, trie) {}
  };
  // The object for new users: another one when the last is full.
  std::shared_ptr<Shared> Current() const;

  Automaton automaton_;
  std::shared_ptr<const TokenTrie> trie_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<Shared> current_;
};

// Where one text stands in its grammar. Allowed tokens are those whose bytes may follow, also when
// they end inside a character; stop tokens are allowed exactly where the text is complete.
//
// Cost:    Mask() is a copy of a known mask, or a walk over the part of the vocabulary that is not
//          known yet. docs/structured_output.md has figures.
// Threads: one at a time.
class Matcher {
 public:
  static constexpr uint32_t kMaxRollback = 256;

  // stop_tokens: those that end the text. drops_space: the first space of the first token is not
  // part of the text (SPM vocabularies).
  Matcher(std::shared_ptr<const Constraint> constraint, std::vector<TokenId> stop_tokens,
          bool drops_space = false);

  // Bit per token of the vocabulary, 1 = allowed. Valid until the next call of any function.
  std::span<const uint64_t> Mask();

  // The token was chosen. False, and nothing changes, when it is not allowed.
  bool Accept(TokenId token);
  // Takes back the last n tokens. REQUIRES: n <= kMaxRollback and n <= accepted().
  void Rollback(uint32_t n);

  uint64_t accepted() const { return accepted_; }
  // A stop token was accepted: nothing may follow.
  bool IsTerminated() const { return places_.back().terminated; }
  // The text so far is a text of the grammar.
  bool IsComplete() const;
  // It is, and no longer text begins with it.
  bool IsExhausted() const;

 private:
  struct Place {
    SetId set;
    bool at_start;
    bool terminated;
  };
  bool IsStop(TokenId token) const;
  bool IsFull() const;
  void MoveToCurrent();

  std::shared_ptr<const Constraint> constraint_;
  std::shared_ptr<Constraint::Shared> shared_;
  std::vector<TokenId> stop_tokens_;
  bool drops_space_;
  std::deque<Place> places_;  // after each of the last tokens; never empty
  uint64_t accepted_ = 0;
  std::vector<uint64_t> mask_;
};

}  // namespace engine::text::grammar
