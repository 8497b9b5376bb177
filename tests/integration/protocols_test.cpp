// The Responses and Messages protocols say the same as chat completions do, in their own words, and
// refuse what they cannot honour.
#include <gmock/gmock.h>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The events of a stream with `event:` lines: name and data.
std::vector<std::pair<std::string, json>> Events(const std::string& body) {
  std::vector<std::pair<std::string, json>> events;
  for (size_t begin = 0; begin < body.size();) {
    const size_t end = body.find("\n\n", begin);
    const std::string frame = body.substr(begin, end - begin);
    begin = end == std::string::npos ? body.size() : end + 2;
    const size_t line = frame.find('\n');
    if (!frame.starts_with("event: ") || line == std::string::npos) {
      ADD_FAILURE() << "no event: " << frame;
      continue;
    }
    events.emplace_back(frame.substr(7, line - 7), json::parse(frame.substr(line + 7)));
    EXPECT_EQ(events.back().first, events.back().second["type"]);
  }
  return events;
}

std::vector<std::string> Names(const std::vector<std::pair<std::string, json>>& events) {
  std::vector<std::string> names;
  for (const auto& [name, data] : events) {
    // Any number of deltas counts as one.
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

class Protocols : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { app_ = std::make_unique<TestApp>(); }
  static void TearDownTestSuite() { app_.reset(); }
  static TestApp& app() { return *app_; }

  static json ResponsesBody(int max_tokens = 24) {
    return {
        {"input", "Do you like movies?"}, {"max_output_tokens", max_tokens}, {"temperature", 0}};
  }
  static json MessagesBody(int max_tokens = 24) {
    return {{"messages", {{{"role", "user"}, {"content", "Do you like movies?"}}}},
            {"max_tokens", max_tokens},
            {"temperature", 0}};
  }
  // What chat completions answer to the same question.
  static std::string Expected() {
    return app().PostOk("/v1/chat/completions",
                        ChatBody("Do you like movies?"))["choices"][0]["message"]["content"];
  }
  static json Error(const std::string& path, const json& body) {
    const auto response = app().Post(path, body);
    EXPECT_EQ(response.status, 400) << response.body;
    return json::parse(response.body)["error"];
  }

 private:
  static std::unique_ptr<TestApp> app_;
};

std::unique_ptr<TestApp> Protocols::app_;

TEST_F(Protocols, ResponseHoldsTheAnswer) {
  const json response = app().PostOk("/v1/responses", ResponsesBody());
  EXPECT_EQ(response["object"], "response");
  EXPECT_EQ(response["status"], "completed");
  EXPECT_EQ(response["output"][0]["content"][0]["text"], Expected());
  EXPECT_EQ(
      response["usage"]["total_tokens"].get<int>(),
      response["usage"]["input_tokens"].get<int>() + response["usage"]["output_tokens"].get<int>());
  const json cut = app().PostOk("/v1/responses", ResponsesBody(2));
  EXPECT_EQ(cut["status"], "incomplete");
  EXPECT_EQ(cut["incomplete_details"]["reason"], "max_output_tokens");
}

TEST_F(Protocols, ResponseStreamHasEveryEventInOrder) {
  json body = ResponsesBody();
  body["stream"] = true;
  const auto events = Events(app().Post("/v1/responses", body).body);
  EXPECT_THAT(Names(events),
              ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                          "response.content_part.added", "response.output_text.delta",
                          "response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.completed"));
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].second["sequence_number"], i);
    text += events[i].second.value("delta", "");
  }
  EXPECT_EQ(text, Expected());
  EXPECT_EQ(events.back().second["response"]["output"][0]["content"][0]["text"], text);
}

