#include "engine/text/chat_template.h"

#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/parser.h"
#include "engine/text/jinja/scope.h"

namespace engine::text {

struct ChatTemplate::Impl {
  std::string source;
  TemplateLimits limits;
  jinja::Template tree;
};

ChatTemplate::ChatTemplate(std::string source, const TemplateLimits& limits) {
  if (source.size() > limits.source_bytes) {
    throw TemplateError("the chat template has " + std::to_string(source.size()) +
                        " bytes; the limit is " + std::to_string(limits.source_bytes));
  }
  auto impl = std::make_unique<Impl>();
  impl->source = std::move(source);
  impl->limits = limits;
  impl->tree = jinja::Parse(impl->source, limits);
  jinja::ResolveNames(&impl->tree);
  impl_ = std::move(impl);
}

ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::Render(const Object& variables, int64_t now_seconds) const {
  std::optional<jinja::Interpreter> interpreter;
  try {
    interpreter.emplace(impl_->tree, variables, impl_->limits, now_seconds);
    return interpreter->Run();
  } catch (const jinja::RenderError& error) {
    const uint32_t line = interpreter ? interpreter->line() : 1;
    throw TemplateError("line " + std::to_string(line) + ": " + error.what());
  }
}

const std::string& ChatTemplate::source() const { return impl_->source; }

}  // namespace engine::text
