#include "server/responses_api.h"

#include <algorithm>
#include <array>
#include <ctime>
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
    const std::string type = part.RequiredString("type");
    if (type != "input_text" && type != "output_text" && type != "text" && type != "refusal") {
      throw UnsupportedParameter(
          part.Name("type"), "Content parts of type '" + type + "' are not supported, only text.");
    }
    const char* const member = type == "refusal" ? "refusal" : "text";
    const std::string text = part.RequiredString(member);
    parts.push_back({{"type", "text"}, {"text", text}});
  }
  return parts;
}

// Puts input items together to messages: thoughts, words and calls that follow each other are one
// message of the assistant.
class Conversation {
 public:
  void Add(const Json& item, const std::string& name) {
    ParamReader reader(item, name + ".");
    const std::string type = reader.String("type").value_or("message");
    if (type == "message") {
      AddMessage(reader);
    } else if (type == "reasoning") {
      AddReasoning(reader);
    } else if (type == "function_call") {
      AddCall(reader);
    } else if (type == "function_call_output") {
      AddOutput(reader);
    } else {
      throw UnsupportedParameter(reader.Name("type"),
                                 "Input items of type '" + type +
                                     "' are not supported, only messages, function calls, their "
                                     "outputs and reasoning.");
    }
  }
  void Push(Json message) { messages_.push_back(std::move(message)); }
  Json Take() {
    DropLoneReasoning();
    return std::move(messages_);
  }

 private:
  void AddMessage(ParamReader& reader) {
    const std::string role = reader.RequiredString("role");
    const Json* content = reader.Find("content");
    if (content == nullptr) throw MissingParameter(reader.Name("content"));
    Json text = ReadContent(*content, reader.Name("content"));
    if (role == "assistant" && waits_) {
      messages_.back()["content"] = std::move(text);
      waits_ = false;
      takes_calls_ = true;
      return;
    }
    DropLoneReasoning();
    messages_.push_back({{"role", role}, {"content", std::move(text)}});
    takes_calls_ = role == "assistant";
  }

  void AddReasoning(ParamReader& reader) {
    std::string text;
    const Json* parts = reader.Array("content");
    if (parts == nullptr || parts->empty()) parts = reader.Array("summary");
    for (size_t i = 0; parts != nullptr && i < parts->size(); ++i) {
      ParamReader part((*parts)[i], reader.Name("content") + "[" + std::to_string(i) + "].");
      text += part.String("text").value_or("");
    }
    if (text.empty()) return;
    DropLoneReasoning();
    messages_.push_back({{"role", "assistant"}, {"content", nullptr}, {"reasoning_content", text}});
    waits_ = takes_calls_ = true;
  }

  void AddCall(ParamReader& reader) {
    const std::string id = reader.RequiredString("call_id");
    const std::string name = reader.RequiredString("name");
    Json call = {{"id", id}, {"type", "function"}};
    call["function"] = {{"name", name}, {"arguments", reader.String("arguments").value_or("")}};
    if (!takes_calls_) {
      messages_.push_back({{"role", "assistant"}, {"content", nullptr}});
      takes_calls_ = true;
    }
    waits_ = false;
    messages_.back()["tool_calls"].push_back(std::move(call));
    call_ids_.insert(id);
  }

  void AddOutput(ParamReader& reader) {
    const std::string id = reader.RequiredString("call_id");
    if (!call_ids_.contains(id)) throw UnknownCall(reader.Name("call_id"), id);
    const Json* output = reader.Find("output");
    if (output == nullptr) throw MissingParameter(reader.Name("output"));
    DropLoneReasoning();
    takes_calls_ = false;
    messages_.push_back({{"role", "tool"},
                         {"tool_call_id", id},
                         {"content", ReadContent(*output, reader.Name("output"))}});
  }

  // Thoughts that led to nothing.
  void DropLoneReasoning() {
    if (std::exchange(waits_, false)) messages_.erase(messages_.size() - 1);
  }

  Json messages_ = Json::array();
  std::set<std::string> call_ids_;
  // The last message is the assistant's, and the next call belongs to it.
  bool takes_calls_ = false;
  bool waits_ = false;  // it has thoughts only
};

Json ReadMessages(ParamReader& reader) {
  Conversation conversation;
  if (const auto instructions = reader.String("instructions")) {
    conversation.Push({{"role", "system"}, {"content", *instructions}});
  }
  const Json* input = reader.Find("input");
  if (input == nullptr) throw MissingParameter("input");
  if (input->is_string()) {
    conversation.Push({{"role", "user"}, {"content", *input}});
    return conversation.Take();
  }
  if (!input->is_array()) {
    throw InvalidType("input", "a string or an array of input items", TypeName(*input));
  }
  for (size_t i = 0; i < input->size(); ++i) {
    conversation.Add((*input)[i], "input[" + std::to_string(i) + "]");
  }
  return conversation.Take();
}