// Joined, the tokens of the log-probabilities are the text, and they are those of a chat
// completion.
TEST_F(Protocols, ResponseHasTheLogprobsThatAreIncluded) {
  json body = ResponsesBody();
  EXPECT_EQ(app().PostOk("/v1/responses", body)["output"][0]["content"][0]["logprobs"],
            json::array());
  body["include"] = {"message.output_text.logprobs"};
  EXPECT_EQ(app().PostOk("/v1/responses", body)["top_logprobs"], 0);
  body["top_logprobs"] = 3;
  const json response = app().PostOk("/v1/responses", body);
  EXPECT_EQ(response["top_logprobs"], 3);
  const json part = response["output"][0]["content"][0];
  json same = MessagesBody();
  same["logprobs"] = true;
  same["top_logprobs"] = 3;
  const json chat = app().PostOk("/v1/chat/completions", same);
  EXPECT_EQ(part["logprobs"], chat["choices"][0]["logprobs"]["content"]);
  std::string joined;
  for (const json& token : part["logprobs"]) {
    joined += token["token"].get<std::string>();
    EXPECT_EQ(token["top_logprobs"].size(), 3U);
    EXPECT_LE(token["logprob"], token["top_logprobs"][0]["logprob"]);
  }
  EXPECT_THAT(joined, HasSubstr(part["text"].get<std::string>()));

  body["stream"] = true;
  json streamed = json::array();
  for (const auto& [name, event] : Events(app().Post("/v1/responses", body).body)) {
    if (name == "response.output_text.delta") {
      for (const json& token : event["logprobs"]) streamed.push_back(token);
    } else if (name == "response.output_text.done") {
      EXPECT_EQ(event["logprobs"], part["logprobs"]);
    } else if (name == "response.content_part.added") {
      EXPECT_EQ(event["part"]["logprobs"], json::array());
    } else if (name == "response.content_part.done") {
      EXPECT_EQ(event["part"], part);
    }
  }
  EXPECT_EQ(streamed, part["logprobs"]);
  body["top_logprobs"] = 21;
  EXPECT_EQ(Error("/v1/responses", body)["param"], "top_logprobs");
  body["top_logprobs"] = 1;
  body["include"] = {7};
  EXPECT_EQ(Error("/v1/responses", body)["param"], "include[0]");
}

TEST_F(Protocols, ResponseTakesConversationsAndInstructions) {
  json body = ResponsesBody();
  body["instructions"] = "Be kind.";
  body["input"] = {
      {{"role", "user"}, {"content", "Hi"}},
      {{"type", "message"},
       {"role", "assistant"},
       {"content", {{{"type", "output_text"}, {"text", "Hello."}}}}},
      {{"type", "reasoning"}, {"summary", json::array()}},
      {{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "Movies?"}}}}}};
  const json response = app().PostOk("/v1/responses", body);
  const json chat =
      app().PostOk("/v1/chat/completions", {{"messages",
                                             {{{"role", "system"}, {"content", "Be kind."}},
                                              {{"role", "user"}, {"content", "Hi"}},
                                              {{"role", "assistant"}, {"content", "Hello."}},
                                              {{"role", "user"}, {"content", "Movies?"}}}},
                                            {"max_tokens", 24},
                                            {"temperature", 0}});
  EXPECT_EQ(response["output"][0]["content"][0]["text"], chat["choices"][0]["message"]["content"]);
  EXPECT_EQ(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
}

TEST_F(Protocols, ResponseRefusesWhatNeedsStateOrIsMissing) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, json>>{{"previous_response_id", "resp_1"},
                                                 {"background", true},
                                                 {"conversation", "c"},
                                                 {"tools", {{{"type", "web_search"}}}},
                                                 {"truncation", "auto"}}) {
    json body = ResponsesBody();
    body[name] = value;
    const json error = Error("/v1/responses", body);
    EXPECT_EQ(error["code"], "unsupported_parameter") << name;
    EXPECT_EQ(error["param"], name == "tools" ? "tools[0].type" : name);
  }
  EXPECT_EQ(Error("/v1/responses", json::object())["param"], "input");
  for (const char* name : {"messages", "max_tokens", "max_completion_tokens"}) {
    json body = ResponsesBody();
    body[name] = 5;
    const json error = Error("/v1/responses", body);
    EXPECT_EQ(error["param"], name);
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(" in the Responses protocol."));
  }
  EXPECT_EQ(Error("/v1/responses", {{"input", 5}})["code"], "invalid_type");
  EXPECT_EQ(Error("/v1/responses", {{"input", json::array()}})["param"], "input");
  EXPECT_EQ(Error("/v1/responses", {{"input", "x"}, {"temperature", 9}})["param"], "temperature");
}

