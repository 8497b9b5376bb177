#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/adapter_scale.h"
#include "engine/lora.h"
#include "scheduler/scheduler.h"
#include "server/api_error.h"
#include "server/event_queue.h"
#include "server/openai_schema.h"
#include "server/served_model.h"

namespace server {

// What a request's `lora` says of each adapter: those that it leaves out take no part. Without it,
// every adapter has its own scale. Errors: ApiError for an adapter that the model does not have.
std::vector<engine::AdapterScale> ResolveAdapters(
    const std::optional<std::vector<LoraChoice>>& choices,
    std::span<const engine::LoraAdapter> adapters);

// Why the scheduler took no request. REQUIRES: result is not kOk.
ApiError AdmissionError(scheduler::AdmitResult result, std::string_view param, size_t tokens,
                        const ServedModel& model);
// The same as a label of metrics, one of kRejectionReasons.
std::string_view RejectionReason(scheduler::AdmitResult result);
inline constexpr std::array<std::string_view, 4> kRejectionReasons = {
    "queue_full", "key_queue_full", "prompt_too_long", "draining"};

// Errors: ApiError when the queue has dropped events, so that no more come.
void ThrowIfBroken(const EventQueue& queue);
// Errors: ApiError when the event ends a request that the engine did not finish.
void ThrowIfFailed(const scheduler::TokenEvent& event, const ServedModel& model);

}  // namespace server
