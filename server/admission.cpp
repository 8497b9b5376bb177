#include "server/admission.h"

namespace server {
namespace {

uint32_t FindAdapter(const LoraChoice& choice, const std::string& param,
                     std::span<const engine::LoraAdapter> adapters) {
  if (choice.id) {
    if (*choice.id < adapters.size()) return *choice.id;
    throw InvalidValue(param + ".id", "Invalid value for '" + param + ".id': the model has " +
                                          std::to_string(adapters.size()) +
                                          " LoRA adapters, and ids begin at 0.");
  }
  for (uint32_t i = 0; i < adapters.size(); ++i) {
    if (adapters[i].name == choice.name) return i;
  }
  throw InvalidValue(param + ".name", "Invalid value for '" + param +
                                          ".name': the model has no LoRA adapter '" + choice.name +
                                          "'.");
}

}  // namespace

std::vector<engine::AdapterScale> ResolveAdapters(
    const std::optional<std::vector<LoraChoice>>& choices,
    std::span<const engine::LoraAdapter> adapters) {
  std::vector<float> scales(adapters.size(), 0.0F);
  if (!choices) {
    for (size_t i = 0; i < adapters.size(); ++i) scales[i] = adapters[i].scale;
  } else {
    std::vector<bool> named(adapters.size(), false);
    for (size_t i = 0; i < choices->size(); ++i) {
      const std::string param = "lora[" + std::to_string(i) + "]";
      const uint32_t id = FindAdapter((*choices)[i], param, adapters);
      if (named[id]) {
        throw InvalidValue(param, "Invalid value for '" + param + "': adapter " +
                                      std::to_string(id) + " is given twice.");
      }
      named[id] = true;
      scales[id] = (*choices)[i].scale;
    }
  }
  std::vector<engine::AdapterScale> active;
  for (uint32_t id = 0; id < scales.size(); ++id) {
    if (scales[id] != 0) active.push_back({id, scales[id]});
  }
  return active;
}

ApiError AdmissionError(scheduler::AdmitResult result, std::string_view param, size_t tokens,
                        const ServedModel& model) {
  switch (result) {
    case scheduler::AdmitResult::kPromptTooLong:
      return ContextLengthExceeded(param, tokens, model.context_length());
    case scheduler::AdmitResult::kDraining:
      return ShuttingDown();
    case scheduler::AdmitResult::kKeyQueueFull:
      return RateLimited("Too many requests of this API key are waiting. Try again soon.",
                         model.RetryAfterSeconds());
    default:
      return Overloaded("The server has too many requests waiting. Try again soon.",
                        model.RetryAfterSeconds());
  }
}

std::string_view RejectionReason(scheduler::AdmitResult result) {
  switch (result) {
    case scheduler::AdmitResult::kPromptTooLong:
      return "prompt_too_long";
    case scheduler::AdmitResult::kDraining:
      return "draining";
    case scheduler::AdmitResult::kKeyQueueFull:
      return "key_queue_full";
    default:
      return "queue_full";
  }
}

void ThrowIfBroken(const EventQueue& queue) {
  switch (queue.failure()) {
    case EventQueue::Failure::kNone:
      return;
    case EventQueue::Failure::kFull:
      throw SlowReader();
    case EventQueue::Failure::kNoMemory:
      throw OutOfMemory();
  }
}

void ThrowIfFailed(const scheduler::TokenEvent& event, const ServedModel& model) {
  if (!event.finished) return;
  if (event.reason == scheduler::FinishReason::kCancelled) throw ShuttingDown();
  if (event.reason != scheduler::FinishReason::kError) return;
  // It never ran: it waited too long.
  if (event.scheduled <= 0) throw Overloaded(event.error, model.RetryAfterSeconds());
  throw InternalError(event.error);
}

}  // namespace server