TEST_F(Protocols, MessageHoldsTheAnswer) {
  const json message = app().PostOk("/v1/messages", MessagesBody());
  EXPECT_EQ(message["type"], "message");
  EXPECT_EQ(message["content"][0]["text"], Expected());
  EXPECT_EQ(message["stop_reason"], "end_turn");
  EXPECT_TRUE(message["stop_sequence"].is_null());
  EXPECT_EQ(app().PostOk("/v1/messages", MessagesBody(2))["stop_reason"], "max_tokens");
  const json count = app().PostOk("/v1/messages/count_tokens", MessagesBody());
  EXPECT_EQ(count["input_tokens"].get<int>(),
            message["usage"]["input_tokens"].get<int>() +
                message["usage"]["cache_read_input_tokens"].get<int>());
}

TEST_F(Protocols, MessageStreamHasEveryEventInOrder) {
  json body = MessagesBody();
  body["stream"] = true;
  const auto events = Events(app().Post("/v1/messages", body).body);
  EXPECT_THAT(Names(events),
              ElementsAre("message_start", "content_block_start", "content_block_delta",
                          "content_block_stop", "message_delta", "message_stop"));
  std::string text;
  for (const auto& [name, data] : events) {
    if (name == "content_block_delta") text += data["delta"]["text"].get<std::string>();
  }
  EXPECT_EQ(text, Expected());
}

TEST_F(Protocols, MessageNamesTheStopSequence) {
  json body = MessagesBody();
  body["stop_sequences"] = {"zebra", Expected().substr(3, 4)};
  const json message = app().PostOk("/v1/messages", body);
  EXPECT_EQ(message["stop_reason"], "stop_sequence");
  EXPECT_EQ(message["stop_sequence"], Expected().substr(3, 4));
}

TEST_F(Protocols, MessageErrorsHaveTheirOwnShape) {
  json body = MessagesBody();
  body.erase("max_tokens");
  const auto response = app().Post("/v1/messages", body);
  EXPECT_EQ(response.status, 400);
  const json error = json::parse(response.body);
  EXPECT_EQ(error["type"], "error");
  EXPECT_EQ(error["error"]["type"], "invalid_request_error");
  EXPECT_THAT(error["error"]["message"].get<std::string>(), HasSubstr("max_tokens"));
  EXPECT_EQ(error["request_id"], response.Header("x-request-id"));
  body = MessagesBody();
  body["model"] = "other";
  EXPECT_EQ(json::parse(app().Post("/v1/messages", body).body)["error"]["type"], "not_found_error");
}

TEST_F(Protocols, MessagesAreAnsweredWithoutVersionToo) {
  EXPECT_EQ(app().PostOk("/messages", MessagesBody())["content"],
            app().PostOk("/v1/messages", MessagesBody())["content"]);
  EXPECT_EQ(app().PostOk("/messages/count_tokens", MessagesBody()),
            app().PostOk("/v1/messages/count_tokens", MessagesBody()));
  json body = MessagesBody();
  body["max_tokens"] = 0;
  EXPECT_EQ(json::parse(app().Post("/messages", body).body)["error"]["type"],
            "invalid_request_error");
}

