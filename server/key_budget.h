#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "server/http_types.h"

namespace server {

// What one API key may use; 0 = without limit.
struct KeyLimits {
  uint32_t requests_per_minute = 0;
  uint32_t tokens_per_minute = 0;  // of prompts and answers
  uint32_t concurrent = 0;         // requests at the same time
};

// What one API key has used lately. Requests and tokens are token buckets that hold one minute's
// worth. Tokens are known only when a request ends: one is admitted while the bucket is not empty,
// and what it used beyond is a debt that the next ones wait for.
//
// Threads: any. Time is an argument.
class KeyBudget {
 public:
  enum class Limit { kRequests, kTokens, kConcurrent };
  static constexpr size_t kLimits = 3;
  struct Refusal {
    Limit limit = Limit::kRequests;
    uint32_t allowed = 0;     // the limit's number
    double wait_seconds = 0;  // until a request would be admitted; 1 when only another's end helps
  };
  // What is left, for the x-ratelimit-* headers. `allowed` 0: there is no such limit.
  struct Remaining {
    uint32_t allowed = 0;
    uint32_t left = 0;
    double full_after_seconds = 0;
  };
  // Since the key was configured.
  struct Totals {
    uint64_t requests = 0;                     // admitted
    std::array<uint64_t, kLimits> refusals{};  // by Limit
    uint64_t prompt_tokens = 0;
    uint64_t completion_tokens = 0;
    uint32_t running = 0;  // now

    Totals& operator+=(const Totals& other);
  };

  explicit KeyBudget(KeyLimits limits) : limits_(limits) {}

  // New limits; what was used stays used.
  void SetLimits(KeyLimits limits);
  // A request begins: nullopt, and Leave() must follow. Else nothing is counted.
  std::optional<Refusal> Enter(Clock::time_point now);
  void Leave();
  void UseTokens(uint64_t prompt, uint64_t completion, Clock::time_point now);

  Remaining RequestsLeft(Clock::time_point now) const;
  Remaining TokensLeft(Clock::time_point now) const;
  Totals totals() const;

 private:
  struct Bucket {
    double used = 0;  // sinks by a minute's worth in a minute
    Clock::time_point at{};
    double UsedAt(Clock::time_point now, uint32_t per_minute) const;
    void Use(double amount, Clock::time_point now, uint32_t per_minute);
  };
  static Remaining Left(const Bucket& bucket, uint32_t per_minute, Clock::time_point now);
  std::optional<Refusal> RefusalAt(Clock::time_point now) const;

  mutable std::mutex mutex_;
  KeyLimits limits_;
  Bucket requests_;
  Bucket tokens_;
  Totals totals_;
};

// One request's part of a budget, given back with the object; a stream that outlives its connection
// holds on to it. Also what the access log says about the work.
//
// Threads: any.
class RequestUse {
 public:
  RequestUse() = default;
  // REQUIRES: budget->Enter() admitted the request.
  explicit RequestUse(std::shared_ptr<KeyBudget> budget) : budget_(std::move(budget)) {}
  RequestUse(const RequestUse&) = delete;
  RequestUse& operator=(const RequestUse&) = delete;
  ~RequestUse();

  void AddTokens(uint64_t prompt, uint64_t completion);
  uint64_t prompt_tokens() const;
  uint64_t completion_tokens() const;

 private:
  std::shared_ptr<KeyBudget> budget_;
  mutable std::mutex mutex_;
  uint64_t prompt_tokens_ = 0;
  uint64_t completion_tokens_ = 0;
};

}  // namespace server
