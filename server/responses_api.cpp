#include "server/responses_api.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/param_reader.h"
#include "server/random_id.h"

namespace server {
namespace {

using scheduler::FinishReason;

// Members of the request that have no counterpart in a chat completion.
constexpr std::array<std::string_view, 20> kOwnMembers = {"input",
                                                          "instructions",
                                                          "max_output_tokens",
                                                          "text",
                                                          "truncation",
                                                          "previous_response_id",
                                                          "conversation",
                                                          "background",
                                                          "include",
                                                          "prompt",
                                                          "reasoning",
                                                          "store",
                                                          "max_tool_calls",
                                                          "metadata",
                                                          "tools",
                                                          "tool_choice",
                                                          "messages",
                                                          "max_tokens",
                                                          "max_completion_tokens",
                                                          "top_logprobs"};

ApiError NeedsState(std::string_view name) {
  return UnsupportedParameter(name, "Unsupported parameter: '" + std::string(name) +
                                        "' needs stored responses, and this server stores none; "
                                        "send the whole conversation as 'input'.");
}

// The text of `content`: a string, or parts of the types input_text and output_text.
Json ReadContent(const Json& content, const std::string& name) {
  if (content.is_string()) return content;
  if (!content.is_array()) {
    throw InvalidType(name, "a string or an array of content parts", TypeName(content));
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    ParamReader part(content[i], name + "[" + std::to_string(i) + "].");
    const auto type = part.String("type");
    if (!type) throw MissingParameter(part.Name("type"));
    if (*type != "input_text" && *type != "output_text" && *type != "text" && *type != "refusal") {
      throw UnsupportedParameter(
          part.Name("type"), "Content parts of type '" + *type + "' are not supported, only text.");
    }
    const char* const member = *type == "refusal" ? "refusal" : "text";
    const auto text = part.String(member);
    if (!text) throw MissingParameter(part.Name(member));
    parts.push_back({{"type", "text"}, {"text", *text}});
  }
  return parts;
}

void AppendItem(const Json& item, const std::string& name, Json* messages) {
  ParamReader reader(item, name + ".");
  const std::string type = reader.String("type").value_or("message");
  // The thoughts of earlier turns are not shown to the model again.
  if (type == "reasoning") return;
  if (type != "message") {
    throw UnsupportedParameter(reader.Name("type"), "Input items of type '" + type +
                                                        "' are not supported, only messages.");
  }
  const auto role = reader.String("role");
  if (!role) throw MissingParameter(reader.Name("role"));
  const Json* content = reader.Find("content");
  if (content == nullptr) throw MissingParameter(reader.Name("content"));
  Json message;
  message["role"] = *role;
  message["content"] = ReadContent(*content, reader.Name("content"));
  messages->push_back(std::move(message));
}

Json ReadMessages(ParamReader& reader) {
  Json messages = Json::array();
  if (const auto instructions = reader.String("instructions")) {
    messages.push_back({{"role", "system"}, {"content", *instructions}});
  }
  const Json* input = reader.Find("input");
  if (input == nullptr) throw MissingParameter("input");
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
    return messages;
  }
  if (!input->is_array()) {
    throw InvalidType("input", "a string or an array of input items", TypeName(*input));
  }
  for (size_t i = 0; i < input->size(); ++i) {
    AppendItem((*input)[i], "input[" + std::to_string(i) + "]", &messages);
  }
  return messages;
}

void RefuseWhatIsMissing(ParamReader& reader) {
  for (const char* name : {"previous_response_id", "conversation"}) {
    if (reader.Find(name) != nullptr) throw NeedsState(name);
  }
  // They have no effect, but a wrong type is a mistake all the same.
  reader.Bool("store");
  reader.Object("metadata");
  if (reader.Bool("background").value_or(false)) throw NeedsState("background");
  if (reader.Find("prompt") != nullptr) throw NeedsState("prompt");
  if (const Json* tools = reader.Array("tools"); tools != nullptr && !tools->empty()) {
    throw NotSupported("tools");
  }
  if (const Json* choice = reader.Find("tool_choice");
      choice != nullptr && *choice != "none" && *choice != "auto") {
    throw NotSupported("tool_choice");
  }
  if (reader.String("truncation").value_or("disabled") != "disabled") {
    throw NotSupported("truncation");
  }
  if (const Json* text = reader.Object("text")) {
    ParamReader inner(*text, "text.");
    if (const Json* format = inner.Object("format")) {
      ParamReader type(*format, "text.format.");
      if (type.String("type").value_or("text") != "text") throw NotSupported("text.format");
    }
  }
}

Json OrNull(const Json& body, const char* name) {
  const auto found = body.find(name);
  return found == body.end() ? Json(nullptr) : *found;
}

class ResponsesWriter : public AnswerWriter {
 public:
  ResponsesWriter(const ResponsesRequest& request, const GenerationJob& job)
      : id_("resp_" + RandomHex(32)), item_id_("msg_" + RandomHex(32)) {
    base_["id"] = id_;
    base_["object"] = "response";
    base_["created_at"] = static_cast<int64_t>(std::time(nullptr));
    base_["status"] = "in_progress";
    base_["background"] = false;
    base_["error"] = nullptr;
    base_["incomplete_details"] = nullptr;
    base_["instructions"] = request.instructions;
    base_["max_output_tokens"] = request.max_output_tokens;
    base_["model"] = job.model->name();
    base_["output"] = Json::array();
    base_["parallel_tool_calls"] = true;
    base_["previous_response_id"] = nullptr;
    base_["reasoning"] = {{"effort", nullptr}, {"summary", nullptr}};
    base_["store"] = false;
    base_["temperature"] = request.temperature.is_null() ? Json(1.0) : request.temperature;
    base_["text"] = {{"format", {{"type", "text"}}}};
    base_["tool_choice"] = "auto";
    base_["tools"] = Json::array();
    base_["top_p"] = request.top_p.is_null() ? Json(1.0) : request.top_p;
    base_["truncation"] = "disabled";
    base_["usage"] = nullptr;
    base_["user"] = nullptr;
    base_["metadata"] = request.metadata.is_null() ? Json::object() : request.metadata;
  }

