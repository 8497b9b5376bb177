#include "server/messages_api.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "server/param_reader.h"
#include "server/random_id.h"
#include "server/shared_params.h"
#include "server/tool_request.h"

namespace server {
namespace {

using scheduler::FinishReason;

constexpr std::array<std::string_view, 15> kOwnMembers = {
    "messages",       "system",   "max_tokens",
    "stop_sequences", "tools",    "tool_choice",
    "thinking",       "metadata", "container",
    "mcp_servers",    "betas",    "service_tier",
    "stop",           "n",        "max_completion_tokens"};

// The text of blocks: a string, or blocks of text.
Json ReadText(const Json& content, const std::string& name) {
  if (content.is_string()) return content;
  if (!content.is_array()) {
    throw InvalidType(name, "a string or an array of content blocks", TypeName(content));
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    ParamReader block(content[i], name + "[" + std::to_string(i) + "].");
    const std::string type = block.RequiredString("type");
    if (type != "text") {
      throw UnsupportedParameter(block.Name("type"), "Content blocks of type '" + type +
                                                         "' are not supported here, only 'text'.");
    }
    const std::string text = block.RequiredString("text");
    parts.push_back({{"type", "text"}, {"text", text}});
  }
  return parts;
}

// One message's blocks as messages of a chat completion: results of calls come as messages of their
// own there.
class BlockReader {
 public:
  // call_ids: of all calls so far.
  BlockReader(std::string role, Json* messages, std::set<std::string>* call_ids)
      : role_(std::move(role)), messages_(*messages), call_ids_(*call_ids) {}

  void Read(const Json& content, const std::string& name) {
    if (content.is_array()) {
      for (size_t i = 0; i < content.size(); ++i) {
        AddBlock(content[i], name + "[" + std::to_string(i) + "].");
      }
    } else {
      text_ = ReadText(content, name);
    }
    const bool silent = text_.empty() && calls_.empty() && results_ > 0;
    if (!silent) Flush();
  }

 private:
  void AddBlock(const Json& json, const std::string& name) {
    ParamReader block(json, name);
    const std::string type = block.RequiredString("type");
    const bool assistant = role_ == "assistant";
    if (type == "text") {
      const std::string text = block.RequiredString("text");
      text_.push_back({{"type", "text"}, {"text", text}});
    } else if (type == "thinking" && assistant) {
      reasoning_ += block.String("thinking").value_or("");
    } else if (type == "redacted_thinking" && assistant) {
      return;
    } else if (type == "tool_use" && assistant) {
      AddCall(block);
    } else if (type == "tool_result" && !assistant) {
      AddResult(block);
    } else {
      throw UnsupportedParameter(block.Name("type"), "Content blocks of type '" + type +
                                                         "' are not supported in messages of the " +
                                                         role_ + ".");
    }
  }

  void AddCall(ParamReader& block) {
    const std::string id = block.RequiredString("id");
    const std::string function = block.RequiredString("name");
    const Json* input = block.Object("input");
    if (input == nullptr) throw MissingParameter(block.Name("input"));
    Json call = {{"id", id}, {"type", "function"}};
    call["function"] = {{"name", function}, {"arguments", Dump(*input)}};
    calls_.push_back(std::move(call));
    call_ids_.insert(id);
  }

  void AddResult(ParamReader& block) {
    const std::string id = block.RequiredString("tool_use_id");
    if (!call_ids_.contains(id)) throw UnknownCall(block.Name("tool_use_id"), id);
    const Json* content = block.Find("content");
    Json text = content == nullptr ? Json("") : ReadText(*content, block.Name("content"));
    if (block.Bool("is_error").value_or(false)) {
      Json parts = Json::array({{{"type", "text"}, {"text", "Error:"}}});
      if (text.is_string()) text = Json::array({{{"type", "text"}, {"text", text}}});
      parts.insert(parts.end(), text.begin(), text.end());
      text = std::move(parts);
    }
    if (!text_.empty()) Flush();
    ++results_;
    messages_.push_back({{"role", "tool"}, {"tool_call_id", id}, {"content", std::move(text)}});
  }

  void Flush() {
    Json message;
    message["role"] = role_;
    message["content"] = std::exchange(text_, Json::array());
    if (!reasoning_.empty()) message["reasoning_content"] = reasoning_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
    messages_.push_back(std::move(message));
  }

