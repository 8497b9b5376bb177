#include "server/tool_prompt.h"

#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "engine/text/grammar/json_grammar.h"
#include "server/api_error.h"
#include "server/json.h"
#include "server/tool_request.h"

namespace server {
namespace {

using engine::text::Array;
using engine::text::Object;
using engine::text::Value;
using engine::text::grammar::JsonText;

constexpr uint32_t kMaxArgumentsDepth = 128;

std::string StringOf(const Object& object, std::string_view key) {
  const Value* value = object.Find(key);
  const std::string* text = value == nullptr ? nullptr : value->as_string();
  return text == nullptr ? std::string() : *text;
}

// A copy with one member more, or changed.
Object With(const Object& object, std::string key, Value value) {
  Object copy = object;
  copy.Set(std::move(key), std::move(value));
  return copy;
}

Object Without(const Object& object, std::string_view key) {
  Object copy;
  for (const auto& [name, value] : object.items()) {
    if (name != key) copy.Set(name, value);
  }
  return copy;
}

std::string PythonText(const Value& value) {
  if (const bool* boolean = value.as_bool()) return *boolean ? "True" : "False";
  if (value.is_null()) return "None";
  std::string text;
  if (const Array* array = value.as_array()) {
    for (const Value& element : *array) text += (text.empty() ? "" : ", ") + PythonText(element);
    return "[" + text + "]";
  }
  if (const Object* object = value.as_object()) {
    for (const auto& [name, member] : object->items()) {
      text += (text.empty() ? "" : ", ") + JsonText(Value(name)) + ": " + PythonText(member);
    }
    return "{" + text + "}";
  }
  return JsonText(value);
}

// Text as it is, other values as JSON.
std::string PlainText(const Value& value) {
  const std::string* text = value.as_string();
  return text != nullptr ? *text : JsonText(value);
}

std::string NamedJson(const WrittenCall& call, const char* arguments) {
  return "{\"name\": " + JsonText(Value(call.name)) + ", \"" + arguments +
         "\": " + JsonText(call.arguments) + "}";
}

std::string WriteCall(ToolFormat format, const WrittenCall& call) {
  static const Object kNothing;
  const Object* object = call.arguments.as_object();
  const Object& arguments = object == nullptr ? kNothing : *object;
  std::string text;
  switch (format) {
    case ToolFormat::kHermes:
      return "<tool_call>\n" + NamedJson(call, "arguments") + "\n</tool_call>";
    case ToolFormat::kQwenXml:
      for (const auto& [name, value] : arguments.items()) {
        text += "<parameter=" + name + ">\n" + PlainText(value) + "\n</parameter>\n";
      }
      return "<tool_call>\n<function=" + call.name + ">\n" + text + "</function>\n</tool_call>";
    case ToolFormat::kGlm:
      for (const auto& [name, value] : arguments.items()) {
        text +=
            "<arg_key>" + name + "</arg_key>\n<arg_value>" + PlainText(value) + "</arg_value>\n";
      }
      return "<tool_call>" + call.name + "\n" + text + "</tool_call>";
    case ToolFormat::kPythonic:
      for (const auto& [name, value] : arguments.items()) {
        text += (text.empty() ? "" : ", ") + name + "=" + PythonText(value);
      }
      return call.name + "(" + text + ")";
    case ToolFormat::kDeepSeek:
      return "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + call.name + "\n```json\n" +
             JsonText(call.arguments) + "\n```<｜tool▁call▁end｜>";
    case ToolFormat::kApertus:
      return "{" + JsonText(Value(call.name)) + ": " + JsonText(call.arguments) + "}";
    case ToolFormat::kHarmony:
      return "<|channel|>commentary to=functions." + call.name + " <|constrain|>json<|message|>" +
             JsonText(call.arguments) + "<|call|>";
    case ToolFormat::kLlamaJson:
      return NamedJson(call, "parameters");
    default:
      return NamedJson(call, "arguments");
  }
}

// The tools, for a model whose template has no place for them.
std::string Instructions(const ToolRequest& tools, ToolFormat format) {
  Array definitions;
  for (const ToolFunction& function : tools.functions) {
    const Object* tool = function.definition.as_object();
    const Value* inner = tool == nullptr ? nullptr : tool->Find("function");
    definitions.push_back(inner == nullptr ? function.definition : *inner);
  }
  Object arguments;
  arguments.Set("argument", Value("value"));
  std::string text = "You can call these functions:\n" + JsonText(Value(std::move(definitions))) +
                     "\nTo call one, answer with nothing but\n" +
                     WriteCalls(format, {{"function_name", Value(std::move(arguments))}});
  if (tools.required()) text += "\nCall a function now.";
  return text;
}

// Reads a conversation and builds the one that the template sees.
class ConversationWriter {
 public:
  ConversationWriter(const ChatSyntax& syntax, const ToolRequest* tools, bool has_system_role)
      : syntax_(syntax), tools_(tools), has_system_role_(has_system_role) {}

