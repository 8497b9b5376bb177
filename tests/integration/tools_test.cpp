// Calls of functions and thoughts through the whole server, with the demo model at temperature 1:
// constrained calls satisfy their schemas in the format that is chosen, whole and streamed, in
// every protocol; what cannot be honoured is refused before anything runs.

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json Tools() {
  return json::parse(R"([
    {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather.",
      "parameters": {"type": "object", "properties": {
          "city": {"type": "string", "maxLength": 10},
          "days": {"type": "integer", "minimum": 1, "maximum": 9},
          "when": {"$ref": "#/$defs/when"}},
        "required": ["city", "days"], "additionalProperties": false,
        "$defs": {"when": {"enum": ["now", "soon"]}}}}},
    {"type": "function", "function": {"name": "stop"}}])");
}

json Body(int seed, const json& more) {
  json body = ChatBody("Weather?", 400);
  body["temperature"] = 1;
  body["seed"] = seed;
  body["tools"] = Tools();
  body.update(more);
  return body;
}

void ExpectArguments(const std::string& name, const std::string& text) {
  const json arguments = json::parse(text, nullptr, false);
  ASSERT_TRUE(arguments.is_object()) << text;
  if (name == "stop") {
    EXPECT_TRUE(arguments.empty()) << text;
    return;
  }
  EXPECT_EQ(name, "get_weather");
  EXPECT_TRUE(arguments["city"].is_string()) << text;
  EXPECT_GE(arguments["days"].get<int>(), 1) << text;
  EXPECT_LE(arguments["days"].get<int>(), 9) << text;
  if (arguments.contains("when")) {
    EXPECT_TRUE(arguments["when"] == "now" || arguments["when"] == "soon") << text;
  }
  EXPECT_LE(arguments.size(), 3U) << text;
}

// As the SDKs put a stream together: message and finish_reason of choice 0.
json Collected(const std::string& body) {
  const EventStream stream(body);
  EXPECT_TRUE(stream.done && stream.clean) << body;
  json choice = {{"content", ""}, {"reasoning_content", ""}, {"tool_calls", json::array()}};
  for (const json& chunk : stream.chunks) {
    for (const json& part : chunk["choices"]) {
      const json& delta = part["delta"];
      if (part["finish_reason"].is_string()) choice["finish_reason"] = part["finish_reason"];
      for (const char* key : {"content", "reasoning_content"}) {
        if (delta.contains(key)) {
          choice[key] = choice[key].get<std::string>() + delta[key].get<std::string>();
        }
      }
      if (!delta.contains("tool_calls")) continue;
      for (const json& call : delta["tool_calls"]) {
        const auto index = call["index"].get<size_t>();
        if (call.contains("id")) {
          EXPECT_EQ(index, choice["tool_calls"].size());
          EXPECT_EQ(call["type"], "function");
          EXPECT_EQ(call["function"]["arguments"], "");
          choice["tool_calls"].push_back(call);
        } else {
          auto& text = choice["tool_calls"][index]["function"]["arguments"];
          text = text.get<std::string>() + call["function"]["arguments"].get<std::string>();
        }
      }
    }
  }
  return choice;
}

class ToolFormats : public ::testing::TestWithParam<std::string> {};

