#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler.h"
#include "engine/token.h"

namespace scheduler {

struct RequestCost;

// Chosen by the caller of EngineLoop::Submit through NextRequestId(); unique in the process.
using RequestId = uint64_t;

enum class FinishReason : uint8_t {
  kStop,       // a stop token, or the client's stop string through Cancel(kStop)
  kLength,     // max_tokens or the context is full
  kCancelled,  // the client went away, or the server stopped
  kError,      // see TokenEvent::error
};

std::string_view FinishReasonName(FinishReason reason);  // "stop", "length", "cancelled", "error"

// Log-probability of one prompt token given those before it; the first has none.
struct PromptLogprob {
  bool has_logprob = false;
  engine::TokenLogprob logprob;
  std::vector<engine::TokenLogprob> top;
};

// What a request hears from the engine: tokens in order, then for each choice exactly one event
// with `finished`.
struct TokenEvent {
  RequestId request = 0;
  uint32_t choice = 0;     // 0..n-1
  bool has_token = false;  // false: only the finish
  engine::TokenId token = 0;
  engine::TokenLogprob logprob;  // when asked for
  std::vector<engine::TokenLogprob> top;
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
  std::string error;                           // kError: a sentence
  std::vector<PromptLogprob> prompt_logprobs;  // with choice 0's first event, when asked for
  std::vector<float> embedding;  // with the end of a request that asked for pooling: [hidden]
  uint32_t cached_tokens = 0;    // prompt tokens that came from the prefix cache
  // Of this choice up to and with this event, when asked for.
  std::shared_ptr<const RequestCost> cost;
  // Seconds on the engine's clock, for the server's histograms.
  double enqueued = 0;
  double scheduled = 0;  // first time in a step
  double now = 0;
};

// Where a request's events go.
//
// Threads: called on the engine thread and must return at once: implementations queue and post. The
//          number of events of a request is bounded by n * (max_tokens + 1).
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnEvent(TokenEvent event) noexcept = 0;
};

}  // namespace scheduler