TEST_F(Protocols, PropsSayWhatIsServed) {
  const json props = json::parse(app().Get("/props").body);
  ASSERT_EQ(props["models"].size(), 1U);
  EXPECT_EQ(props["models"][0]["id"], "demo");
  EXPECT_EQ(props["models"][0]["context_length"], 1024);
  EXPECT_GT(props["models"][0]["kv_blocks"], 0);
  EXPECT_EQ(props["limits"]["max_json_depth"], 128);
}

TEST_F(Protocols, IgnoredParametersAreListedInAHeader) {
  json body = ChatBody("Hi", 2);
  body["temprature"] = 1;
  EXPECT_EQ(app().Post("/v1/chat/completions", body).Header("x-tern-ignored-parameters"),
            "temprature");
  body = {{"input", "Hi"},
          {"max_output_tokens", 2},
          {"include", {"reasoning.encrypted_content"}},
          {"top_logprobs", 2},
          {"max_tool_calls", 2},
          {"store", true},
          {"text", {{"verbosity", "low"}}},
          {"reasoning", {{"summary", "auto"}, {"effort", "low"}}}};
  EXPECT_EQ(app().Post("/v1/responses", body).Header("x-tern-ignored-parameters"),
            "store, max_tool_calls, include[0], top_logprobs, text.verbosity, reasoning.summary, "
            "reasoning.effort");
  body = MessagesBody(2);
  body["metadata"] = {{"user_id", "u"}};
  body["thinking"] = {{"type", "disabled"}, {"budget_tokens", 1024}};
  // Another protocol's name for max_tokens does not rule out the one that is required.
  body["max_completion_tokens"] = 1;
  const auto message = app().Post("/v1/messages", body);
  EXPECT_EQ(message.Header("x-tern-ignored-parameters"),
            "metadata, max_completion_tokens, thinking.budget_tokens");
  EXPECT_EQ(json::parse(message.body)["usage"]["output_tokens"], 2) << message.body;
  // Its own name, not that of the chat completion which it would become.
  body = MessagesBody(2);
  body["stop"] = "x";
  EXPECT_EQ(app().Post("/v1/messages", body).Header("x-tern-ignored-parameters"), "stop");
  body = {{"messages", body["messages"]}, {"foo", 1}};
  EXPECT_EQ(app().Post("/v1/messages/count_tokens", body).Header("x-tern-ignored-parameters"),
            "foo");
  EXPECT_EQ(app().Post("/apply-template", body).Header("x-tern-ignored-parameters"), "foo");
  body = {{"content", "Hi"}, {"add_specal", true}};
  EXPECT_EQ(app().Post("/tokenize", body).Header("x-tern-ignored-parameters"), "add_specal");
  body = {{"tokens", {1}}, {"foo", 1}};
  EXPECT_EQ(app().Post("/detokenize", body).Header("x-tern-ignored-parameters"), "foo");
  EXPECT_EQ(
      app().Post("/v1/chat/completions", ChatBody("Hi", 2)).Header("x-tern-ignored-parameters"),
      "");
}

TEST_F(Protocols, EverySamplerAnswersAndIsReproducible) {
  for (const json& more : std::vector<json>{{{"typical_p", 0.5}},
                                            {{"top_n_sigma", 1}},
                                            {{"xtc_probability", 0.7}, {"xtc_threshold", 0.05}},
                                            {{"dry_multiplier", 1}, {"dry_allowed_length", 1}},
                                            {{"mirostat", 2}, {"mirostat_tau", 3}}}) {
    json body = ChatBody("Tell me a story", 40);
    body["temperature"] = 1;
    body["seed"] = 7;
    body.update(more);
    const auto first = app().PostOk("/v1/chat/completions", body)["choices"][0]["message"];
    const auto again = app().PostOk("/v1/chat/completions", body)["choices"][0]["message"];
    EXPECT_EQ(first, again) << more;
    EXPECT_FALSE(first["content"].get<std::string>().empty()) << more;
  }
}

}  // namespace
}  // namespace server
