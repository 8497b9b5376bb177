#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "engine/token.h"

namespace server {

// How a model writes calls of functions.
enum class ToolFormat : uint8_t {
  kJson,     // {"name": "f", "arguments": {...}}, or an array of these, and nothing before
  kHermes,   // <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>
  kQwenXml,  // <tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>
  kGlm,      // <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>
  kLlamaJson,  // {"name": "f", "parameters": {...}}, also after <|python_tag|>
  kPythonic,   // [f(a=1), g()], also between <|tool_call_start|> and <|tool_call_end|>
  kMistral,    // [TOOL_CALLS][{"name": "f", "arguments": {...}}], also [TOOL_CALLS]f[ARGS]{...}
  kDeepSeek,  // <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{...}...
  kGranite,   // <|tool_call|>[{"name": "f", "arguments": {...}}]
  kApertus,   // <|tools_prefix|>[{"f": {...}}]<|tools_suffix|>
  kHarmony,   // <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
};

// "json", "hermes", "qwen_xml", ...; as the option --tool-parser names them.
std::string_view ToolFormatName(ToolFormat format);
std::optional<ToolFormat> FindToolFormat(std::string_view name);
// "json, hermes, ...".
std::string ToolFormatNames();

// What stands around a model's thoughts. Empty: it has none that can be told apart.
struct ReasoningMarkers {
  std::string open;
  std::string close;
  bool empty() const { return close.empty(); }
};

// What of a conversation with tools a chat template shows by itself. The rest is put into words
// that it does show.
struct TemplateSupport {
  bool tools = false;             // the variable `tools`
  bool tool_calls = false;        // of assistants' messages
  bool tool_role = false;         // messages of the role `tool`
  bool text_arguments = false;    // wants a call's arguments as JSON text, not as an object
  bool null_content = false;      // tells messages without content from empty ones
  bool descriptions = false;      // adds a tool's description to a string: it must have one
  bool one_call = false;          // shows one call per message
  bool short_call_ids = false;    // call ids must have nine letters or digits
  bool reasoning_effort = false;  // the variable `reasoning_effort`
  bool enable_thinking = false;   // the variable `enable_thinking`
};

// How a model's answers and prompts are written.
struct ChatSyntax {
  ToolFormat tool_format = ToolFormat::kJson;
  ReasoningMarkers reasoning;
  TemplateSupport shows;
  // What stands around pythonic calls; empty where the vocabulary has no such tokens.
  std::string call_open;
  std::string call_close;
  // Control tokens that are markers: shown to the parser, and part of grammars.
  std::vector<engine::TokenId> marker_tokens;
};

struct ChatSyntaxOptions {
  std::string tool_parser = "auto";       // or the name of a format
  std::string reasoning_parser = "auto";  // or "none": thoughts are content
};

// Reads it off the text of the template; nullptr: the model has none.
ChatSyntax DetectChatSyntax(const engine::text::ChatTemplate* chat_template,
                            const engine::text::Tokenizer& tokenizer,
                            const ChatSyntaxOptions& options);

// The texts that begin and end calls. Empty: calls stand at the start of the answer.
std::vector<std::string> OpeningMarkers(ToolFormat format);
std::vector<std::string> ClosingMarkers(ToolFormat format);

}  // namespace server
