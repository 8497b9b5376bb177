#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/http_types.h"
#include "server/span.h"
#include "server/span_exporter.h"

namespace server {

struct ServerOptions;

// Which requests are recorded as traces.
//
// Threads: any.
class Tracer {
 public:
  enum class Sampler {
    kParent,  // as the caller's traceparent says; the share `ratio` of requests without one
    kRatio,   // the share `ratio` of all
  };
  struct Options {
    Sampler sampler = Sampler::kParent;
    double ratio = 1;
  };

  // exporter: nullptr = nothing is recorded; callers' traces are still told in logs and answers.
  Tracer(Options options, std::unique_ptr<SpanExporter> exporter);

  // The trace of a request with these headers; nullptr when it has none.
  static std::shared_ptr<class RequestTrace> Begin(const std::shared_ptr<Tracer>& tracer,
                                                   const HeaderList& headers);

  SpanExporter* exporter() const { return exporter_.get(); }

 private:
  bool Samples(const TraceId& id, const TraceContext* caller) const;

  Options options_;
  std::unique_ptr<SpanExporter> exporter_;
};

std::shared_ptr<Tracer> MakeTracer(const ServerOptions& options);

// A request's place in its trace. Its span is the server's; what happens within are children.
//
// Threads: any; immutable. Lifetime: keeps its tracer.
class RequestTrace {
 public:
  RequestTrace(std::shared_ptr<Tracer> tracer, TraceContext own, SpanId caller);

  const TraceContext& context() const { return own_; }
  // Spans are wanted.
  bool recorded() const { return own_.sampled; }

  // The span of the request itself, and one within `parent` (another of this trace). Times are on
  // the steady clock, in seconds since its epoch, as the engine's are.
  Span RequestSpan(std::string name, double start, double end) const;
  Span Child(SpanId parent, std::string name, double start, double end) const;
  void Export(Span span) const noexcept;

 private:
  Span MakeSpan(std::string name, double start, double end) const;

  std::shared_ptr<Tracer> tracer_;
  TraceContext own_;  // span_id: the server's span
  SpanId caller_;
  int64_t unix_offset_ns_;  // Unix time less the steady clock, the same for all spans
};

// Seconds on the steady clock, as spans take them.
double SteadySeconds(Clock::time_point time);

}  // namespace server
