#pragma once

#include <string>
#include <vector>

#include "engine/text/value.h"
#include "server/chat_syntax.h"
#include "server/openai_schema.h"

namespace server {

// A call as an earlier answer made it.
struct WrittenCall {
  std::string name;
  engine::text::Value arguments;  // an object
};

// The calls as a model that knows the format would have written them.
std::string WriteCalls(ToolFormat format, const std::vector<WrittenCall>& calls);

// Sets the template's variables `messages` and `tools`. What the template does not show by itself
// (tools, calls, results of calls) is put into words: the tools into the system message, or the
// first one where the template has no system messages; calls into the assistant's text; results
// into messages of the user. Arguments and ids of calls get the form that the template wants.
void SetConversation(const ChatPrompt& prompt, const engine::text::ChatTemplate& chat_template,
                     const ChatSyntax& syntax, engine::text::Object* variables);

}  // namespace server