// The demo model knows of no format: the grammar leads it, and the parser reads what comes.
TEST_P(ToolFormats, RequiredCallsSatisfyTheirSchemas) {
  TestAppOptions options;
  options.server.tool_parser = GetParam();
  const TestApp app(options);
  int calls = 0;
  for (int seed = 0; seed < 4; ++seed) {
    json body = Body(seed, {{"tool_choice", "required"}, {"parallel_tool_calls", seed % 2 == 0}});
    // Text without quotes has no bound there.
    const bool xml = GetParam() == "qwen_xml" || GetParam() == "glm";
    if (xml)
      body["tools"][0]["function"]["parameters"]["properties"]["city"] = {{"enum", {"Oslo"}}};
    const json choice = app.PostOk("/v1/chat/completions", body)["choices"][0];
    const json& message = choice["message"];
    EXPECT_EQ(message["content"], nullptr) << choice;
    const bool cut = choice["finish_reason"] == "length";
    EXPECT_TRUE(cut || choice["finish_reason"] == "tool_calls") << choice;
    ASSERT_GE(message["tool_calls"].size(), 1U) << choice;
    if (seed % 2 != 0) {
      EXPECT_EQ(message["tool_calls"].size(), 1U) << choice;
    }
    for (size_t i = 0; i + (cut ? 1 : 0) < message["tool_calls"].size(); ++i) {
      const json& function = message["tool_calls"][i]["function"];
      ExpectArguments(function["name"], function["arguments"]);
      ++calls;
    }
    body["stream"] = true;
    const json streamed = Collected(app.Post("/v1/chat/completions", body).body);
    EXPECT_EQ(streamed["content"], "");
    EXPECT_EQ(streamed["finish_reason"], choice["finish_reason"]);
    ASSERT_EQ(streamed["tool_calls"].size(), message["tool_calls"].size());
    for (size_t i = 0; i < message["tool_calls"].size(); ++i) {
      EXPECT_EQ(streamed["tool_calls"][i]["function"], message["tool_calls"][i]["function"]);
    }
  }
  EXPECT_GE(calls, 2);
}

INSTANTIATE_TEST_SUITE_P(All, ToolFormats,
                         ::testing::Values("json", "hermes", "qwen_xml", "glm", "llama3_json",
                                           "pythonic", "mistral", "deepseek", "granite", "apertus",
                                           "harmony"),
                         [](const auto& info) { return info.param; });

class ToolCalls : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { app_ = std::make_unique<TestApp>(); }
  static void TearDownTestSuite() { app_.reset(); }
  static TestApp& app() { return *app_; }

  static json Ask(const json& body) {
    return app().PostOk("/v1/chat/completions", body)["choices"][0];
  }
  // code, param and message; the same for a stream.
  static std::vector<std::string> Refusal(const std::string& path, json body) {
    std::vector<std::string> found;
    for (const bool stream : {false, true}) {
      body["stream"] = stream;
      const auto response = app().Post(path, body);
      EXPECT_EQ(response.status, 400) << response.body;
      const json error = json::parse(response.body)["error"];
      std::vector<std::string> words = {error.value("code", ""), error.value("param", ""),
                                        error["message"]};
      if (stream) {
        EXPECT_EQ(words, found);
      }
      found = words;
    }
    return found;
  }

 private:
  static std::unique_ptr<TestApp> app_;
};

std::unique_ptr<TestApp> ToolCalls::app_;

TEST_F(ToolCalls, NamedFunctionIsTheOneThatIsCalled) {
  const json choice = Ask(
      Body(1, {{"tool_choice", {{"type", "function"}, {"function", {{"name", "get_weather"}}}}}}));
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1U);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "get_weather");
  const json allowed =
      Ask(Body(1, {{"tool_choice",
                    {{"type", "allowed_tools"},
                     {"allowed_tools",
                      {{"mode", "required"},
                       {"tools", {{{"type", "function"}, {"function", {{"name", "stop"}}}}}}}}}}}));
  for (const json& call : allowed["message"]["tool_calls"]) {
    EXPECT_EQ(call["function"]["name"], "stop");
  }
}

TEST_F(ToolCalls, WhatIsCutShortBeforeItIsACallIsNotShown) {
  for (const int tokens : {1, 3, 6}) {
    json body = Body(1, {{"tool_choice", "required"}, {"max_tokens", tokens}});
    const json choice = Ask(body);
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(choice["message"]["content"], "") << choice;
    EXPECT_FALSE(choice["message"].contains("tool_calls"));
    body["stream"] = true;
    EXPECT_EQ(Collected(app().Post("/v1/chat/completions", body).body)["content"], "");
  }
}

