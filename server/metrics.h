#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/engine_loop.h"
#include "server/auth.h"
#include "server/energy_meter.h"
#include "server/model_registry.h"
#include "server/span_exporter.h"

namespace server {

// Histograms and counters of one model, filled by requests and by the engine loop.
//
// Threads: any. Lives as long as its Metrics.
class ModelMetrics {
 public:
  struct FirstToken {
    double first_token_seconds = 0;  // since the request's header arrived
    double queue_seconds = 0;
    double prefill_seconds = 0;
    uint32_t cached_tokens = 0;
  };
  struct Finished {
    std::string reason;  // "stop", "length"
    double total_seconds = 0;
    double decode_seconds = 0;     // first to last token
    double inference_seconds = 0;  // first step to last token
    uint32_t generated_tokens = 0;
  };

  virtual ~ModelMetrics() = default;
  virtual void OnSubmitted(size_t prompt_tokens, uint32_t choices,
                           std::optional<uint32_t> max_tokens) = 0;
  virtual void OnRejected(std::string_view reason) = 0;
  virtual void OnFirstToken(const FirstToken& times) = 0;
  virtual void OnInterToken(double seconds) = 0;
  virtual void OnFinished(const Finished& times) = 0;
  // An input became a vector.
  virtual void OnEmbedded(double total_seconds, double queue_seconds, double inference_seconds) = 0;
  virtual void OnAborted() = 0;
  virtual void OnSlowReader() = 0;
  virtual void OnStep(uint32_t tokens) = 0;
};

// State of the server and its models at the time of a scrape.
struct MetricsSnapshot {
  struct Model {
    std::string name;
    bool ready = false;   // takes requests
    bool loaded = false;  // in memory
    ModelRegistry::Status status;
    scheduler::LoopStats stats;
    uint32_t block_size = 0;
    bool prefix_cache = false;
    scheduler::Speculation speculation = scheduler::Speculation::kOff;
    uint32_t max_sequences = 0;
  };
  std::vector<Model> models;
  double heartbeat_age_seconds = 0;
  uint32_t http_connections = 0;
  uint32_t http_active_requests = 0;
  bool draining = false;
  uint64_t model_memory_limit = 0;            // 0 = none
  std::vector<EnergyMeter::Package> energy;   // measured; empty when it cannot be
  std::optional<SpanExporter::Stats> traces;  // when they are exported
  std::vector<Authenticator::KeyUse> keys;    // when series per key are wanted
  std::string kernels;                        // instruction set of the kernels in use
};

// All that /metrics shows, in Prometheus' text format (docs/telemetry.md).
//
// Threads: any.
class Metrics {
 public:
  // aliases: also the names that vLLM uses.
  explicit Metrics(bool aliases);
  ~Metrics();

  // Made on first use.
  ModelMetrics* ForModel(const std::string& name);
  void OnHttpRequest(const std::string& route, int status, double seconds);

  std::string Render(const MetricsSnapshot& snapshot) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace server
