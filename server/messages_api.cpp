#include "server/messages_api.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/param_reader.h"
#include "server/random_id.h"

namespace server {
namespace {

using scheduler::FinishReason;

constexpr std::array<std::string_view, 14> kOwnMembers = {
    "messages", "system",   "max_tokens", "stop_sequences", "tools", "tool_choice",
    "thinking", "metadata", "container",  "mcp_servers",    "betas", "service_tier",
    "stop",     "n"};

// A string, or blocks of text. What the model thought in earlier turns is not shown to it again.
Json ReadContent(const Json& content, const std::string& name) {
  if (content.is_string()) return content;
  if (!content.is_array()) {
    throw InvalidType(name, "a string or an array of content blocks", TypeName(content));
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    ParamReader block(content[i], name + "[" + std::to_string(i) + "].");
    const auto type = block.String("type");
    if (!type) throw MissingParameter(block.Name("type"));
    if (*type == "thinking" || *type == "redacted_thinking") continue;
    if (*type != "text") {
      throw UnsupportedParameter(block.Name("type"), "Content blocks of type '" + *type +
                                                         "' are not supported, only 'text'.");
    }
    const auto text = block.String("text");
    if (!text) throw MissingParameter(block.Name("text"));
    parts.push_back({{"type", "text"}, {"text", *text}});
  }
  return parts;
}

Json ReadMessages(ParamReader& reader) {
  Json messages = Json::array();
  if (const Json* system = reader.Find("system")) {
    messages.push_back({{"role", "system"}, {"content", ReadContent(*system, "system")}});
  }
  const Json* list = reader.Array("messages");
  if (list == nullptr) throw MissingParameter("messages");
  if (list->empty()) {
    throw InvalidValue("messages", "Invalid value for 'messages': expected at least one message.");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    ParamReader message((*list)[i], "messages[" + std::to_string(i) + "].");
    const auto role = message.String("role");
    if (!role) throw MissingParameter(message.Name("role"));
    if (*role != "user" && *role != "assistant") {
      throw InvalidValue(message.Name("role"), "Invalid value for '" + message.Name("role") +
                                                   "': expected 'user' or 'assistant'.");
    }
    const Json* content = message.Find("content");
    if (content == nullptr) throw MissingParameter(message.Name("content"));
    Json plain;
    plain["role"] = *role;
    plain["content"] = ReadContent(*content, message.Name("content"));
    messages.push_back(std::move(plain));
  }
  return messages;
}

void RefuseWhatIsMissing(ParamReader& reader) {
  reader.Object("metadata");
  for (const char* name : {"tools", "mcp_servers"}) {
    const Json* list = reader.Array(name);
    if (list != nullptr && !list->empty()) throw NotSupported(name);
  }
  if (reader.Find("container") != nullptr) throw NotSupported("container");
  if (const Json* thinking = reader.Object("thinking")) {
    ParamReader inner(*thinking, "thinking.");
    if (inner.String("type").value_or("") != "disabled") throw NotSupported("thinking");
  }
}

std::string ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

Json ErrorJson(const ApiError& error) {
  Json json;
  json["type"] = "error";
  json["error"] = {{"type", ErrorType(error.status())}, {"message", error.what()}};
  return json;
}

class MessagesWriter : public AnswerWriter {
 public:
  explicit MessagesWriter(const GenerationJob& job) {
    base_["id"] = "msg_" + RandomHex(24);
    base_["type"] = "message";
    base_["role"] = "assistant";
    base_["model"] = job.model->name();
    base_["content"] = Json::array();
    base_["stop_reason"] = nullptr;
    base_["stop_sequence"] = nullptr;
    Usage usage;
    for (const auto& prompt : job.prompts) usage.prompt_tokens += prompt.size();
    base_["usage"] = UsageJson(usage);
  }

