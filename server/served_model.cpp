#include "server/served_model.h"

#include <mutex>
#include <utility>

#include "server/chat_syntax.h"
#include "server/structured_output.h"

namespace server {

struct ServedModel::Syntax {
  ChatSyntaxOptions options;
  std::once_flag found;
  ChatSyntax syntax;
};

ServedModel::ServedModel()
    : grammars_(std::make_unique<GrammarCache>()), syntax_(std::make_unique<Syntax>()) {}

ServedModel::~ServedModel() = default;

void ServedModel::SetSyntaxOptions(const ChatSyntaxOptions& options) { syntax_->options = options; }

const ChatSyntax& ServedModel::syntax() const {
  std::call_once(syntax_->found, [this] {
    syntax_->syntax = DetectChatSyntax(chat_template(), tokenizer(), syntax_->options);
  });
  return syntax_->syntax;
}

RuntimeModel::RuntimeModel(scheduler::EngineLoop& loop,
                           std::shared_ptr<scheduler::ModelRuntime> runtime)
    : loop_(loop), runtime_(std::move(runtime)) {}

uint32_t RuntimeModel::context_length() const {
  return std::as_const(*runtime_).engine().context_length();
}

const engine::text::Tokenizer& RuntimeModel::tokenizer() const {
  return runtime_->model().tokenizer();
}

const engine::text::ChatTemplate* RuntimeModel::chat_template() const {
  return runtime_->model().chat_template();
}

uint32_t RuntimeModel::embedding_length() const { return runtime_->model().config().hidden; }

engine::Pooling RuntimeModel::pooling() const { return runtime_->model().config().pooling; }

bool RuntimeModel::device_in_service() const {
  return std::as_const(*runtime_).engine().device().in_service();
}

std::span<const engine::LoraAdapter> RuntimeModel::adapters() const {
  return runtime_->model().weights().adapters;
}

uint32_t RuntimeModel::waiting_requests() const {
  return loop_.Stats(*runtime_).scheduler.queued_requests;
}

scheduler::AdmitResult RuntimeModel::Submit(scheduler::Request request) {
  return loop_.Submit(runtime_, std::move(request));
}

void RuntimeModel::Cancel(scheduler::RequestId request) { loop_.Cancel(request); }

void RuntimeModel::CancelChoice(scheduler::RequestId request, uint32_t choice,
                                scheduler::FinishReason reason) {
  loop_.CancelChoice(request, choice, reason);
}

}  // namespace server
