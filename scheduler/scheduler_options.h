#pragma once

#include <cstdint>

namespace scheduler {

struct SchedulerOptions {
  uint32_t max_sequences = 64;           // running at once
  uint32_t max_batch_tokens = 512;       // token budget of one step; also the engine's workspace
  uint32_t prefill_chunk = 256;          // most prompt tokens of one sequence in one step
  uint32_t max_queued_requests = 256;    // waiting; beyond: AdmitResult::kQueueFull
  uint64_t max_queued_tokens = 1 << 20;  // prompt tokens waiting
  double queue_deadline_seconds = 0;  // 0 = wait for ever; else a waiting request fails after this
};

}  // namespace scheduler