  void Write(const Generation::Update& update) override {
    if (update.first) Begin();
    if (!update.delta.text.empty()) {
      text_ += update.delta.text;
      Json event = OfPart("response.output_text.delta");
      event["delta"] = update.delta.text;
      event["logprobs"] = Json::array();
      Send(std::move(event));
    }
    if (update.finish) reason_ = *update.finish;
  }

  void End(const Usage& usage) override {
    Json done = OfPart("response.output_text.done");
    done["text"] = text_;
    done["logprobs"] = Json::array();
    Send(std::move(done));
    Json part = OfPart("response.content_part.done");
    part["part"] = Part(text_);
    Send(std::move(part));
    Json item = OfItem("response.output_item.done");
    item["item"] = Item(Status(), text_);
    Send(std::move(item));
    Json last;
    last["type"] = "response." + Status();
    last["response"] = Finished(usage);
    Send(std::move(last));
  }

  void Fail(const ApiError& error) override {
    Json response = base_;
    response["status"] = "failed";
    response["error"] = {{"code", error.code().empty() ? "server_error" : error.code()},
                         {"message", error.what()}};
    Json event;
    event["type"] = "response.failed";
    event["response"] = std::move(response);
    Send(std::move(event));
  }

  Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
             const std::vector<const EchoedPrompt*>&) override {
    text_ = choices.front().text;
    reason_ = choices.front().reason;
    return Finished(usage);
  }

 private:
  void Begin() {
    for (const char* type : {"response.created", "response.in_progress"}) {
      Json event;
      event["type"] = type;
      event["response"] = base_;
      Send(std::move(event));
    }
    Json item = OfItem("response.output_item.added");
    item["item"] = Item("in_progress", std::nullopt);
    Send(std::move(item));
    Json part = OfPart("response.content_part.added");
    part["part"] = Part("");
    Send(std::move(part));
  }

  void Send(Json event) {
    event["sequence_number"] = sequence_++;
    sse_.Event(event["type"].get_ref<const std::string&>(), Dump(event));
  }

  Json OfItem(const char* type) const {
    Json event;
    event["type"] = type;
    event["output_index"] = 0;
    return event;
  }
  Json OfPart(const char* type) const {
    Json event = OfItem(type);
    event["item_id"] = item_id_;
    event["content_index"] = 0;
    return event;
  }
  static Json Part(const std::string& text) {
    return {{"type", "output_text"},
            {"annotations", Json::array()},
            {"logprobs", Json::array()},
            {"text", text}};
  }
  Json Item(const std::string& status, const std::optional<std::string>& text) const {
    Json item;
    item["id"] = item_id_;
    item["type"] = "message";
    item["status"] = status;
    item["role"] = "assistant";
    item["content"] = Json::array();
    if (text) item["content"].push_back(Part(*text));
    return item;
  }
  std::string Status() const {
    return reason_ == FinishReason::kLength ? "incomplete" : "completed";
  }
  Json Finished(const Usage& usage) const {
    Json response = base_;
    response["status"] = Status();
    if (reason_ == FinishReason::kLength) {
      response["incomplete_details"] = {{"reason", "max_output_tokens"}};
    }
    response["output"] = Json::array({Item(Status(), text_)});
    response["usage"] = {{"input_tokens", usage.prompt_tokens},
                         {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                         {"output_tokens", usage.completion_tokens},
                         {"output_tokens_details", {{"reasoning_tokens", 0}}},
                         {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    return response;
  }

  std::string id_;
  std::string item_id_;
  Json base_;  // the response as it is before it has an answer
  std::string text_;
  FinishReason reason_ = FinishReason::kStop;
  uint64_t sequence_ = 0;
};

}  // namespace

ResponsesRequest ParseResponsesRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  RefuseWhatIsMissing(reader);
  // The rest is checked as what it becomes.
  Json chat = Json::object();
  chat["messages"] = ReadMessages(reader);
  constexpr int64_t kUint32Max = std::numeric_limits<uint32_t>::max();
  if (const auto limit = reader.Integer("max_output_tokens", 1, kUint32Max)) {
    chat["max_tokens"] = *limit;
  }
  for (const auto& [name, value] : body.items()) {
    if (std::find(kOwnMembers.begin(), kOwnMembers.end(), name) == kOwnMembers.end()) {
      chat[name] = value;
    }
  }
  ResponsesRequest request;
  request.chat = ParseChatRequest(chat, options);
  request.instructions = OrNull(body, "instructions");
  request.max_output_tokens = OrNull(body, "max_output_tokens");
  request.temperature = OrNull(body, "temperature");
  request.top_p = OrNull(body, "top_p");
  request.metadata = OrNull(body, "metadata");
  if (request.chat.params.choices != 1) {
    throw InvalidValue("n", "Invalid value for 'n': a response has one answer.");
  }
  return request;
}

std::unique_ptr<AnswerWriter> MakeResponsesWriter(const ResponsesRequest& request,
                                                  const GenerationJob& job) {
  return std::make_unique<ResponsesWriter>(request, job);
}

}  // namespace server