// A limit of tokens that is not obeyed would be noticed late.
void RefuseNameOfChat(ParamReader& reader, std::string_view name, const std::string& here) {
  if (reader.Find(name) == nullptr) return;
  throw UnsupportedParameter(name, "Unsupported parameter: '" + std::string(name) +
                                       "' is called '" + here + "' in the Responses protocol.");
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
  RefuseNameOfChat(reader, "messages", "input");
  RefuseNameOfChat(reader, "max_tokens", "max_output_tokens");
  RefuseNameOfChat(reader, "max_completion_tokens", "max_output_tokens");
  if (reader.String("truncation").value_or("disabled") != "disabled") {
    throw NotSupported("truncation");
  }
}

// A function as chat completions have it: its members are one level deeper there.
Json NestFunction(const Json& flat, const std::string& name) {
  ParamReader reader(flat, name + ".");
  const std::string type = reader.RequiredString("type");
  if (type != "function") {
    throw UnsupportedParameter(reader.Name("type"),
                               "Tools of type '" + type + "' are not supported, only 'function'.");
  }
  reader.RequiredString("name");
  Json function = Json::object();
  for (const auto& [key, value] : flat.items()) {
    if (key != "type") function[key] = value;
  }
  Json nested = {{"type", "function"}};
  nested["function"] = std::move(function);
  return nested;
}

Json NestFunctions(const Json& list, const std::string& name) {
  Json nested = Json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    nested.push_back(NestFunction(list[i], name + "[" + std::to_string(i) + "]"));
  }
  return nested;
}

void ReadTools(ParamReader& reader, Json* chat) {
  if (const Json* tools = reader.Array("tools")) (*chat)["tools"] = NestFunctions(*tools, "tools");
  const Json* choice = reader.Find("tool_choice");
  if (choice == nullptr) return;
  if (!choice->is_object()) {
    (*chat)["tool_choice"] = *choice;
    return;
  }
  ParamReader inner(*choice, "tool_choice.");
  if (inner.String("type").value_or("") != "allowed_tools") {
    (*chat)["tool_choice"] = NestFunction(*choice, "tool_choice");
    return;
  }
  Json allowed = Json::object();
  if (const auto mode = inner.String("mode")) allowed["mode"] = *mode;
  if (const Json* tools = inner.Array("tools")) {
    allowed["tools"] = NestFunctions(*tools, "tool_choice.tools");
  }
  Json nested = {{"type", "allowed_tools"}};
  nested["allowed_tools"] = std::move(allowed);
  (*chat)["tool_choice"] = std::move(nested);
}

void AddTo(std::vector<std::string>* all, std::vector<std::string> more) {
  std::move(more.begin(), more.end(), std::back_inserter(*all));
}

// `text.format` is `response_format` with the schema's members beside the type.
void ReadFormat(ParamReader& reader, Json* chat) {
  const Json* text = reader.Object("text");
  if (text == nullptr) return;
  ParamReader inner(*text, "text.", &reader);
  const Json* format = inner.Object("format");
  if (format == nullptr) return;
  ParamReader details(*format, "text.format.", &inner);
  const std::string type = details.RequiredString("type");
  if (type != "text" && type != "json_object" && type != "json_schema") {
    throw NotSupported("text.format");
  }
  Json nested = {{"type", type}};
  if (type == "json_schema") {
    if (details.Find("schema") == nullptr) throw MissingParameter("text.format.schema");
    details.String("name");
    details.String("description");
    details.Bool("strict");
    nested["json_schema"] = {{"schema", (*format)["schema"]}};
  }
  (*chat)["response_format"] = std::move(nested);
}

void ReadReasoning(ParamReader& reader, Json* chat) {
  const Json* reasoning = reader.Object("reasoning");
  if (reasoning == nullptr) return;
  ParamReader inner(*reasoning, "reasoning.", &reader);
  if (const auto effort = inner.String("effort")) (*chat)["reasoning_effort"] = *effort;
}