  void Write(const Generation::Update& update) override {
    if (update.first) Begin();
    if (!update.delta.text.empty()) {
      Json event = OfBlock("content_block_delta");
      event["delta"] = {{"type", "text_delta"}, {"text", update.delta.text}};
      Send(event);
    }
    if (!update.finish) return;
    reason_ = *update.finish;
    stop_string_ = update.stop_string;
  }

  void End(const Usage& usage) override {
    Send(OfBlock("content_block_stop"));
    Json delta;
    delta["type"] = "message_delta";
    delta["delta"] = {{"stop_reason", StopReason()}, {"stop_sequence", StopSequence()}};
    delta["usage"] = UsageJson(usage);
    Send(delta);
    Send({{"type", "message_stop"}});
  }

  void Fail(const ApiError& error) override { Send(ErrorJson(error)); }

  Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
             const std::vector<const EchoedPrompt*>&) override {
    reason_ = choices.front().reason;
    stop_string_ = choices.front().stop_string;
    Json message = base_;
    Json block;
    block["type"] = "text";
    block["text"] = choices.front().text;
    message["content"].push_back(std::move(block));
    message["stop_reason"] = StopReason();
    message["stop_sequence"] = StopSequence();
    message["usage"] = UsageJson(usage);
    return message;
  }

 private:
  void Begin() {
    Json start;
    start["type"] = "message_start";
    start["message"] = base_;
    Send(start);
    Json block = OfBlock("content_block_start");
    block["content_block"] = {{"type", "text"}, {"text", ""}};
    Send(block);
  }
  void Send(const Json& event) {
    sse_.Event(event["type"].get_ref<const std::string&>(), Dump(event));
  }
  static Json OfBlock(const char* type) { return {{"type", type}, {"index", 0}}; }
  std::string StopReason() const {
    if (reason_ == FinishReason::kLength) return "max_tokens";
    return stop_string_.empty() ? "end_turn" : "stop_sequence";
  }
  Json StopSequence() const { return stop_string_.empty() ? Json(nullptr) : Json(stop_string_); }
  // Tokens that came from the prefix cache are told apart, as Anthropic does.
  static Json UsageJson(const Usage& usage) {
    return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", usage.cached_tokens},
            {"output_tokens", usage.completion_tokens}};
  }

  Json base_;  // the message as it is before it has an answer
  FinishReason reason_ = FinishReason::kStop;
  std::string stop_string_;
};

}  // namespace

ChatRequest ParseMessagesRequest(const Json& body, const SchemaOptions& options, bool counting) {
  ParamReader reader(body);
  RefuseWhatIsMissing(reader);
  // The rest is checked as what it becomes.
  Json chat = Json::object();
  chat["messages"] = ReadMessages(reader);
  constexpr int64_t kUint32Max = std::numeric_limits<uint32_t>::max();
  const auto limit = reader.Integer("max_tokens", 1, kUint32Max);
  if (!limit && !counting) throw MissingParameter("max_tokens");
  if (limit) chat["max_tokens"] = *limit;
  if (const Json* stop = reader.Array("stop_sequences")) chat["stop"] = *stop;
  // A conversation that ends with the assistant's words is continued.
  const bool continues = chat["messages"].back()["role"] == "assistant";
  if (continues) chat["continue_final_message"] = true;
  for (const auto& [name, value] : body.items()) {
    if (std::find(kOwnMembers.begin(), kOwnMembers.end(), name) == kOwnMembers.end()) {
      chat[name] = value;
    }
  }
  return ParseChatRequest(chat, options);
}

std::unique_ptr<AnswerWriter> MakeMessagesWriter(const GenerationJob& job) {
  return std::make_unique<MessagesWriter>(job);
}

HttpResponse MessagesErrorResponse(const ApiError& error, const std::string& request_id) {
  HttpResponse response = ErrorResponse(error);
  Json json = ErrorJson(error);
  json["request_id"] = request_id;
  response.body = Dump(json);
  return response;
}

}  // namespace server