TEST_F(ToolCalls, EachOfSeveralChoicesHasItsOwn) {
  const json answer = app().PostOk(
      "/v1/chat/completions",
      Body(3, {{"tool_choice", "required"}, {"parallel_tool_calls", false}, {"n", 4}}));
  std::set<std::string> ids;
  for (const json& choice : answer["choices"]) {
    const json& call = choice["message"]["tool_calls"][0];
    ExpectArguments(call["function"]["name"], call["function"]["arguments"]);
    ids.insert(call["id"]);
  }
  EXPECT_EQ(ids.size(), 4U);
}

TEST_F(ToolCalls, AutoAndNoneLeaveTheAnswerFree) {
  for (const char* choice : {"auto", "none"}) {
    const json answer = Ask(Body(1, {{"tool_choice", choice}, {"max_tokens", 20}}));
    EXPECT_FALSE(answer["message"].contains("tool_calls")) << answer;
    EXPECT_FALSE(answer["message"]["content"].get<std::string>().empty());
  }
}

TEST_F(ToolCalls, StrictToolsOfAutoAreWrittenAsTextOrAsValidCalls) {
  json tools = Tools();
  for (json& tool : tools) tool["function"]["strict"] = true;
  int texts = 0;
  for (int seed = 0; seed < 6; ++seed) {
    const json choice = Ask(Body(seed, {{"tools", tools}, {"max_tokens", 60}}));
    const json& message = choice["message"];
    texts += message.contains("tool_calls") ? 0 : 1;
    if (choice["finish_reason"] == "length" || !message.contains("tool_calls")) continue;
    for (const json& call : message["tool_calls"]) {
      ExpectArguments(call["function"]["name"], call["function"]["arguments"]);
    }
  }
  EXPECT_GT(texts, 0);
}

TEST_F(ToolCalls, ContentThatIsConstrainedStandsBesideCalls) {
  const json schema = {
      {"type", "object"}, {"properties", {{"ok", {{"type", "boolean"}}}}}, {"required", {"ok"}}};
  for (int seed = 0; seed < 4; ++seed) {
    const json choice = Ask(Body(
        seed, {{"parallel_tool_calls", false},
               {"response_format",
                {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"schema", schema}}}}}}));
    const json& message = choice["message"];
    if (message.contains("tool_calls")) continue;
    const json content = json::parse(message["content"].get<std::string>(), nullptr, false);
    EXPECT_TRUE(content.is_object() && content["ok"].is_boolean()) << choice;
  }
}

TEST_F(ToolCalls, ToolsAndTheirResultsAreInThePrompt) {
  const json conversation = json::parse(R"([
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Weather?"},
      {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
        "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\", \"days\": 2}"}}]},
      {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
      {"role": "user", "content": "Thanks."}])");
  const std::string prompt =
      app().PostOk("/apply-template", {{"messages", conversation}, {"tools", Tools()}})["prompt"];
  EXPECT_THAT(prompt, HasSubstr("\"name\":\"get_weather\""));
  EXPECT_THAT(prompt, HasSubstr("Be brief."));
  EXPECT_THAT(prompt,
              HasSubstr(R"({"name": "get_weather", "arguments": {"city":"Oslo","days":2}})"));
  EXPECT_THAT(prompt, HasSubstr("Result of get_weather:\nrain"));
}

