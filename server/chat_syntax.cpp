#include "server/chat_syntax.h"

#include <algorithm>
#include <array>
#include <utility>

namespace server {
namespace {

constexpr std::array<std::pair<ToolFormat, std::string_view>, 11> kFormats = {
    {{ToolFormat::kJson, "json"},
     {ToolFormat::kHermes, "hermes"},
     {ToolFormat::kQwenXml, "qwen_xml"},
     {ToolFormat::kGlm, "glm"},
     {ToolFormat::kLlamaJson, "llama3_json"},
     {ToolFormat::kPythonic, "pythonic"},
     {ToolFormat::kMistral, "mistral"},
     {ToolFormat::kDeepSeek, "deepseek"},
     {ToolFormat::kGranite, "granite"},
     {ToolFormat::kApertus, "apertus"},
     {ToolFormat::kHarmony, "harmony"}}};

// Words that only the template of one format has; the first that is found decides.
constexpr std::array<std::pair<std::string_view, ToolFormat>, 15> kSigns = {
    {{"<|channel|>", ToolFormat::kHarmony},
     {"<|tools_prefix|>", ToolFormat::kApertus},
     {"[TOOL_CALLS]", ToolFormat::kMistral},
     {"<｜tool▁calls▁begin｜>", ToolFormat::kDeepSeek},
     {"<arg_key>", ToolFormat::kGlm},
     {"<function=", ToolFormat::kQwenXml},
     {"<tool_call>", ToolFormat::kHermes},
     {"<|tool_call|>", ToolFormat::kGranite},
     {"<|tool_call_start|>", ToolFormat::kPythonic},
     {"<|tool_list_start|>", ToolFormat::kPythonic},
     {"<|python_start|>", ToolFormat::kPythonic},
     {"[func_name1(", ToolFormat::kPythonic},
     {"<|python_tag|>", ToolFormat::kLlamaJson},
     {"\"parameters\": dictionary", ToolFormat::kLlamaJson},
     {"\"parameters\": {", ToolFormat::kLlamaJson}}};

bool Has(std::string_view text, std::string_view word) {
  return text.find(word) != std::string_view::npos;
}

bool IsWordByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// As a whole word, so that `tool_calls` is no `tool`.
bool HasWord(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !IsWordByte(text[at - 1])) && (end == text.size() || !IsWordByte(text[end]))) {
      return true;
    }
  }
  return false;
}

ToolFormat DetectFormat(std::string_view source, const std::string& wanted) {
  if (const auto named = FindToolFormat(wanted)) return *named;
  for (const auto& [sign, format] : kSigns) {
    if (Has(source, sign)) return format;
  }
  return ToolFormat::kJson;
}

ReasoningMarkers DetectReasoning(std::string_view source, const std::string& wanted) {
  if (wanted == "none") return {};
  if (Has(source, "<|channel|>")) return {"<|channel|>analysis<|message|>", "<|end|>"};
  if (Has(source, "<|inner_prefix|>")) return {"<|inner_prefix|>", "<|inner_suffix|>"};
  if (Has(source, "[THINK]")) return {"[THINK]", "[/THINK]"};
  if (Has(source, "<think>") || Has(source, "</think>")) return {"<think>", "</think>"};
  return {};
}

// The byte after spaces at `at`, or 0.
char After(std::string_view text, size_t at) {
  at = text.find_first_not_of(" \t\r\n", at);
  return at == std::string_view::npos ? '\0' : text[at];
}

// The byte before `end` that is none of the skipped ones, or 0.
char Before(std::string_view text, size_t end, std::string_view skipped) {
  const size_t at = text.substr(0, end).find_last_not_of(skipped);
  return at == std::string_view::npos ? '\0' : text[at];
}

// Ends of all places where the word stands.
std::vector<size_t> EndsOf(std::string_view text, std::string_view word) {
  std::vector<size_t> ends;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    ends.push_back(at + word.size());
  }
  return ends;
}

// Arguments that are joined to other text, and go through no filter anywhere, must be text.
bool JoinsArguments(std::string_view source) {
  constexpr std::string_view kWord = "arguments";
  constexpr std::string_view kPath =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.'\"[]";
  bool joined = false;
  for (const size_t end : EndsOf(source, kWord)) {
    const size_t past = source.find_first_not_of("'\"]", end);
    const char next = past == std::string_view::npos ? '\0' : After(source, past);
    if (next == '|') return false;
    const std::string_view path = source.substr(0, end);
    const size_t begin = path.find_last_not_of(kPath);
    const bool after_plus =
        begin != std::string_view::npos && Before(source, begin + 1, " \t\r\n") == '+';
    joined = joined || (after_plus && (next == '+' || next == '-' || next == '}'));
  }
  return joined;
}

// Whether any role of a message is printed between other text.
bool PrintsRole(std::string_view source) {
  for (const std::string_view name : {"message.role", "message['role']", "message[\"role\"]"}) {
    for (const size_t end : EndsOf(source, name)) {
      if (After(source, end) == '+' && Before(source, end - name.size(), " \t\r\n") == '+') {
        return true;
      }
    }
  }
  return false;
}

