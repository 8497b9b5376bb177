#include "engine/text/grammar/matcher.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace engine::text::grammar {

Constraint::Constraint(Automaton automaton, std::shared_ptr<const TokenTrie> trie)
    : automaton_(std::move(automaton)), trie_(std::move(trie)) {
  current_ = std::make_shared<Shared>(automaton_, *trie_);
  current_->sets.Mask(current_->sets.initial());
}

std::shared_ptr<Constraint::Shared> Constraint::Current() const {
  const std::lock_guard lock(mutex_);
  bool full = false;
  {
    const std::lock_guard shared_lock(current_->mutex);
    full = current_->sets.Full();
  }
  if (full) current_ = std::make_shared<Shared>(automaton_, *trie_);
  return current_;
}

Matcher::Matcher(std::shared_ptr<const Constraint> constraint, std::vector<TokenId> stop_tokens,
                 bool drops_space)
    : constraint_(std::move(constraint)),
      shared_(constraint_->Current()),
      stop_tokens_(std::move(stop_tokens)),
      drops_space_(drops_space) {
  const uint32_t vocabulary = constraint_->trie().vocabulary();
  std::erase_if(stop_tokens_,
                [&](TokenId token) { return static_cast<uint32_t>(token) >= vocabulary; });
  places_.push_back({shared_->sets.initial(), true, false});
}

bool Matcher::IsStop(TokenId token) const {
  return std::find(stop_tokens_.begin(), stop_tokens_.end(), token) != stop_tokens_.end();
}

std::span<const uint64_t> Matcher::Mask() {
  const Place& place = places_.back();
  if (place.terminated) {
    mask_.assign(constraint_->trie().mask_words(), 0);
    return mask_;
  }
  const std::lock_guard lock(shared_->mutex);
  const auto known = shared_->sets.Mask(place.set, place.at_start && drops_space_);
  mask_.assign(known.begin(), known.end());
  const bool complete = shared_->sets.Accepts(place.set);
  for (const TokenId token : stop_tokens_) {
    const uint64_t bit = uint64_t{1} << (static_cast<size_t>(token) % 64);
    uint64_t& word = mask_[static_cast<size_t>(token) / 64];
    word = complete ? word | bit : word & ~bit;
  }
  return mask_;
}

bool Matcher::Accept(TokenId token) {
  if (places_.back().terminated) return false;
  if (IsFull()) MoveToCurrent();
  Place place = places_.back();
  const std::lock_guard lock(shared_->mutex);
  if (IsStop(token)) {
    if (!shared_->sets.Accepts(place.set)) return false;
    place.terminated = true;
  } else {
    std::string_view bytes = constraint_->trie().TokenBytes(token);
    if (place.at_start && drops_space_ && bytes.starts_with(' ')) bytes.remove_prefix(1);
    if (bytes.empty()) return false;
    place.set = shared_->sets.Read(place.set, bytes);
    if (place.set == StateSets::kDead) return false;
    place.at_start = false;
  }
  places_.push_back(place);
  if (places_.size() > kMaxRollback + 1) places_.pop_front();
  ++accepted_;
  return true;
}

bool Matcher::IsFull() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->sets.Full();
}

void Matcher::Rollback(uint32_t n) {
  assert(n < places_.size());
  places_.resize(places_.size() - n);
  accepted_ -= n;
}

// The sets of the last places, made again in an object with room.
void Matcher::MoveToCurrent() {
  const auto fresh = constraint_->Current();
  if (fresh == shared_) return;
  const std::scoped_lock lock(fresh->mutex, shared_->mutex);
  std::vector<SetId> sets;
  for (const Place& place : places_) sets.push_back(place.set);
  fresh->sets.Import(shared_->sets, sets);
  for (size_t i = 0; i < sets.size(); ++i) places_[i].set = sets[i];
  shared_ = fresh;
}

bool Matcher::IsComplete() const {
  if (places_.back().terminated) return true;
  const std::lock_guard lock(shared_->mutex);
  return shared_->sets.Accepts(places_.back().set);
}

bool Matcher::IsExhausted() const {
  if (places_.back().terminated) return true;
  const std::lock_guard lock(shared_->mutex);
  const SetId set = places_.back().set;
  return shared_->sets.Accepts(set) && shared_->sets.AtEnd(set);
}

}  // namespace engine::text::grammar
