#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/value.h"
#include "server/api_error.h"
#include "server/json.h"
#include "server/param_reader.h"

namespace server {

// A function that the model may call.
struct ToolFunction {
  std::string name;                // 1..64 of a-z A-Z 0-9 _ -
  engine::text::Value parameters;  // a JSON Schema; null = no parameters
  engine::text::Value definition;  // {"type":"function","function":{...}}, as templates show it
  bool strict = false;             // the arguments shall satisfy the schema
  bool allowed = true;             // by tool_choice
  std::string param;               // "tools[0].function", for messages
};

// The tools of one request.
struct ToolRequest {
  enum class Choice { kNone, kAuto, kRequired };

  std::vector<ToolFunction> functions;
  Choice choice = Choice::kAuto;
  bool parallel = true;  // an answer may have several calls

  // The model knows of the tools.
  bool offered() const { return !functions.empty() && choice != Choice::kNone; }
  bool required() const { return offered() && choice == Choice::kRequired; }
  const ToolFunction* Find(std::string_view name) const;
};

// Reads `tools`, `tool_choice` (none, auto, required, a function, allowed_tools) and
// `parallel_tool_calls` of a chat completion.
//
// Errors: ApiError 400 naming the member.
ToolRequest ReadTools(ParamReader& reader);

// Checks what a message says of tools: `tool_calls` of an assistant's message, `tool_call_id` of a
// tool's. call_ids: of the calls so far; those of this message are added.
//
// Errors: ApiError 400 naming the member.
void CheckToolMessage(const Json& message, const std::string& name,
                      std::set<std::string>* call_ids);

// A result of a call that no earlier message has. name: of the parameter with its id.
ApiError UnknownCall(const std::string& name, const std::string& id);

// The schema of an argument that is text, and nothing else; nullptr for any other. References are
// followed.
const engine::text::Object* FindTextParameter(const engine::text::Value& parameters,
                                              std::string_view name);

}  // namespace server