  Array Write(const Array& messages) {
    for (const Value& message : messages) Add(*message.as_object());
    EndResults();
    if (tools_ != nullptr && tools_->offered() && !syntax_.shows.tools) AddInstructions();
    return std::move(messages_);
  }

 private:
  void Add(const Object& message) {
    const std::string role = StringOf(message, "role");
    if (role == "tool") return AddResult(message);
    EndResults();
    const Value* calls = message.Find("tool_calls");
    const Array* list = calls == nullptr ? nullptr : calls->as_array();
    if (role != "assistant" || list == nullptr) return Push(message);
    if (list->empty()) return Push(Without(message, "tool_calls"));
    AddCalls(message, *list);
  }

  void Push(Object message) { messages_.emplace_back(std::move(message)); }

  void AddCalls(const Object& message, const Array& list) {
    Array calls;
    std::vector<WrittenCall> written;
    for (const Value& call : list) {
      calls.emplace_back(Adapt(*call.as_object()));
      const Object& function = *call.as_object()->Find("function")->as_object();
      written.push_back({StringOf(function, "name"), ArgumentsOf(function)});
      names_[StringOf(*call.as_object(), "id")] = written.back().name;
    }
    const std::string content = StringOf(message, "content");
    if (!syntax_.shows.tool_calls) {
      const std::string text = WriteCalls(syntax_.tool_format, written);
      const std::string joined = content.empty() ? text : content + "\n" + text;
      return Push(With(Without(message, "tool_calls"), "content", Value(joined)));
    }
    Object shown = message;
    if (content.empty() && syntax_.shows.null_content) shown.Set("content", Value());
    if (!syntax_.shows.one_call || calls.size() == 1) {
      return Push(With(shown, "tool_calls", Value(std::move(calls))));
    }
    // A message per call; the results follow each its own.
    for (size_t i = 0; i < calls.size(); ++i) {
      const std::string id = StringOf(*list[i].as_object(), "id");
      Object one = With(shown, "tool_calls", Value(Array{calls[i]}));
      if (i > 0) one = With(Without(one, "reasoning_content"), "content", Value(""));
      split_.push_back({id, std::move(one), {}});
    }
  }

  // The call as the template wants it.
  Object Adapt(const Object& call) const {
    const Object& function = *call.Find("function")->as_object();
    Value arguments = ArgumentsOf(function);
    if (syntax_.shows.text_arguments) {
      const Value* given = function.Find("arguments");
      const bool text = given != nullptr && given->as_string() != nullptr;
      arguments = text ? *given : Value(JsonText(arguments));
    }
    Object adapted = call;
    adapted.Set("id", Value(CallId(StringOf(call, "id"))));
    adapted.Set("type", Value("function"));
    adapted.Set("function", Value(With(function, "arguments", std::move(arguments))));
    return adapted;
  }

  // The object that the arguments say; what is none is left as it is.
  static Value ArgumentsOf(const Object& function) {
    const Value* given = function.Find("arguments");
    if (given == nullptr) return Value(Object());
    const std::string* text = given->as_string();
    if (text == nullptr) return *given;
    if (text->find_first_not_of(" \t\r\n") == std::string::npos) return Value(Object());
    try {
      const Json json = ParseJson(*text, kMaxArgumentsDepth);
      return json.is_object() ? ToValue(json) : *given;
    } catch (const ApiError&) {
      return *given;  // the model wrote no JSON: it sees what it wrote
    }
  }

  // Mistral's templates take nine letters or digits. Equal ids stay equal.
  std::string CallId(const std::string& id) const {
    constexpr size_t kLength = 9;
    if (!syntax_.shows.short_call_ids || id.size() == kLength) return id;
    constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    std::string text;
    for (size_t i = 0; i < kLength; ++i, hash /= kDigits.size()) {
      text += kDigits[hash % kDigits.size()];
    }
    return text;
  }

  void AddResult(const Object& message) {
    const std::string id = StringOf(message, "tool_call_id");
    for (SplitCall& call : split_) {
      if (call.id != id || !call.results.empty()) continue;
      call.results.push_back(Result(message, id));
      return;
    }
    if (!split_.empty()) EndResults();
    if (syntax_.shows.tool_role) return Push(Result(message, id));
    if (!results_.empty()) results_ += "\n";
    results_ += "Result of " + (names_[id].empty() ? "the function" : names_[id]) + ":\n" +
                StringOf(message, "content");
  }

