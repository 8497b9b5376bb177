#include "server/work_trace.h"

#include <algorithm>
#include <exception>
#include <new>

namespace server {
namespace {

// Of one request: the others only count.
constexpr size_t kMaxTracedPrompts = 16;

void ExportPhase(const RequestTrace& trace, SpanId parent, const char* name, double start,
                 double end, size_t prompt, bool many) {
  if (start <= 0 || end < start) return;
  Span span = trace.Child(parent, name, start, end);
  if (many) span.attributes.emplace_back("tern.prompt.index", static_cast<int64_t>(prompt));
  trace.Export(std::move(span));
}

// A phase that has not ended when the work ends was cut there.
void ExportPhases(const RequestTrace& trace, SpanId parent, const WorkRecord& record,
                  size_t prompt) {
  const WorkPhases& phases = record.phases[prompt];
  const bool many = record.phases.size() > 1;
  const auto phase = [&](const char* name, double start, double end) {
    ExportPhase(trace, parent, name, start, end > 0 ? end : record.end, prompt, many);
  };
  phase("queue", phases.enqueued, phases.scheduled);
  phase("prefill", phases.scheduled, phases.first_token);
  if (phases.last_token > phases.first_token) {
    phase("decode", phases.first_token, phases.last_token);
  }
}

void Export(const RequestTrace& trace, const WorkRecord& record) {
  Span span = trace.Child(trace.context().span_id, record.operation + " " + record.model,
                          record.start, record.end);
  auto& attributes = span.attributes;
  attributes.emplace_back("gen_ai.operation.name", record.operation);
  attributes.emplace_back("gen_ai.provider.name", std::string("tern"));
  attributes.emplace_back("gen_ai.request.model",
                          record.requested_model.empty() ? record.model : record.requested_model);
  attributes.emplace_back("gen_ai.response.model", record.model);
  attributes.insert(attributes.end(), record.attributes.begin(), record.attributes.end());
  if (record.cancelled) attributes.emplace_back("tern.cancelled", true);
  if (!record.error_type.empty()) {
    attributes.emplace_back("error.type", record.error_type);
    span.failed = true;
    span.failure = record.error;
  }
  const SpanId id = span.context.span_id;
  for (size_t i = 0; i < std::min(record.phases.size(), kMaxTracedPrompts); ++i) {
    ExportPhases(trace, id, record, i);
  }
  trace.Export(std::move(span));
}

}  // namespace

void WorkRecord::SetError(const ApiError& ended_by) noexcept {
  try {
    error_type = ended_by.code().empty() ? ended_by.type() : ended_by.code();
    error = ended_by.what();
  } catch (const std::bad_alloc&) {
  }
}

void ExportWork(const std::shared_ptr<const RequestTrace>& trace,
                const WorkRecord& record) noexcept {
  if (trace == nullptr || !trace->recorded()) return;
  try {
    Export(*trace, record);
  } catch (const std::exception&) {
    // No memory for it: then without.
  }
}

}  // namespace server
