#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace scheduler {

// Who finds KV blocks that an earlier request computed.
enum class PrefixCacheMode : uint8_t {
  kOff,     // nobody
  kOn,      // every request with the same `cache_salt`
  kPerKey,  // only requests of the same API key
};

// Where guesses of the next tokens come from. They never change what is generated.
enum class Speculation : uint8_t {
  kAuto,  // kModel where there is a draft model, else kOff
  kOff,
  kNgram,  // from the text so far (prompt look-up)
  kSelf,   // from the first layers of the model itself
  kModel,  // from a smaller model of the same vocabulary
};

// As options and metrics call it.
constexpr std::string_view Name(Speculation kind) {
  switch (kind) {
    case Speculation::kAuto:
      return "auto";
    case Speculation::kOff:
      return "off";
    case Speculation::kNgram:
      return "ngram";
    case Speculation::kSelf:
      return "self";
    case Speculation::kModel:
      return "model";
  }
  return "";
}

struct SchedulerOptions {
  // 0 = from the model and the machine (scheduler/auto_limits.h).
  uint32_t max_sequences = 0;     // running at once
  uint32_t max_batch_tokens = 0;  // token budget of one step; also the engine's workspace
  uint32_t prefill_chunk = 0;     // prompt tokens of one sequence in one step while others wait

  uint32_t max_queued_requests = 256;    // waiting; beyond: AdmitResult::kQueueFull
  uint64_t max_queued_tokens = 1 << 20;  // prompt tokens waiting
  uint32_t max_queued_per_key = 0;       // waiting requests of one API key; 0 = no own limit
  double queue_deadline_seconds = 0;  // 0 = wait for ever; else a waiting request fails after this

  // API keys share the machine by tokens; priorities order the requests of one key. Without,
  // priorities order all requests.
  bool fair_share = true;
  // A request that waits for so long counts as one priority level more urgent; 0 = never.
  double priority_aging_seconds = 15;

  PrefixCacheMode prefix_cache = PrefixCacheMode::kOn;
  std::string prefix_cache_file;  // kept there over restarts; empty = nowhere
  uint64_t swap_bytes = 0;  // host memory for the KV of preempted sequences; 0 = compute it again

  Speculation speculation = Speculation::kAuto;
  // A step of more tokens than this drafts nothing: decode has no arithmetic to spare any more.
  uint32_t speculation_max_tokens = 16;
  uint32_t speculation_layers = 0;  // kSelf: how many; 0 = half of them
  std::string draft_model;          // kModel: its GGUF file
};

// Where guesses come from under these options; never kAuto.
inline Speculation DraftKind(const SchedulerOptions& options) {
  if (options.speculation != Speculation::kAuto) return options.speculation;
  return options.draft_model.empty() ? Speculation::kOff : Speculation::kModel;
}

}  // namespace scheduler