TEST_F(ToolCalls, WhatIsWrongIsNamedBeforeAnythingRuns) {
  const auto chat = [&](const json& more) {
    return Refusal("/v1/chat/completions", Body(1, more));
  };
  json strict = Tools();
  strict[0]["function"]["strict"] = true;
  strict[0]["function"]["parameters"]["properties"]["city"] = {{"not", json::object()}};
  const auto schema = chat({{"tools", strict}});
  EXPECT_EQ(schema[0], "invalid_value");
  EXPECT_EQ(schema[1], "tools[0].function.parameters");
  EXPECT_THAT(schema[2], HasSubstr("'not'"));
  strict[0]["function"]["parameters"]["properties"]["city"] = false;
  const auto valueless = chat({{"tools", strict}, {"tool_choice", "auto"}});
  EXPECT_EQ(valueless[0], "invalid_value");
  EXPECT_EQ(valueless[1], "tools[0].function.parameters");
  EXPECT_EQ(chat({{"tool_choice", {{"type", "function"}, {"function", {{"name", "x"}}}}}})[1],
            "tool_choice.function.name");
  EXPECT_EQ(chat({{"tools", {{{"type", "function"}, {"function", {{"name", "a b"}}}}}}})[1],
            "tools[0].function.name");
  EXPECT_EQ(chat({{"tools", {Tools()[1], Tools()[1]}}})[1], "tools[1].function.name");
  json text = json::array({Tools()[0]});
  text[0]["function"]["parameters"] = {{"type", "string"}};
  EXPECT_EQ(chat({{"tools", text}})[1], "tools[0].function.parameters");
  EXPECT_EQ(chat({{"tools", json::array()}, {"tool_choice", "required"}})[1], "tool_choice");
  EXPECT_EQ(chat({{"tools", {{{"type", "custom"}, {"custom", {{"name", "x"}}}}}}})[0],
            "unsupported_parameter");
  const json lone = {{{"role", "user"}, {"content", "Hi"}},
                     {{"role", "tool"}, {"tool_call_id", "x"}, {"content", "1"}}};
  EXPECT_EQ(chat({{"messages", lone}})[1], "messages[1].tool_call_id");
}

// Each protocol has its own names for what is wrong.
TEST_F(ToolCalls, ErrorsSpeakTheProtocolOfTheirRequest) {
  const json schema = {{"type", "object"}, {"properties", {{"a", {{"not", json::object()}}}}}};
  json responses = {
      {"input", "Hi"},
      {"tools", {{{"type", "function"}, {"name", "f"}, {"strict", true}, {"parameters", schema}}}}};
  EXPECT_EQ(Refusal("/v1/responses", responses)[1], "tools[0].parameters");
  responses["tools"][0]["name"] = "a b";
  EXPECT_EQ(Refusal("/v1/responses", responses)[1], "tools[0].name");
  responses["tools"] = json::array();
  responses["input"] = {{{"role", "user"}, {"content", "Hi"}},
                        {{"type", "function_call_output"}, {"call_id", "x"}, {"output", "1"}}};
  EXPECT_EQ(Refusal("/v1/responses", responses)[1], "input[1].call_id");
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "movie ";
  responses["input"] = words;
  EXPECT_EQ(Refusal("/v1/responses", responses)[1], "input");

  json messages = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                   {"max_tokens", 2},
                   {"system", "Be brief."},
                   {"tools", {{{"name", "f"}, {"strict", true}, {"input_schema", schema}}}}};
  const auto message = [&] {
    const auto response = app().Post("/v1/messages", messages);
    EXPECT_EQ(response.status, 400) << response.body;
    return json::parse(response.body)["error"]["message"].get<std::string>();
  };
  EXPECT_THAT(message(), HasSubstr("'tools[0].input_schema'"));
  messages["tools"][0]["name"] = "a b";
  EXPECT_THAT(message(), HasSubstr("'tools[0].name'"));
  messages["tools"] = json::array();
  messages["messages"].push_back(
      {{"role", "user"},
       {"content", {{{"type", "tool_result"}, {"tool_use_id", "x"}, {"content", "1"}}}}});
  EXPECT_THAT(message(), HasSubstr("'messages[1].content[0].tool_use_id'"));
  messages["messages"][1]["content"][0]["type"] = "image";
  EXPECT_THAT(message(), HasSubstr("messages[1].content[0].type: Content blocks of type 'image'"));
}

