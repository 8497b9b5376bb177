// Any bytes as a chat template: compiling and rendering ends with a text or a TemplateError, within
// the limits, without crashing, leaking or overflowing the stack.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/text/chat_template.h"

namespace {

using engine::text::Array;
using engine::text::Object;
using engine::text::Value;

Object Variables() {
  Object arguments, call, first, second, variables;
  arguments.Set("city", "Zürich");
  arguments.Set("days", 3);
  call.Set("name", "weather");
  call.Set("arguments", arguments);
  first.Set("role", "user");
  first.Set("content", " Grüße \"🎉\"\n");
  second.Set("role", "assistant");
  second.Set("content", Value());
  second.Set("tool_calls", Array{Value(call)});
  variables.Set("messages", Array{Value(first), Value(second)});
  variables.Set("tools", Array{Value(call)});
  variables.Set("bos_token", "<s>");
  variables.Set("add_generation_prompt", true);
  variables.Set("n", 2.5);
  return variables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Object variables = Variables();
  engine::text::TemplateLimits limits;
  limits.steps = 20'000;
  limits.output_bytes = 1 << 16;
  limits.milliseconds = 200;
  try {
    const engine::text::ChatTemplate chat(std::string(reinterpret_cast<const char*>(data), size),
                                          limits);
    chat.Render(variables, 1789000000);
  } catch (const engine::text::TemplateError&) {
  }
  return 0;
}