  std::string role_;
  Json& messages_;
  std::set<std::string>& call_ids_;
  Json text_ = Json::array();
  Json calls_ = Json::array();
  std::string reasoning_;
  size_t results_ = 0;
};

Json ReadMessages(ParamReader& reader) {
  Json messages = Json::array();
  if (const Json* system = reader.Find("system")) {
    messages.push_back({{"role", "system"}, {"content", ReadText(*system, "system")}});
  }
  const Json* list = reader.Array("messages");
  if (list == nullptr) throw MissingParameter("messages");
  std::set<std::string> call_ids;
  if (list->empty()) {
    throw InvalidValue("messages", "Invalid value for 'messages': expected at least one message.");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    ParamReader message((*list)[i], "messages[" + std::to_string(i) + "].");
    const std::string role = message.RequiredString("role");
    if (role != "user" && role != "assistant") {
      throw InvalidValue(message.Name("role"), "Invalid value for '" + message.Name("role") +
                                                   "': expected 'user' or 'assistant'.");
    }
    const Json* content = message.Find("content");
    if (content == nullptr) throw MissingParameter(message.Name("content"));
    BlockReader(role, &messages, &call_ids).Read(*content, message.Name("content"));
  }
  return messages;
}

void RefuseWhatIsMissing(ParamReader& reader) {
  const Json* servers = reader.Array("mcp_servers");
  if (servers != nullptr && !servers->empty()) throw NotSupported("mcp_servers");
  if (reader.Find("container") != nullptr) throw NotSupported("container");
}

Json ReadTool(const Json& tool, const std::string& name) {
  ParamReader reader(tool, name + ".");
  if (const auto type = reader.String("type"); type && *type != "custom") {
    throw UnsupportedParameter(reader.Name("type"),
                               "Tools of type '" + *type + "' are not supported, only your own.");
  }
  const std::string function = reader.RequiredString("name");
  const Json* schema = reader.Object("input_schema");
  if (schema == nullptr) throw MissingParameter(reader.Name("input_schema"));
  Json inner = {{"name", function}};
  if (const auto description = reader.String("description")) inner["description"] = *description;
  inner["parameters"] = *schema;
  if (const auto strict = reader.Bool("strict")) inner["strict"] = *strict;
  Json nested = {{"type", "function"}};
  nested["function"] = std::move(inner);
  return nested;
}

void ReadTools(ParamReader& reader, Json* chat) {
  if (const Json* tools = reader.Array("tools")) {
    (*chat)["tools"] = Json::array();
    for (size_t i = 0; i < tools->size(); ++i) {
      (*chat)["tools"].push_back(ReadTool((*tools)[i], "tools[" + std::to_string(i) + "]"));
    }
  }
  const Json* choice = reader.Object("tool_choice");
  if (choice == nullptr) return;
  ParamReader inner(*choice, "tool_choice.");
  const std::string type = inner.RequiredString("type");
  if (inner.Bool("disable_parallel_tool_use").value_or(false)) {
    (*chat)["parallel_tool_calls"] = false;
  }
  if (type == "auto" || type == "none") {
    (*chat)["tool_choice"] = type;
  } else if (type == "any") {
    (*chat)["tool_choice"] = "required";
  } else if (type == "tool") {
    const std::string name = inner.RequiredString("name");
    (*chat)["tool_choice"] = {{"type", "function"}, {"function", {{"name", name}}}};
  } else {
    throw InvalidValue("tool_choice.type",
                       "Invalid value for 'tool_choice.type': expected 'auto', 'any', 'tool' or "
                       "'none', but got '" +
                           type + "'.");
  }
}

// How much a model thinks is its own affair: budget_tokens has no effect.
void ReadThinking(ParamReader& reader, Json* chat) {
  const Json* thinking = reader.Object("thinking");
  if (thinking == nullptr) return;
  ParamReader inner(*thinking, "thinking.", &reader);
  const std::string type = inner.RequiredString("type");
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    throw InvalidValue("thinking.type",
                       "Invalid value for 'thinking.type': expected 'enabled', 'disabled' or "
                       "'adaptive', but got '" +
                           type + "'.");
  }
  if (type != "adaptive") (*chat)["enable_thinking"] = type == "enabled";
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

// The protocol has no member for the parameter's name: it is a part of the message.
Json ErrorJson(const ApiError& error) {
  std::string message = error.what();
  const bool named = error.param().empty() || message.find(error.param()) != std::string::npos;
  if (!named) message = error.param() + ": " + message;
  Json json;
  json["type"] = "error";
  json["error"] = {{"type", ErrorType(error.status())}, {"message", message}};
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
    if (update.first) {
      Json start;
      start["type"] = "message_start";
      start["message"] = base_;
      Send(start);
    }
    for (const AnswerPart& part : update.parts) Add(part);
    if (!update.finish) return;
    reason_ = *update.finish;
    stop_string_ = update.stop_string;
  }

  void End(const Usage& usage) override {
    Finish();
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
    for (const AnswerPart& part : choices.front().parts) Add(part);
    Finish();
    Json message = base_;
    message["content"] = blocks_;
    message["stop_reason"] = StopReason();
    message["stop_sequence"] = StopSequence();
    message["usage"] = UsageJson(usage);
    return message;
  }

 private:
  using Kind = AnswerPart::Kind;