// Log-probabilities are something to be included, and how many of them is said elsewhere.
void ReadLogprobs(ParamReader& reader, bool strict, Json* chat, std::vector<std::string>* ignored) {
  constexpr int64_t kMost = 20;
  const auto count = reader.Integer("top_logprobs", 0, kMost);
  const Json* include = reader.Array("include");
  bool wanted = false;
  std::vector<std::string> in_vain;
  for (size_t i = 0; include != nullptr && i < include->size(); ++i) {
    const std::string name = "include[" + std::to_string(i) + "]";
    if (!(*include)[i].is_string()) throw InvalidType(name, "a string", TypeName((*include)[i]));
    if ((*include)[i] == "message.output_text.logprobs") {
      wanted = true;
    } else {
      in_vain.push_back(name);
    }
  }
  if (wanted) {
    (*chat)["logprobs"] = true;
    (*chat)["top_logprobs"] = count.value_or(0);
  } else if (count.value_or(0) > 0) {
    in_vain.emplace_back("top_logprobs");
  }
  AddTo(ignored, CheckIgnored(std::move(in_vain), strict));
}

Json OrNull(const Json& body, const char* name) {
  const auto found = body.find(name);
  return found == body.end() ? Json(nullptr) : *found;
}

// Writes an answer as items: reasoning, messages and calls, each when the one before has ended.
class ResponsesWriter : public AnswerWriter {
 public:
  ResponsesWriter(const ResponsesRequest& request, const GenerationJob& job)
      : id_("resp_" + RandomHex(32)), tokenizer_(job.model->tokenizer()) {
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
    base_["parallel_tool_calls"] = request.parallel_tool_calls;
    base_["previous_response_id"] = nullptr;
    base_["reasoning"] = {{"effort", request.effort}, {"summary", nullptr}};
    base_["store"] = false;
    base_["temperature"] = request.temperature.is_null() ? Json(1.0) : request.temperature;
    base_["text"] = {{"format", request.format}};
    base_["tool_choice"] = request.tool_choice;
    base_["tools"] = request.tools;
    base_["top_logprobs"] = std::max(0, job.params.sampling.logprobs);
    base_["top_p"] = request.top_p.is_null() ? Json(1.0) : request.top_p;
    base_["truncation"] = "disabled";
    base_["usage"] = nullptr;
    base_["user"] = nullptr;
    base_["metadata"] = request.metadata.is_null() ? Json::object() : request.metadata;
  }

  void Write(const Generation::Update& update) override {
    if (update.first) Begin();
    for (const AnswerPart& part : update.parts) Add(part);
    if (update.finish) reason_ = *update.finish;
  }

  void End(const Usage& usage) override {
    Finish();
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
    reason_ = choices.front().reason;
    for (const AnswerPart& part : choices.front().parts) Add(part);
    Finish();
    return Finished(usage);
  }

 private:
  using Kind = AnswerPart::Kind;

  void Begin() {
    for (const char* type : {"response.created", "response.in_progress"}) {
      Json event;
      event["type"] = type;
      event["response"] = base_;
      Send(std::move(event));
    }
  }

  void Add(const AnswerPart& part) {
    if (part.kind == Kind::kCall) return Open(part);
    const bool goes_on = open_ && (part.kind == open_->kind ||
                                   (part.kind == Kind::kArguments && open_->kind == Kind::kCall));
    if (!goes_on) Open({.kind = part.kind, .text = {}, .call = 0, .id = {}});
    text_ += part.text;
    Json event;
    switch (part.kind) {
      case Kind::kContent:
        event = OfPart("response.output_text.delta");
        break;
      case Kind::kReasoning:
        event = OfPart("response.reasoning_text.delta");
        break;
      default:
        event = OfItem("response.function_call_arguments.delta");
        break;
    }
    event["delta"] = part.text;
    if (part.kind == Kind::kContent) {
      event["logprobs"] = LogprobsJson(part.tokens, tokenizer_);
      for (const Json& entry : event["logprobs"]) logprobs_.push_back(entry);
    }
    Send(std::move(event));
  }

  void Open(const AnswerPart& part) {
    Close("completed");
    open_ = part;
    text_.clear();
    logprobs_ = Json::array();
    const char* prefix = part.kind == Kind::kContent     ? "msg_"
                         : part.kind == Kind::kReasoning ? "rs_"
                                                         : "fc_";
    item_id_ = prefix + RandomHex(32);
    Json item;
    item["type"] = "response.output_item.added";
    item["output_index"] = items_.size();
    item["item"] = Item("in_progress", false);
    Send(std::move(item));
    if (part.kind == Kind::kCall) return;
    Json event = OfPart("response.content_part.added");
    event["part"] = Part("");
    Send(std::move(event));
  }