// Such a call could not be told from text.
TEST(ToolNames, ThatTheFormatCannotWriteAreRefusedWhereTheyArePromised) {
  TestAppOptions options;
  options.server.tool_parser = "pythonic";
  const TestApp app(options);
  json body = Body(1, {{"tool_choice", "required"}, {"max_tokens", 8}});
  body["tools"][0]["function"]["parameters"]["properties"]["a b"] = {{"type", "integer"}};
  const auto refused = app.Post("/v1/chat/completions", body);
  EXPECT_EQ(refused.status, 400);
  const json error = json::parse(refused.body)["error"];
  EXPECT_EQ(error["param"], "tools[0].function.parameters");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("no argument can be named 'a b'"));
  body["tool_choice"] = "auto";
  app.PostOk("/v1/chat/completions", body);
}

// A schema that cannot be compiled is a reason to refuse only where the schema was promised.
TEST_F(ToolCalls, LooseSchemasThatCannotBeCompiledBecomeAnyObject) {
  json tools = json::array({Tools()[0]});
  tools[0]["function"]["parameters"]["properties"]["city"] = {{"not", json::object()}};
  const json body = Body(2, {{"tools", tools}, {"tool_choice", "required"}});
  const auto response = app().Post("/v1/chat/completions", body);
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.Header("x-tern-ignored-parameters"), "tools[0].function.parameters");
  const json choice = json::parse(response.body)["choices"][0];
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "get_weather");
}

TEST_F(ToolCalls, ResponsesAndMessagesTellTheSameCall) {
  json tools = json::array();
  json own = json::array();
  for (const json& tool : Tools()) {
    json flat = tool["function"];
    own.push_back({{"name", flat["name"]},
                   {"input_schema",
                    flat.contains("parameters") ? flat["parameters"] : json{{"type", "object"}}}});
    flat["type"] = "function";
    tools.push_back(flat);
  }
  const json response = app().PostOk("/v1/responses", {{"input", "Weather?"},
                                                       {"max_output_tokens", 300},
                                                       {"temperature", 0},
                                                       {"tools", tools},
                                                       {"tool_choice", "required"},
                                                       {"parallel_tool_calls", false}});
  ASSERT_EQ(response["output"].size(), 1U) << response;
  const json& item = response["output"][0];
  EXPECT_EQ(item["type"], "function_call");
  ExpectArguments(item["name"], item["arguments"]);
  EXPECT_EQ(response["tool_choice"], "required");
  EXPECT_EQ(response["tools"].size(), 2U);
  const json message = app().PostOk(
      "/v1/messages", {{"messages", {{{"role", "user"}, {"content", "Weather?"}}}},
                       {"max_tokens", 300},
                       {"temperature", 0},
                       {"tools", own},
                       {"tool_choice", {{"type", "any"}, {"disable_parallel_tool_use", true}}}});
  EXPECT_EQ(message["stop_reason"], "tool_use");
  ASSERT_EQ(message["content"].size(), 1U) << message;
  EXPECT_EQ(message["content"][0]["type"], "tool_use");
  ExpectArguments(message["content"][0]["name"], message["content"][0]["input"].dump());
}

// The demo model with a template whose prompt opens a section of thoughts.
class Thoughts : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::ifstream file(DemoModelPath(), std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), {});
    const std::string begin = "{{ bos_token }}{% for m in messages %}";
    const size_t at = bytes.find(begin);
    ASSERT_NE(at, std::string::npos);
    uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at - sizeof size, sizeof size);
    std::string text = begin +
                       "<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
                       "{% if add_generation_prompt %}<|assistant|><think>{% endif %}";
    ASSERT_LE(text.size() + 4, size);
    text += "{#" + std::string(size - text.size() - 4, ' ') + "#}";
    bytes.replace(at, size, text);
    path_ = ::testing::TempDir() + "thinking_" + std::to_string(::getpid()) + ".gguf";
    std::ofstream(path_, std::ios::binary) << bytes;
    TestAppOptions options;
    options.model_path = path_;
    app_ = std::make_unique<TestApp>(options);
  }
  static void TearDownTestSuite() {
    app_.reset();
    std::filesystem::remove(path_);
  }
  static TestApp& app() { return *app_; }
  // The model has not learned to think: its thoughts would be empty.
  static json Question() {
    json body = ChatBody("Do you like movies?");
    body["ignore_eos"] = true;
    return body;
  }
  static json Chat(const json& more) {
    json body = Question();
    body.update(more);
    return app().PostOk("/v1/chat/completions", body);
  }

 private:
  static std::string path_;
  static std::unique_ptr<TestApp> app_;
};