bool TellsNullContent(std::string_view source) {
  for (const size_t end : EndsOf(source, " is not none")) {
    const std::string_view before = source.substr(0, end - std::string_view(" is not none").size());
    const size_t last = before.find_last_not_of("'\"]");
    if (last != std::string_view::npos && before.substr(0, last + 1).ends_with("content")) {
      return true;
    }
  }
  return false;
}

TemplateSupport DetectSupport(const std::string& source) {
  TemplateSupport shows;
  shows.tools = HasWord(source, "tools");
  shows.tool_calls = HasWord(source, "tool_calls");
  // Templates that print whatever role a message has show this one, too.
  shows.tool_role =
      Has(source, "'tool'") || Has(source, "\"tool\"") || (shows.tools && PrintsRole(source));
  shows.text_arguments = JoinsArguments(source);
  shows.null_content = TellsNullContent(source);
  shows.descriptions = Has(source, ".description +");
  shows.one_call = Has(source, "single tool-calls at once") || Has(source, "tool_calls[0]");
  shows.short_call_ids = Has(source, "|length != 9");
  shows.reasoning_effort = HasWord(source, "reasoning_effort");
  shows.enable_thinking = HasWord(source, "enable_thinking");
  return shows;
}

// Control tokens named like a marker. A stop token ends the answer, so it is none.
std::vector<engine::TokenId> FindMarkerTokens(const ChatSyntax& syntax,
                                              const engine::text::Tokenizer& tokenizer) {
  std::vector<std::string> names = OpeningMarkers(syntax.tool_format);
  const auto add = [&names](const std::vector<std::string>& more) {
    names.insert(names.end(), more.begin(), more.end());
  };
  add(ClosingMarkers(syntax.tool_format));
  if (!syntax.reasoning.empty()) add({syntax.reasoning.open, syntax.reasoning.close});
  switch (syntax.tool_format) {
    case ToolFormat::kMistral:
      add({"[ARGS]", "[CALL_ID]"});
      break;
    case ToolFormat::kDeepSeek:
      add({"<｜tool▁sep｜>"});
      break;
    case ToolFormat::kHarmony:
      add({"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>"});
      break;
    default:
      break;
  }
  std::vector<engine::TokenId> tokens;
  for (const std::string& name : names) {
    const auto token = tokenizer.Find(name);
    if (token && tokenizer.kind(*token) == engine::text::TokenKind::kControl &&
        !tokenizer.IsStop(*token)) {
      tokens.push_back(*token);
    }
  }
  return tokens;
}

}  // namespace

std::string_view ToolFormatName(ToolFormat format) {
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [format](const auto& entry) { return entry.first == format; });
  return found->second;
}

std::optional<ToolFormat> FindToolFormat(std::string_view name) {
  for (const auto& [format, known] : kFormats) {
    if (known == name) return format;
  }
  return std::nullopt;
}

std::string ToolFormatNames() {
  std::string names;
  for (const auto& [format, name] : kFormats) {
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

ChatSyntax DetectChatSyntax(const engine::text::ChatTemplate* chat_template,
                            const engine::text::Tokenizer& tokenizer,
                            const ChatSyntaxOptions& options) {
  const std::string source = chat_template == nullptr ? std::string() : chat_template->source();
  ChatSyntax syntax;
  syntax.tool_format = DetectFormat(source, options.tool_parser);
  syntax.reasoning = DetectReasoning(source, options.reasoning_parser);
  syntax.shows = DetectSupport(source);
  if (syntax.tool_format == ToolFormat::kPythonic && tokenizer.Find("<|tool_call_start|>")) {
    syntax.call_open = "<|tool_call_start|>";
    syntax.call_close = "<|tool_call_end|>";
  }
  syntax.marker_tokens = FindMarkerTokens(syntax, tokenizer);
  return syntax;
}

std::vector<std::string> OpeningMarkers(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kQwenXml:
      // Models that learned the longer form leave out its first line now and then.
      return {"<tool_call>", "<function="};
    case ToolFormat::kGlm:
      return {"<tool_call>"};
    case ToolFormat::kLlamaJson:
      return {"<|python_tag|>"};
    case ToolFormat::kPythonic:
      return {"<|tool_call_start|>", "<|python_start|>"};
    case ToolFormat::kMistral:
      return {"[TOOL_CALLS]"};
    case ToolFormat::kDeepSeek:
      return {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"};
    case ToolFormat::kGranite:
      return {"<|tool_call|>", "<tool_call>"};
    case ToolFormat::kApertus:
      return {"<|tools_prefix|>"};
    default:
      return {};
  }
}

std::vector<std::string> ClosingMarkers(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kQwenXml:
    case ToolFormat::kGlm:
      return {"</tool_call>"};
    case ToolFormat::kPythonic:
      return {"<|tool_call_end|>", "<|python_end|>"};
    case ToolFormat::kDeepSeek:
      return {"<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"};
    case ToolFormat::kApertus:
      return {"<|tools_suffix|>"};
    default:
      return {};
  }
}

}  // namespace server
