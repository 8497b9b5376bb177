#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/tracer.h"

namespace server {

// One prompt on its way through the engine. Seconds on the engine's clock; 0 = did not happen.
struct WorkPhases {
  double enqueued = 0;
  double scheduled = 0;    // first time in a step
  double first_token = 0;  // or the vector
  double last_token = 0;
};

// What the engine did for a request, as the spans show it: one of the whole, named after
// OpenTelemetry's conventions for generative AI, with `queue`, `prefill` and `decode` of each
// prompt within. Never what was asked or answered.
struct WorkRecord {
  std::string operation;  // chat | text_completion | embeddings
  std::string requested_model;
  std::string model;  // that answered
  double start = 0;   // seconds on the steady clock
  double end = 0;
  std::vector<WorkPhases> phases;
  std::vector<std::pair<std::string, SpanValue>> attributes;  // more of the whole
  bool cancelled = false;                                     // nobody waited for the end
  std::string error_type;                                     // empty = none
  std::string error;

  // Without memory for it: nothing.
  void SetError(const ApiError& ended_by) noexcept;
};

// Does nothing for a request without a trace, or with one that is not recorded. Never throws: a
// request must not fail for its trace.
void ExportWork(const std::shared_ptr<const RequestTrace>& trace,
                const WorkRecord& record) noexcept;

}  // namespace server