  Object Result(const Object& message, const std::string& id) {
    Object result = With(message, "tool_call_id", Value(CallId(id)));
    if (message.Find("name") == nullptr) result.Set("name", Value(names_[id]));
    return result;
  }

  // What has gathered while results came.
  void EndResults() {
    for (SplitCall& call : std::exchange(split_, {})) {
      Push(std::move(call.message));
      for (Object& result : call.results) Push(std::move(result));
    }
    if (results_.empty()) return;
    Object message;
    message.Set("role", Value("user"));
    message.Set("content", Value(std::exchange(results_, {})));
    Push(std::move(message));
  }

  void AddInstructions() {
    const std::string text = Instructions(*tools_, syntax_.tool_format);
    const std::string_view role = has_system_role_ ? "system" : "user";
    const Object* first = messages_.empty() ? nullptr : messages_.front().as_object();
    if (first != nullptr && StringOf(*first, "role") == role) {
      messages_.front() =
          Value(With(*first, "content", Value(text + "\n\n" + StringOf(*first, "content"))));
      return;
    }
    Object message;
    message.Set("role", Value(role));
    message.Set("content", Value(text));
    messages_.insert(messages_.begin(), Value(std::move(message)));
  }

  struct SplitCall {
    std::string id;
    Object message;
    std::vector<Object> results;
  };

  const ChatSyntax& syntax_;
  const ToolRequest* tools_;
  bool has_system_role_;
  Array messages_;
  std::map<std::string, std::string> names_;  // of functions, by the ids of their calls
  std::vector<SplitCall> split_;
  std::string results_;  // in words, for templates without the role
};

// The definition with what templates take for granted.
Value Completed(const ToolFunction& function, bool needs_description) {
  const Object& tool = *function.definition.as_object();
  Object inner = *tool.Find("function")->as_object();
  if (needs_description && StringOf(inner, "description").empty()) {
    inner.Set("description", Value(""));
  }
  const Value* parameters = inner.Find("parameters");
  if (parameters == nullptr || parameters->is_null()) {
    Object none;
    none.Set("type", Value("object"));
    none.Set("properties", Value(Object()));
    inner.Set("parameters", Value(std::move(none)));
  }
  return Value(With(tool, "function", Value(std::move(inner))));
}

}  // namespace

std::string WriteCalls(ToolFormat format, const std::vector<WrittenCall>& calls) {
  std::string before;
  std::string between = "\n";
  std::string after;
  switch (format) {
    case ToolFormat::kJson:
      if (calls.size() > 1) std::tie(before, between, after) = std::tuple("[", ", ", "]");
      break;
    case ToolFormat::kLlamaJson:
      between = "; ";
      break;
    case ToolFormat::kPythonic:
      std::tie(before, between, after) = std::tuple("[", ", ", "]");
      break;
    case ToolFormat::kMistral:
      std::tie(before, between, after) = std::tuple("[TOOL_CALLS][", ", ", "]");
      break;
    case ToolFormat::kGranite:
      std::tie(before, between, after) = std::tuple("<|tool_call|>[", ", ", "]");
      break;
    case ToolFormat::kApertus:
      std::tie(before, between, after) = std::tuple("<|tools_prefix|>[", ", ", "]<|tools_suffix|>");
      break;
    case ToolFormat::kDeepSeek:
      std::tie(before, after) = std::tuple("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>");
      break;
    case ToolFormat::kHarmony:
      between = "<|start|>assistant";
      break;
    default:
      break;
  }
  std::string text;
  for (const WrittenCall& call : calls) {
    text += (text.empty() ? before : between) + WriteCall(format, call);
  }
  return text + after;
}

void SetConversation(const ChatPrompt& prompt, const engine::text::ChatTemplate& chat_template,
                     const ChatSyntax& syntax, Object* variables) {
  const ToolRequest* tools = prompt.tools.get();
  const bool has_system_role =
      chat_template.source().find("ystem role not supported") == std::string::npos;
  variables->Set("messages",
                 Value(ConversationWriter(syntax, tools, has_system_role).Write(prompt.messages)));
  if (tools == nullptr || !tools->offered() || !syntax.shows.tools) return;
  Array definitions;
  for (const ToolFunction& function : tools->functions) {
    definitions.push_back(Completed(function, syntax.shows.descriptions));
  }
  variables->Set("tools", Value(std::move(definitions)));
}

}  // namespace server
