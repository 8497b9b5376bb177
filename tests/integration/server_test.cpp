// The whole server with the demo model: shapes, streams, stop strings, log-probabilities, usage and
// errors as clients see them; streams beside each other say what they say alone; a client that goes
// away leaves nothing behind.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Server : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { app_ = std::make_unique<TestApp>(); }
  static void TearDownTestSuite() { app_.reset(); }
  static TestApp& app() { return *app_; }

  static std::string ErrorCode(const RawClient::Response& response) {
    const auto error = json::parse(response.body).at("error");
    return std::to_string(response.status) + " " +
           (error.at("code").is_null() ? "null" : error.at("code").get<std::string>()) + " " +
           (error.at("param").is_null() ? "null" : error.at("param").get<std::string>());
  }

 private:
  static std::unique_ptr<TestApp> app_;
};

std::unique_ptr<TestApp> Server::app_;

TEST_F(Server, ChatAnswersInOpenAisShape) {
  const json answer = app().PostOk("/v1/chat/completions", ChatBody("Do you like movies?"));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "demo");
  EXPECT_THAT(answer["id"].get<std::string>(), ::testing::StartsWith("chatcmpl-"));
  ASSERT_EQ(answer["choices"].size(), 1U);
  const json& choice = answer["choices"][0];
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_FALSE(choice["message"]["content"].get<std::string>().empty());
  EXPECT_TRUE(choice["message"]["refusal"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_THAT(choice["finish_reason"], ::testing::AnyOf("stop", "length"));
  const json& usage = answer["usage"];
  EXPECT_EQ(usage["total_tokens"].get<int>(),
            usage["prompt_tokens"].get<int>() + usage["completion_tokens"].get<int>());
  const json prompt = app().PostOk("/tokenize", ChatBody("Do you like movies?"));
  EXPECT_EQ(usage["prompt_tokens"], prompt["count"]);
}

TEST_F(Server, StreamSaysWhatTheWholeAnswerSays) {
  json body = ChatBody("Tell me about your favorite book.", 40);
  // So that both compared answers find the same in the prefix cache.
  const json first = app().PostOk("/v1/chat/completions", body);
  const json whole = app().PostOk("/v1/chat/completions", body);
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const auto response = app().Post("/v1/chat/completions", body);
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.Header("Content-Type"), HasSubstr("text/event-stream"));
  const EventStream stream(response.body);
  EXPECT_TRUE(stream.done);
  EXPECT_TRUE(stream.clean);
  EXPECT_EQ(stream.Text(), whole["choices"][0]["message"]["content"]);
  EXPECT_EQ(stream.FinishReason(), whole["choices"][0]["finish_reason"]);

  ASSERT_GE(stream.chunks.size(), 4U);
  EXPECT_EQ(stream.chunks[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(stream.chunks[0]["choices"][0]["delta"]["content"], "");
  for (const json& chunk : stream.chunks) {
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["id"], stream.chunks[0]["id"]);
    EXPECT_EQ(chunk["created"], stream.chunks[0]["created"]);
    EXPECT_EQ(chunk["model"], "demo");
    ASSERT_TRUE(chunk.contains("usage"));
    if (&chunk != &stream.chunks.back()) {
      EXPECT_TRUE(chunk["usage"].is_null());
    }
  }
  EXPECT_TRUE(stream.chunks.back()["choices"].empty());
  EXPECT_EQ(stream.chunks.back()["usage"], whole["usage"]);
  EXPECT_EQ(whole["choices"][0]["message"], first["choices"][0]["message"]);
  const json& usage = whole["usage"];
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"].get<int>() - 1);
}

TEST_F(Server, SixteenStreamsTogetherSayWhatEachSaysAlone) {
  const std::vector<std::string> questions = {"Do you like movies?", "What music do you hear?",
                                              "Tell me a story.", "Hi!"};
  std::vector<json> bodies;
  for (int i = 0; i < 16; ++i) {
    json body = ChatBody(questions[static_cast<size_t>(i) % 4], 16 + i);
    // Half of them draw at random, with a seed.
    if (i % 2 == 1) {
      body["temperature"] = 1;
      body["seed"] = i;
    }
    body["logprobs"] = true;
    bodies.push_back(std::move(body));
  }
  std::vector<json> alone;
  for (const json& body : bodies) alone.push_back(app().PostOk("/v1/chat/completions", body));
  std::vector<std::string> together(bodies.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < bodies.size(); ++i) {
    threads.emplace_back([&, i] {
      json body = bodies[i];
      body["stream"] = true;
      together[i] = app().Post("/v1/chat/completions", body).body;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < bodies.size(); ++i) {
    const EventStream stream(together[i]);
    EXPECT_TRUE(stream.done);
    EXPECT_EQ(stream.Text(), alone[i]["choices"][0]["message"]["content"]) << i;
    json logprobs = json::array();
    for (const json& chunk : stream.chunks) {
      const json& choice = chunk["choices"][0];
      if (!choice["logprobs"].is_object()) continue;
      for (const json& entry : choice["logprobs"]["content"]) logprobs.push_back(entry);
    }
    EXPECT_EQ(logprobs, alone[i]["choices"][0]["logprobs"]["content"]) << i;
  }
}

TEST_F(Server, SeveralChoicesAreOwnDrawsOfOnePrompt) {
  json body = ChatBody("Tell me a story.", 24);
  body["temperature"] = 1;
  body["seed"] = 7;
  body["n"] = 3;
  const json first = app().PostOk("/v1/chat/completions", body);
  const json again = app().PostOk("/v1/chat/completions", body);
  ASSERT_EQ(first["choices"].size(), 3U);
  EXPECT_EQ(first["choices"], again["choices"]);
  EXPECT_NE(first["choices"][0]["message"]["content"], first["choices"][1]["message"]["content"]);
  const json one = app().PostOk("/tokenize", body);
  EXPECT_EQ(first["usage"]["prompt_tokens"], one["count"]);

  body["stream"] = true;
  const EventStream stream(app().Post("/v1/chat/completions", body).body);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(stream.Text(i), first["choices"][static_cast<size_t>(i)]["message"]["content"]);
    EXPECT_FALSE(stream.FinishReason(i).empty());
  }
}

TEST_F(Server, StopStringEndsTheAnswerAndIsNotShown) {
  json body = ChatBody("Tell me a story.", 60);
  body["ignore_eos"] = true;
  const std::string text =
      app().PostOk("/v1/chat/completions", body)["choices"][0]["message"]["content"];
  ASSERT_GT(text.size(), 20U);
  // Across token borders: letters from the middle of the text.
  const std::string stop = text.substr(11, 4);
  body["stop"] = json::array({stop, "never said"});
  const std::string expected = text.substr(0, text.find(stop));
  const json stopped = app().PostOk("/v1/chat/completions", body);
  EXPECT_EQ(stopped["choices"][0]["message"]["content"], expected);
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
  EXPECT_LT(stopped["usage"]["completion_tokens"], 60);

  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const EventStream stream(app().Post("/v1/chat/completions", body).body);
  EXPECT_EQ(stream.Text(), expected);
  EXPECT_EQ(stream.FinishReason(), "stop");
  EXPECT_EQ(stream.chunks.back()["usage"]["completion_tokens"],
            stopped["usage"]["completion_tokens"]);
  EXPECT_TRUE(Eventually([&] { return app().Metric("tern_requests_running") == 0; }));
}

TEST_F(Server, UsageIsExactWithIgnoreEos) {
  json body = ChatBody("Hi!", 50);
  body["ignore_eos"] = true;
  const json answer = app().PostOk("/v1/chat/completions", body);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 50);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
}

TEST_F(Server, LogprobsCoverTheTextByteByByte) {
  json body = ChatBody("Do you like music?", 12);
  body["logprobs"] = true;
  body["top_logprobs"] = 3;
  const json choice = app().PostOk("/v1/chat/completions", body)["choices"][0];
  std::string bytes;
  for (const json& entry : choice["logprobs"]["content"]) {
    EXPECT_EQ(entry["top_logprobs"].size(), 3U);
    EXPECT_LE(entry["logprob"].get<double>(), 0.0);
    // Greedy: the token is the likeliest.
    EXPECT_EQ(entry["top_logprobs"][0]["token"], entry["token"]);
    for (const json& byte : entry["bytes"]) bytes += static_cast<char>(byte.get<int>());
  }
  const auto text = choice["message"]["content"].get<std::string>();
  EXPECT_TRUE(bytes == text || bytes == " " + text) << bytes << " / " << text;
}

TEST_F(Server, CompletionTakesAllFourPromptShapes) {
  const json text = app().PostOk(
      "/v1/completions", {{"prompt", "Once upon a time"}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(text["object"], "text_completion");
  const json ids = app().PostOk("/tokenize", {{"prompt", "Once upon a time"}})["tokens"];
  const json from_ids =
      app().PostOk("/v1/completions", {{"prompt", ids}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(from_ids["choices"][0]["text"], text["choices"][0]["text"]);
  for (const json& prompt : {json::array({"Once upon a time", "Hello"}), json::array({ids, ids})}) {
    const json several = app().PostOk(
        "/completions", {{"prompt", prompt}, {"max_tokens", 8}, {"temperature", 0}, {"n", 2}});
    ASSERT_EQ(several["choices"].size(), 4U);
    EXPECT_EQ(several["choices"][0]["text"], text["choices"][0]["text"]);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(several["choices"][i]["index"], i);
  }
}

TEST_F(Server, EchoWithLogprobsScoresThePrompt) {
  const json body = {{"prompt", "Once upon a time"},
                     {"max_tokens", 0},
                     {"echo", true},
                     {"logprobs", 2},
                     {"temperature", 0}};
  const json scored = app().PostOk("/v1/completions", body);
  const json& choice = scored["choices"][0];
  EXPECT_EQ(choice["text"], "Once upon a time");
  const json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"].size(), scored["usage"]["prompt_tokens"]);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  for (size_t i = 1; i < logprobs["tokens"].size(); ++i) {
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0.0);
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 1U);
  }
  EXPECT_EQ(scored["usage"]["completion_tokens"], 0);

  json longer = body;
  longer["max_tokens"] = 4;
  const json more = app().PostOk("/v1/completions", longer)["choices"][0];
  EXPECT_THAT(more["text"].get<std::string>(), ::testing::StartsWith("Once upon a time"));
  EXPECT_GT(more["logprobs"]["tokens"].size(), logprobs["tokens"].size());
  longer["stream"] = true;
  const EventStream stream(app().Post("/v1/completions", longer).body);
  EXPECT_EQ(stream.Text(), more["text"]);
}

TEST_F(Server, FinalMessageCanBeContinued) {
  json body = ChatBody("Do you like movies?");
  body["messages"].push_back({{"role", "assistant"}, {"content", "Yes, my favorite movie is"}});
  body["continue_final_message"] = true;
  const json prompt = app().PostOk("/apply-template", body);
  EXPECT_THAT(prompt["prompt"].get<std::string>(),
              ::testing::EndsWith("Yes, my favorite movie is"));
  app().PostOk("/v1/chat/completions", body);
}

TEST_F(Server, ErrorsComeBeforeTheStream) {
  const auto chat = [&](const std::string& key, json value) {
    json body = ChatBody("hi");
    body["stream"] = true;
    body[key] = std::move(value);
    return ErrorCode(app().Post("/v1/chat/completions", body));
  };
  EXPECT_EQ(chat("temperature", 3), "400 invalid_value temperature");
  EXPECT_EQ(chat("tools", json::array({{{"type", "function"}}})),
            "400 missing_required_parameter tools[0].function");
  EXPECT_EQ(chat("model", "gpt-5"), "404 model_not_found model");
  EXPECT_EQ(chat("stop_token_ids", {999999}), "400 invalid_value stop_token_ids");
  EXPECT_EQ(chat("logit_bias", {{"999999", 1}}).substr(0, 17), "400 invalid_value");
  EXPECT_EQ(ErrorCode(app().Post("/v1/completions", {{"prompt", {1, 999999}}})),
            "400 invalid_value prompt");
  RawClient client = app().Connect();
  client.Send(PostText("/v1/chat/completions", "{\"messages\": nope}"));
  EXPECT_EQ(ErrorCode(client.ReadResponse()), "400 null null");
}

TEST_F(Server, PromptThatDoesNotFitNamesBothSizes) {
  std::string longer;
  for (int i = 0; i < 3000; ++i) longer += "movie ";
  const auto response = app().Post("/v1/chat/completions", ChatBody(longer));
  EXPECT_EQ(ErrorCode(response), "400 context_length_exceeded messages");
  const json error = json::parse(response.body)["error"];
  EXPECT_GT(error["n_prompt_tokens"], error["n_ctx"]);
}

TEST_F(Server, TextThatCannotFitIsRefusedWithoutBeingEncoded) {
  const auto chat = app().Post("/v1/chat/completions", ChatBody(std::string(1 << 20, 'a')));
  EXPECT_EQ(chat.status, 400);
  const json error = json::parse(chat.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_NE(error["message"].get<std::string>().find("at least"), std::string::npos);
  // A lower bound, from bytes alone: encoded, this text has a token for every letter.
  EXPECT_GE(error["n_prompt_tokens"], error["n_ctx"]);
  EXPECT_LT(error["n_prompt_tokens"], 1 << 19);
  const auto text = app().Post("/v1/completions", {{"prompt", std::string(1 << 20, 'a')}});
  EXPECT_EQ(json::parse(text.body)["error"]["param"], "prompt");
}

TEST_F(Server, ModelsAreListedAndShown) {
  const json list = json::parse(app().Get("/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1U);
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(list["data"][0]["object"], "model");
  EXPECT_EQ(json::parse(app().Get("/v1/models/demo").body)["id"], "demo");
  EXPECT_EQ(ErrorCode(app().Get("/v1/models/other")), "404 model_not_found model");
}

TEST_F(Server, TokenizeAndDetokenizeAreInverse) {
  const json tokens = app().PostOk("/tokenize", {{"content", "Hello wörld"}})["tokens"];
  EXPECT_THAT(app().PostOk("/detokenize", {{"tokens", tokens}})["content"].get<std::string>(),
              HasSubstr("Hello wörld"));
}

TEST_F(Server, OnlyTokensOfTheModelHaveText) {
  EXPECT_EQ(ErrorCode(app().Post("/detokenize", {{"tokens", {5, 99999}}})),
            "400 invalid_value tokens");
}

// 1 / temperature is infinite there.
TEST_F(Server, TheLeastTemperatureIsGreedy) {
  json body = ChatBody("Do you like movies?");
  const json expected = app().PostOk("/v1/chat/completions", body)["choices"];
  for (const double temperature : {1e-30, 1e-45}) {
    body["temperature"] = temperature;
    EXPECT_EQ(app().PostOk("/v1/chat/completions", body)["choices"], expected) << temperature;
  }
}

TEST_F(Server, HealthIsGoodWhenReady) {
  for (const char* path : {"/live", "/ready", "/health"}) {
    EXPECT_EQ(app().Get(path).status, 200) << path;
  }
}

TEST(GoneClients, LeaveNothingBehind) {
  TestAppOptions options;
  options.scheduler.max_sequences = 2;
  const TestApp app(options);
  json body = LongBody();
  RawClient streaming = app.Connect();
  streaming.Send(PostText("/v1/chat/completions", body.dump()));
  ASSERT_FALSE(streaming.ReadUntil("data: ").empty());
  body["stream"] = false;
  RawClient waiting = app.Connect();
  waiting.Send(PostText("/v1/chat/completions", body.dump()));
  // Both, and who asks for it.
  ASSERT_TRUE(Eventually([&] { return app.Metric("tern_http_active_requests") == 3; }));
  ASSERT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") == 2; }));
  streaming.Reset();
  waiting.Close();
  EXPECT_TRUE(Eventually([&] {
    return app.Metric("tern_requests_running") == 0 && app.Metric("tern_requests_waiting") == 0 &&
           app.Metric("tern_kv_blocks_used") == 0 &&
           app.Metric("tern_request_success_total{finished_reason=\"abort\"") >= 2;
  }));
}

TEST_F(Server, MetricsCountWhatWasAsked) {
  const double prompts = app().Metric("tern_prompt_tokens_total");
  const double generated = app().Metric("tern_generation_tokens_total");
  json body = ChatBody("Hi!", 20);
  body["ignore_eos"] = true;
  const json answer = app().PostOk("/v1/chat/completions", body);
  // The figures are published after the step whose tokens a client may already have.
  EXPECT_TRUE(
      Eventually([&] { return app().Metric("tern_generation_tokens_total") - generated == 20; }));
  EXPECT_EQ(app().Metric("tern_prompt_tokens_total") - prompts,
            answer["usage"]["prompt_tokens"].get<double>());
  EXPECT_GT(app().Metric("tern_bytes_per_token"), 0);
  EXPECT_GT(app().Metric("tern_fabric_skip_rate"), 0);
  EXPECT_GT(app().Metric("vllm:time_to_first_token_seconds_count"), 0);
  EXPECT_GT(app().Metric("tern_http_requests_total{code=\"200\""), 0);
}

TEST(ServerLimits, FullQueueIs503WhileHealthAnswers) {
  TestAppOptions options = OneAtATime();
  options.scheduler.max_queued_requests = 1;
  TestApp app(options);
  const std::string request = PostText("/v1/chat/completions", LongBody().dump());
  RawClient running = app.Connect();
  running.Send(request);
  ASSERT_FALSE(running.ReadUntil("data: ").empty());
  // What waits is counted anew after the step whose token the client has.
  ASSERT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") == 1; }));
  // Of two more, one waits and the other finds the queue full.
  std::vector<RawClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(app.Connect());
    clients.back().Send(request);
  }
  std::vector<pollfd> answers;
  for (const RawClient& client : clients) {
    answers.push_back({.fd = client.fd(), .events = POLLIN, .revents = 0});
  }
  ASSERT_EQ(::poll(answers.data(), answers.size(), 60'000), 1);
  const auto response = clients[answers[0].revents != 0 ? 0 : 1].ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("server_is_overloaded"));
  EXPECT_FALSE(response.Header("Retry-After").empty());
  EXPECT_EQ(response.Header("x-should-retry"), "true");
  EXPECT_EQ(app.Get("/health").status, 200);
}

TEST(ServerLimits, QueuedRequestOfAGoneClientNeverRuns) {
  TestApp app(OneAtATime());
  json body = LongBody();
  body["stream"] = false;
  RawClient first = app.Connect();
  first.Send(PostText("/v1/chat/completions", body.dump()));
  ASSERT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") == 1; }));
  RawClient second = app.Connect();
  second.Send(PostText("/v1/chat/completions", body.dump()));
  // More than the first one's other choices.
  ASSERT_TRUE(Eventually([&] { return app.Metric("tern_requests_waiting") > 15; }));
  second.Close();
  EXPECT_TRUE(Eventually([&] { return app.Metric("tern_requests_waiting") <= 15; }));
  EXPECT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") == 1; }));
}

// What is told to requests that ran side by side sums to what the server counted meanwhile.
TEST_F(Server, CostsOfRequestsSumToTheServers) {
  constexpr double kTolerance = 1e-9;
  const char* const energy_name = "tern_energy_proxy_joules_total";
  ASSERT_TRUE(Eventually([] { return app().Metric("tern_requests_running") == 0; }));
  const double energy_before = app().Metric(energy_name);
  const double fabric_before = app().Metric("tern_fabric_seconds_total");
  constexpr int kRequests = 6;
  std::vector<std::future<json>> answers;
  for (int i = 0; i < kRequests; ++i) {
    answers.push_back(std::async(std::launch::async, [i] {
      json body = ChatBody(std::string(static_cast<size_t>(i) * 20, 'x') + " Hi!", 8 + 4 * i);
      body["tern"] = {{"usage", true}};
      body["ignore_eos"] = true;
      body["n"] = 1 + i % 2;
      if (i % 2 == 0) return app().PostOk("/v1/chat/completions", body)["usage"];
      body["stream"] = true;
      body["stream_options"] = {{"include_usage", true}};
      const EventStream stream(app().Post("/v1/chat/completions", body).body);
      return stream.chunks.back()["usage"];
    }));
  }
  double energy = 0;
  double fabric = 0;
  for (std::future<json>& answer : answers) {
    const json cost = answer.get().at("tern");
    EXPECT_GT(cost["bytes_per_token"].get<double>(), 0);
    EXPECT_GT(cost["host_seconds"].get<double>(), 0);
    EXPECT_GT(cost["decode_seconds"].get<double>(), 0);
    EXPECT_GT(cost["first_token_seconds"].get<double>(), 0);
    EXPECT_GT(cost["skip_rate"].get<double>(), 0);
    EXPECT_LT(cost["skip_rate"].get<double>(), 1);
    EXPECT_FALSE(cost.contains("layer_skip_rates"));
    energy += cost["energy_proxy_joules"].get<double>();
    fabric += cost["fabric_seconds"].get<double>();
  }
  EXPECT_TRUE(Eventually([&] {
    return std::abs(app().Metric(energy_name) - energy_before - energy) < kTolerance * energy;
  })) << app().Metric(energy_name) - energy_before
      << " J counted, " << energy << " J told";
  EXPECT_NEAR(app().Metric("tern_fabric_seconds_total") - fabric_before, fabric, 1e-6 * fabric);
}

TEST_F(Server, SkipRatesOfLayersWhenAskedFor) {
  json body = ChatBody("Do you like movies?");
  EXPECT_FALSE(app().PostOk("/v1/chat/completions", body)["usage"].contains("tern"));
  body["tern"] = {{"usage", true}, {"layers", true}};
  const json cost = app().PostOk("/v1/chat/completions", body)["usage"]["tern"];
  const json& rates = cost["layer_skip_rates"];
  constexpr size_t kLayersOfDemoModel = 8;
  ASSERT_EQ(rates.size(), kLayersOfDemoModel);
  double low = 1;
  double high = 0;
  for (const json& rate : rates) {
    low = std::min(low, rate.get<double>());
    high = std::max(high, rate.get<double>());
  }
  EXPECT_GT(low, 0);
  EXPECT_LT(high, 1);
  EXPECT_LT(low, high);
  // Layers have the same shape, and the head of this model is dense: the whole is their mean.
  const double mean =
      std::accumulate(rates.begin(), rates.end(), 0.0,
                      [](double sum, const json& rate) { return sum + rate.get<double>(); }) /
      static_cast<double>(rates.size());
  EXPECT_NEAR(cost["skip_rate"].get<double>(), mean, 1e-9);
}

TEST_F(Server, TernOptionsAreChecked) {
  json body = ChatBody("Hi!");
  body["tern"] = {{"usage", "yes"}};
  EXPECT_EQ(ErrorCode(app().Post("/v1/chat/completions", body)), "400 invalid_type tern.usage");
  body["tern"] = true;
  EXPECT_EQ(ErrorCode(app().Post("/v1/chat/completions", body)), "400 invalid_type tern");
}

}  // namespace
}  // namespace server