  // The item that is being written is over.
  void Close(const std::string& status) {
    if (!open_) return;
    if (open_->kind == Kind::kCall) {
      Json done = OfItem("response.function_call_arguments.done");
      done["name"] = open_->text;
      done["arguments"] = text_;
      Send(std::move(done));
    } else {
      const bool content = open_->kind == Kind::kContent;
      Json done = OfPart(content ? "response.output_text.done" : "response.reasoning_text.done");
      done["text"] = text_;
      if (content) done["logprobs"] = logprobs_;
      Send(std::move(done));
      Json part = OfPart("response.content_part.done");
      part["part"] = Part(text_);
      Send(std::move(part));
    }
    Json event;
    event["type"] = "response.output_item.done";
    event["output_index"] = items_.size();
    event["item"] = Item(status, true);
    items_.push_back(event["item"]);
    Send(std::move(event));
    open_.reset();
  }

  // An answer has at least one item.
  void Finish() {
    if (!open_ && items_.empty()) Open({});
    Close(Status());
  }

  void Send(Json event) {
    event["sequence_number"] = sequence_++;
    sse_.Event(event["type"].get_ref<const std::string&>(), Dump(event));
  }

  Json OfItem(const char* type) const {
    Json event;
    event["type"] = type;
    event["output_index"] = items_.size();
    event["item_id"] = item_id_;
    return event;
  }
  Json OfPart(const char* type) const {
    Json event = OfItem(type);
    event["content_index"] = 0;
    return event;
  }
  Json Part(const std::string& text) const {
    if (open_->kind == Kind::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return {{"type", "output_text"},
            {"annotations", Json::array()},
            {"logprobs", logprobs_},
            {"text", text}};
  }
  Json Item(const std::string& status, bool whole) const {
    Json item;
    item["id"] = item_id_;
    switch (open_->kind) {
      case Kind::kContent:
        item["type"] = "message";
        item["role"] = "assistant";
        break;
      case Kind::kReasoning:
        item["type"] = "reasoning";
        item["summary"] = Json::array();
        break;
      default:
        item["type"] = "function_call";
        item["call_id"] = open_->id;
        item["name"] = open_->text;
        item["arguments"] = text_;
        break;
    }
    item["status"] = status;
    if (open_->kind == Kind::kCall) return item;
    item["content"] = Json::array();
    if (whole) item["content"].push_back(Part(text_));
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
    response["output"] = items_;
    response["usage"] = {{"input_tokens", usage.prompt_tokens},
                         {"input_tokens_details",
                          {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
                         {"output_tokens", usage.completion_tokens},
                         {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
                         {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    return response;
  }

  std::string id_;
  const engine::text::Tokenizer& tokenizer_;
  Json base_;                       // the response as it is before it has an answer
  Json items_ = Json::array();      // that are over
  std::optional<AnswerPart> open_;  // what the current item is: its kind, and of a call name and id
  std::string item_id_;
  std::string text_;
  Json logprobs_ = Json::array();  // of text_, when asked for
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
  ReadTools(reader, &chat);
  std::vector<std::string> ignored =
      CheckWithoutEffect(reader, {"store", "max_tool_calls"}, options.strict);
  ReadLogprobs(reader, options.strict, &chat, &ignored);
  ReadFormat(reader, &chat);
  ReadReasoning(reader, &chat);
  AddTo(&ignored, CheckIgnored(reader.UnknownInside(), options.strict));
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
  request.chat = InWordsOf(kResponsesNames, [&] { return ParseChatRequest(chat, options); });
  RenameParams(kResponsesNames, request.chat.params.ignored);
  AddTo(&request.chat.params.ignored, std::move(ignored));
  request.instructions = OrNull(body, "instructions");
  request.max_output_tokens = OrNull(body, "max_output_tokens");
  request.temperature = OrNull(body, "temperature");
  request.top_p = OrNull(body, "top_p");
  request.metadata = OrNull(body, "metadata");
  const auto given = [&body](const char* name, Json otherwise) {
    Json value = OrNull(body, name);
    return value.is_null() ? otherwise : value;
  };
  request.tools = given("tools", Json::array());
  request.tool_choice = given("tool_choice", "auto");
  request.parallel_tool_calls = given("parallel_tool_calls", true);
  request.format = {{"type", "text"}};
  const Json text = given("text", Json::object());
  if (text.contains("format") && text["format"].is_object()) request.format = text["format"];
  const Json reasoning = given("reasoning", Json::object());
  if (reasoning.contains("effort")) request.effort = reasoning["effort"];
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