std::string Thoughts::path_;
std::unique_ptr<TestApp> Thoughts::app_;

TEST_F(Thoughts, AreToldApartFromTheAnswer) {
  const json answer = Chat(json::object());
  const json& message = answer["choices"][0]["message"];
  const std::string thoughts = message["reasoning_content"];
  EXPECT_FALSE(thoughts.empty());
  EXPECT_EQ(message["content"], "");
  const json& usage = answer["usage"];
  EXPECT_EQ(usage["completion_tokens_details"]["reasoning_tokens"], usage["completion_tokens"]);
  json body = Question();
  body["stream"] = true;
  EXPECT_EQ(Collected(app().Post("/v1/chat/completions", body).body)["reasoning_content"],
            thoughts);
  // Where the client wants them elsewhere.
  const json raw = Chat({{"reasoning_format", "none"}})["choices"][0]["message"];
  EXPECT_FALSE(raw.contains("reasoning_content"));
  EXPECT_THAT(raw["content"].get<std::string>(), HasSubstr(thoughts));
  const json hidden = Chat({{"include_reasoning", false}})["choices"][0]["message"];
  EXPECT_FALSE(hidden.contains("reasoning_content"));
  EXPECT_EQ(hidden["content"], "");
}

TEST_F(Thoughts, EndWhereThePromptHasClosedThem) {
  json body = {{"continue_final_message", true}};
  body["messages"] = {{{"role", "user"}, {"content", "Do you like movies?"}},
                      {{"role", "assistant"}, {"content", "<think>Hm.</think>Yes, I"}}};
  const json closed = Chat(body)["choices"][0]["message"];
  EXPECT_FALSE(closed.contains("reasoning_content"));
  EXPECT_FALSE(closed["content"].get<std::string>().empty());
  body["messages"][1]["content"] = "<think>Hm, I";
  EXPECT_EQ(Chat(body)["choices"][0]["message"]["content"], "");
}

TEST_F(Thoughts, AreItemsAndBlocksInTheOtherProtocols) {
  const std::string thoughts = Chat(json::object())["choices"][0]["message"]["reasoning_content"];
  const json response = app().PostOk("/v1/responses", {{"input", "Do you like movies?"},
                                                       {"max_output_tokens", 24},
                                                       {"temperature", 0},
                                                       {"ignore_eos", true}});
  EXPECT_EQ(response["output"][0]["type"], "reasoning");
  EXPECT_EQ(response["output"][0]["content"][0]["text"], thoughts);
  EXPECT_EQ(response["usage"]["output_tokens_details"]["reasoning_tokens"],
            response["usage"]["output_tokens"]);
  const json message = app().PostOk(
      "/v1/messages", {{"messages", {{{"role", "user"}, {"content", "Do you like movies?"}}}},
                       {"max_tokens", 24},
                       {"temperature", 0},
                       {"ignore_eos", true},
                       {"thinking", {{"type", "enabled"}, {"budget_tokens", 1024}}}});
  EXPECT_EQ(message["content"][0]["type"], "thinking");
  EXPECT_EQ(message["content"][0]["thinking"], thoughts);
}

TEST(ThoughtsOption, SwitchesTheParserOff) {
  TestAppOptions options;
  options.server.reasoning_parser = "none";
  const TestApp app(options);
  const json answer = app.PostOk("/v1/chat/completions", ChatBody("Do you like movies?"));
  EXPECT_FALSE(answer["choices"][0]["message"].contains("reasoning_content"));
}

}  // namespace
}  // namespace server
