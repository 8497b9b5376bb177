#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_client.h"
#include "server/span.h"

namespace server {

// Sends spans to a collector by OTLP/HTTP from a thread of its own. Whoever adds a span never waits
// for the collector: beyond the queue's capacity spans are dropped and counted.
//
// Retries: 429, 502, 503 and 504 and broken connections are tried again, after the collector's
//          Retry-After or a pause that doubles; other refusals are final (OTLP 1.x, "OTLP/HTTP
//          Response").
// Threads: any.
class SpanExporter {
 public:
  struct Options {
    ClientUrl url;
    HeaderList headers;  // such as authorization
    std::string service_name = "tern";
    size_t queue_spans = 2048;
    size_t batch_spans = 512;
    double batch_seconds = 1;  // that a span waits for others
    double timeout_seconds = 10;
    double retry_seconds = 1;  // first pause; the next ones double
    double max_retry_seconds = 30;
    int max_attempts = 8;
    double farewell_seconds = 2;  // for what is left when the exporter ends
  };
  struct Stats {
    uint64_t sent = 0;
    uint64_t dropped = 0;  // the queue was full
    uint64_t failed = 0;   // refused, or given up
  };

  // Throws std::runtime_error when TLS cannot be set up.
  explicit SpanExporter(Options options);
  // Sends what is left once, within farewell_seconds.
  ~SpanExporter();
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  void Add(Span span) noexcept;
  Stats stats() const;

 private:
  struct Outcome;

  void Run();
  std::vector<Span> NextBatch();
  void Deliver(const std::vector<Span>& batch);
  Outcome Post(const std::string& body, double timeout_seconds);
  void Count(const std::vector<Span>& batch, const Outcome& outcome);
  void Report(const Outcome& outcome);

  Options options_;
  HttpClient client_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Span> queue_;
  Stats stats_;
  bool stopping_ = false;
  bool ended_ = false;             // the thread has nothing more to do
  Clock::time_point last_moment_;  // once stopping
  bool complained_ = false;        // of the exporter's thread: the last delivery failed
  std::thread thread_;
};

}  // namespace server