  void Add(const AnswerPart& part) {
    if (part.kind == Kind::kCall) return Open(part);
    const bool goes_on = open_ && (part.kind == open_->kind ||
                                   (part.kind == Kind::kArguments && open_->kind == Kind::kCall));
    if (!goes_on) Open({.kind = part.kind, .text = {}, .call = 0, .id = {}});
    text_ += part.text;
    switch (part.kind) {
      case Kind::kContent:
        return SendDelta({{"type", "text_delta"}, {"text", part.text}});
      case Kind::kReasoning:
        return SendDelta({{"type", "thinking_delta"}, {"thinking", part.text}});
      default:
        return SendDelta({{"type", "input_json_delta"}, {"partial_json", part.text}});
    }
  }

  void Open(const AnswerPart& part) {
    Close();
    open_ = part;
    text_.clear();
    Json event = OfBlock("content_block_start");
    event["content_block"] = Block();
    Send(event);
  }

  void Close() {
    if (!open_) return;
    if (open_->kind == Kind::kReasoning) {
      SendDelta({{"type", "signature_delta"}, {"signature", kSignature}});
    }
    Send(OfBlock("content_block_stop"));
    blocks_.push_back(Block());
    open_.reset();
  }

  // An answer has at least one block.
  void Finish() {
    if (!open_ && blocks_.empty()) Open({});
    Close();
  }

  // The block with the text that has come.
  Json Block() const {
    switch (open_->kind) {
      case Kind::kContent:
        return {{"type", "text"}, {"text", text_}};
      case Kind::kReasoning:
        return {{"type", "thinking"},
                {"thinking", text_},
                {"signature", text_.empty() ? "" : kSignature}};
      default: {
        const std::string prefix = "call_";
        Json block = {{"type", "tool_use"}};
        block["id"] =
            open_->id.starts_with(prefix) ? "toolu_" + open_->id.substr(prefix.size()) : open_->id;
        block["name"] = open_->text;
        // What broke off is no object; the client sees what there is.
        Json input = Json::parse(text_, nullptr, false);
        if (!text_.empty() && !input.is_object()) input = {{"incomplete", text_}};
        block["input"] = text_.empty() ? Json::object() : std::move(input);
        return block;
      }
    }
  }

  void SendDelta(Json delta) {
    Json event = OfBlock("content_block_delta");
    event["delta"] = std::move(delta);
    Send(event);
  }
  void Send(const Json& event) {
    sse_.Event(event["type"].get_ref<const std::string&>(), Dump(event));
  }
  Json OfBlock(const char* type) const { return {{"type", type}, {"index", blocks_.size()}}; }
  std::string StopReason() const {
    if (reason_ == FinishReason::kLength) return "max_tokens";
    if (!stop_string_.empty()) return "stop_sequence";
    const bool calls = std::any_of(blocks_.begin(), blocks_.end(),
                                   [](const Json& block) { return block["type"] == "tool_use"; });
    return calls ? "tool_use" : "end_turn";
  }
  Json StopSequence() const { return stop_string_.empty() ? Json(nullptr) : Json(stop_string_); }
  // Tokens that came from the prefix cache are told apart, as Anthropic does.
  static Json UsageJson(const Usage& usage) {
    return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", usage.cached_tokens},
            {"output_tokens", usage.completion_tokens}};
  }

  // Clients send it back with the thoughts; nothing is checked by it.
  static constexpr const char* kSignature = "unsigned";

  Json base_;                       // the message as it is before it has an answer
  Json blocks_ = Json::array();     // that are over
  std::optional<AnswerPart> open_;  // what the current block is
  std::string text_;
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
  ReadTools(reader, &chat);
  reader.Object("metadata");
  std::vector<std::string> ignored = CheckWithoutEffect(
      reader, {"metadata", "service_tier", "betas", "stop", "n", "max_completion_tokens"},
      options.strict);
  ReadThinking(reader, &chat);
  for (std::string& name : CheckIgnored(reader.UnknownInside(), options.strict)) {
    ignored.push_back(std::move(name));
  }
  constexpr int64_t kUint32Max = std::numeric_limits<uint32_t>::max();
  const auto limit = reader.Integer("max_tokens", 1, kUint32Max);
  if (!limit && !counting) throw MissingParameter("max_tokens");
  if (limit) chat["max_tokens"] = *limit;
  if (const Json* stop = reader.Array("stop_sequences")) chat["stop"] = *stop;
  // A conversation that ends with the assistant's words is continued.
  const Json& last = chat["messages"].back();
  const bool continues = last["role"] == "assistant" && !last.contains("tool_calls");
  if (continues) chat["continue_final_message"] = true;
  for (const auto& [name, value] : body.items()) {
    if (std::find(kOwnMembers.begin(), kOwnMembers.end(), name) == kOwnMembers.end()) {
      chat[name] = value;
    }
  }
  ChatRequest request = InWordsOf(kMessagesNames, [&] { return ParseChatRequest(chat, options); });
  RenameParams(kMessagesNames, request.params.ignored);
  std::move(ignored.begin(), ignored.end(), std::back_inserter(request.params.ignored));
  return request;
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
