#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/adapter_scale.h"
#include "engine/pooling.h"
#include "server/embedding_schema.h"
#include "server/event_queue.h"
#include "server/http_types.h"
#include "server/key_budget.h"
#include "server/metrics.h"
#include "server/served_model.h"
#include "server/work_trace.h"

namespace server {

// Inputs that are checked against their model and ready to become vectors.
struct EmbeddingJob {
  std::shared_ptr<ServedModel> model;
  EmbeddingParams params;
  engine::Pooling pooling = engine::Pooling::kLast;
  std::vector<engine::AdapterScale> adapters;
  std::vector<std::vector<engine::TokenId>> inputs;
  std::vector<std::string> names;             // of the inputs in errors, e.g. "input[3]"
  std::string tenant;                         // API key's name
  std::shared_ptr<RequestUse> use;            // of its key; may be null
  std::shared_ptr<const RequestTrace> trace;  // may be null
  Clock::time_point arrival;

  EmbeddingJob() = default;
  EmbeddingJob(const EmbeddingParams& request, std::shared_ptr<ServedModel> served,
               const HttpRequest& http);

  // Tokenizes a text, which may take long: runs on a worker. Errors: ApiError for one that is empty
  // or does not fit the context.
  void Add(const CompletionPrompt& input, const std::string& name);
};

// One running request for vectors. Its inputs run beside each other and beside everything else;
// at most kInFlight of them wait or run at once, so that one request leaves room in the queue.
//
// Threads: one at a time; only queue() is shared with the engine thread.
class Embedder {
 public:
  static constexpr size_t kInFlight = 32;

  Embedder(EmbeddingJob job, ModelMetrics* metrics);
  // Cancels what still runs.
  ~Embedder();
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  // Hands over the first inputs. Errors: ApiError when the queue is full or the server drains.
  void Submit();
  EventQueue& queue() { return *queue_; }
  // Takes what has arrived and hands over the next inputs. Errors: ApiError when one failed.
  void Take();
  bool finished() const { return done_ == inputs_.size(); }

  // Of the inputs, in their order, each of the model's embedding length. REQUIRES: finished().
  const std::vector<std::vector<float>>& vectors() const { return vectors_; }
  const EmbeddingJob& job() const { return job_; }
  uint64_t tokens() const;

 private:
  struct Input {
    scheduler::RequestId id = 0;  // 0: not submitted
    bool ended = false;
  };
  void SubmitNext();
  void Handle(scheduler::TokenEvent event);

  EmbeddingJob job_;
  ModelMetrics* metrics_;
  std::shared_ptr<EventQueue> queue_;
  std::vector<Input> inputs_;
  std::vector<std::vector<float>> vectors_;
  size_t submitted_ = 0;
  size_t done_ = 0;
  WorkRecord record_;
};

}  // namespace server
