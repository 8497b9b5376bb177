#include "server/tracer.h"

#include <chrono>
#include <utility>

#include "server/server_options.h"

namespace server {

Tracer::Tracer(Options options, std::unique_ptr<SpanExporter> exporter)
    : options_(options), exporter_(std::move(exporter)) {}

bool Tracer::Samples(const TraceId& id, const TraceContext* caller) const {
  if (exporter_ == nullptr) return false;
  if (options_.sampler == Sampler::kParent && caller != nullptr) return caller->sampled;
  return InSample(id, options_.ratio);
}

std::shared_ptr<RequestTrace> Tracer::Begin(const std::shared_ptr<Tracer>& tracer,
                                            const HeaderList& headers) {
  const std::optional<TraceContext> caller = ReadTraceContext(headers);
  if (!caller && tracer->exporter_ == nullptr) return nullptr;
  TraceContext own;
  if (caller) {
    own = *caller;
  } else {
    own.trace_id = NewTraceId();
    own.random = true;
  }
  own.span_id = NewSpanId();
  own.sampled = tracer->Samples(own.trace_id, caller ? &*caller : nullptr);
  return std::make_shared<RequestTrace>(tracer, std::move(own),
                                        caller ? caller->span_id : SpanId{});
}

std::shared_ptr<Tracer> MakeTracer(const ServerOptions& options) {
  std::unique_ptr<SpanExporter> exporter;
  if (!options.otlp_endpoint.empty()) {
    SpanExporter::Options to;
    to.url = ClientUrl::Parse(options.otlp_endpoint);
    constexpr std::string_view kTraces = "/v1/traces";
    std::string& path = to.url.path;
    if (!path.ends_with(kTraces)) path.append(kTraces.substr(path.ends_with('/') ? 1 : 0));
    to.headers = options.otlp_headers;
    to.service_name = options.trace_service;
    exporter = std::make_unique<SpanExporter>(std::move(to));
  }
  const auto sampler =
      options.trace_follows_caller ? Tracer::Sampler::kParent : Tracer::Sampler::kRatio;
  return std::make_shared<Tracer>(Tracer::Options{sampler, options.trace_ratio},
                                  std::move(exporter));
}

RequestTrace::RequestTrace(std::shared_ptr<Tracer> tracer, TraceContext own, SpanId caller)
    : tracer_(std::move(tracer)), own_(std::move(own)), caller_(caller) {
  using std::chrono::duration_cast;
  using std::chrono::nanoseconds;
  const auto unix_now = std::chrono::system_clock::now().time_since_epoch();
  const auto steady_now = Clock::now().time_since_epoch();
  unix_offset_ns_ = duration_cast<nanoseconds>(unix_now - steady_now).count();
}

Span RequestTrace::MakeSpan(std::string name, double start, double end) const {
  const auto unix_ns = [this](double seconds) {
    return static_cast<int64_t>(seconds * 1e9) + unix_offset_ns_;
  };
  Span span;
  span.name = std::move(name);
  span.context = own_;
  span.start_ns = unix_ns(start);
  span.end_ns = std::max(span.start_ns, unix_ns(end));
  return span;
}

Span RequestTrace::RequestSpan(std::string name, double start, double end) const {
  Span span = MakeSpan(std::move(name), start, end);
  span.kind = Span::Kind::kServer;
  span.parent = caller_;
  return span;
}

Span RequestTrace::Child(SpanId parent, std::string name, double start, double end) const {
  Span span = MakeSpan(std::move(name), start, end);
  span.context.span_id = NewSpanId();
  span.parent = parent;
  return span;
}

void RequestTrace::Export(Span span) const noexcept {
  if (recorded()) tracer_->exporter()->Add(std::move(span));
}

double SteadySeconds(Clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

}  // namespace server
