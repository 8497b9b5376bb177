#include "server/key_budget.h"

#include <algorithm>
#include <chrono>

namespace server {
namespace {

// When only the end of another request helps, nobody knows when that will be.
constexpr double kUnknownWaitSeconds = 1;

}  // namespace

KeyBudget::Totals& KeyBudget::Totals::operator+=(const Totals& other) {
  requests += other.requests;
  for (size_t limit = 0; limit < kLimits; ++limit) refusals[limit] += other.refusals[limit];
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  running += other.running;
  return *this;
}

double KeyBudget::Bucket::UsedAt(Clock::time_point now, uint32_t per_minute) const {
  const double minutes = std::chrono::duration<double, std::ratio<60>>(now - at).count();
  return std::max(0.0, used - minutes * per_minute);
}

void KeyBudget::Bucket::Use(double amount, Clock::time_point now, uint32_t per_minute) {
  // What was used without a limit is not held against one that comes with a reload.
  used = per_minute == 0 ? 0.0 : UsedAt(now, per_minute) + amount;
  at = now;
}

void KeyBudget::SetLimits(KeyLimits limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

std::optional<KeyBudget::Refusal> KeyBudget::Enter(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (const auto refusal = RefusalAt(now)) {
    ++totals_.refusals[static_cast<size_t>(refusal->limit)];
    return refusal;
  }
  requests_.Use(1, now, limits_.requests_per_minute);
  ++totals_.requests;
  ++totals_.running;
  return std::nullopt;
}

std::optional<KeyBudget::Refusal> KeyBudget::RefusalAt(Clock::time_point now) const {
  if (limits_.concurrent > 0 && totals_.running >= limits_.concurrent) {
    return Refusal{Limit::kConcurrent, limits_.concurrent, kUnknownWaitSeconds};
  }
  // Seconds until the bucket has room for `amount`.
  const auto wait = [&](const Bucket& bucket, uint32_t per_minute, double amount) {
    const double over = bucket.UsedAt(now, per_minute) + amount - per_minute;
    return over <= 0 ? 0.0 : over * 60 / per_minute;
  };
  if (const uint32_t limit = limits_.requests_per_minute; limit > 0) {
    if (const double seconds = wait(requests_, limit, 1); seconds > 0) {
      return Refusal{Limit::kRequests, limit, seconds};
    }
  }
  if (const uint32_t limit = limits_.tokens_per_minute; limit > 0) {
    if (const double seconds = wait(tokens_, limit, 1); seconds > 0) {
      return Refusal{Limit::kTokens, limit, seconds};
    }
  }
  return std::nullopt;
}

void KeyBudget::Leave() {
  const std::lock_guard lock(mutex_);
  --totals_.running;
}

void KeyBudget::UseTokens(uint64_t prompt, uint64_t completion, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  tokens_.Use(static_cast<double>(prompt + completion), now, limits_.tokens_per_minute);
  totals_.prompt_tokens += prompt;
  totals_.completion_tokens += completion;
}

KeyBudget::Remaining KeyBudget::Left(const Bucket& bucket, uint32_t per_minute,
                                     Clock::time_point now) {
  if (per_minute == 0) return {};
  const double used = bucket.UsedAt(now, per_minute);
  return {per_minute, static_cast<uint32_t>(std::max(0.0, per_minute - used)),
          used * 60 / per_minute};
}

KeyBudget::Remaining KeyBudget::RequestsLeft(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  return Left(requests_, limits_.requests_per_minute, now);
}

KeyBudget::Remaining KeyBudget::TokensLeft(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  return Left(tokens_, limits_.tokens_per_minute, now);
}

KeyBudget::Totals KeyBudget::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

RequestUse::~RequestUse() {
  if (budget_ != nullptr) budget_->Leave();
}

void RequestUse::AddTokens(uint64_t prompt, uint64_t completion) {
  {
    const std::lock_guard lock(mutex_);
    prompt_tokens_ += prompt;
    completion_tokens_ += completion;
  }
  if (budget_ != nullptr) budget_->UseTokens(prompt, completion, Clock::now());
}

uint64_t RequestUse::prompt_tokens() const {
  const std::lock_guard lock(mutex_);
  return prompt_tokens_;
}

uint64_t RequestUse::completion_tokens() const {
  const std::lock_guard lock(mutex_);
  return completion_tokens_;
}

}  // namespace server
