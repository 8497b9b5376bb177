#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/lora.h"
#include "engine/pooling.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "scheduler/engine_loop.h"
#include "scheduler/model_runtime.h"
#include "server/queue_estimate.h"

namespace server {

class GrammarCache;
struct ChatSyntax;
struct ChatSyntaxOptions;

// What a request needs of a model: its words and its queue. Tests put a scripted one here.
//
// Threads: any.
class ServedModel {
 public:
  ServedModel();
  virtual ~ServedModel();

  virtual const std::string& name() const = 0;
  virtual uint32_t context_length() const = 0;
  virtual const engine::text::Tokenizer& tokenizer() const = 0;
  // nullptr: the model has none.
  virtual const engine::text::ChatTemplate* chat_template() const = 0;

  // Of embeddings: how many numbers one has, and which tokens it is made of.
  virtual uint32_t embedding_length() const { return 0; }
  virtual engine::Pooling pooling() const { return engine::Pooling::kLast; }

  // LoRA adapters by id; empty when none were loaded.
  virtual std::span<const engine::LoraAdapter> adapters() const { return {}; }

  // Compiled grammars of structured output.
  GrammarCache& grammars() { return *grammars_; }

  // How its answers and prompts are written; found out when first asked.
  const ChatSyntax& syntax() const;
  // Before others see the model.
  void SetSyntaxOptions(const ChatSyntaxOptions& options);

  // How fast its queue moves: told by those whose requests end.
  QueueEstimate& queue() { return queue_; }
  // For who was turned away because of the queue.
  int RetryAfterSeconds() const {
    return queue_.RetryAfterSeconds(waiting_requests(), Clock::now());
  }
  virtual uint32_t waiting_requests() const { return 0; }
  // False when its Fabric device has failed for good and the host computes in its place.
  virtual bool device_in_service() const { return true; }

  // As EngineLoop.
  virtual scheduler::AdmitResult Submit(scheduler::Request request) = 0;
  virtual void Cancel(scheduler::RequestId request) = 0;
  virtual void CancelChoice(scheduler::RequestId request, uint32_t choice,
                            scheduler::FinishReason reason) = 0;

 private:
  struct Syntax;
  const std::unique_ptr<GrammarCache> grammars_;
  const std::unique_ptr<Syntax> syntax_;
  QueueEstimate queue_;
};

// A runtime that is attached to a loop. loop outlives it.
class RuntimeModel : public ServedModel {
 public:
  RuntimeModel(scheduler::EngineLoop& loop, std::shared_ptr<scheduler::ModelRuntime> runtime);

  const std::string& name() const override { return runtime_->name(); }
  uint32_t context_length() const override;
  const engine::text::Tokenizer& tokenizer() const override;
  const engine::text::ChatTemplate* chat_template() const override;
  uint32_t embedding_length() const override;
  engine::Pooling pooling() const override;
  std::span<const engine::LoraAdapter> adapters() const override;
  uint32_t waiting_requests() const override;
  bool device_in_service() const override;
  scheduler::AdmitResult Submit(scheduler::Request request) override;
  void Cancel(scheduler::RequestId request) override;
  void CancelChoice(scheduler::RequestId request, uint32_t choice,
                    scheduler::FinishReason reason) override;

 private:
  scheduler::EngineLoop& loop_;
  std::shared_ptr<scheduler::ModelRuntime> runtime_;
};

}  // namespace server
