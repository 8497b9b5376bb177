// Several models in one server: they come with their first request and go when idle, when memory is
// needed or an operator says so, and no request notices but by its time.
#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <random>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::vector<std::string> kPrompts = {"hi", "Do you like movies?", "Tell me a story.",
                                           "What is the weather?"};

json BodyFor(const std::string& model, const std::string& prompt, bool stream) {
  json body = ChatBody(prompt, 8);
  body["model"] = model;
  body["stream"] = stream;
  return body;
}

std::string StateOf(const TestApp& app, const std::string& model) {
  return json::parse(app.Get("/v1/models/" + model).body)["state"];
}

TEST(Models, EachIsLoadedByItsFirstRequestAndListedAlways) {
  TestAppOptions options;
  options.more_names = {"second"};
  options.policy.lazy = true;
  TestApp app(options);
  EXPECT_EQ(app.Get("/ready").status, 200);
  const json before = json::parse(app.Get("/v1/models").body)["data"];
  ASSERT_EQ(before.size(), 2U);
  EXPECT_EQ(before[0]["id"], "demo");
  EXPECT_EQ(before[1]["state"], "unloaded");
  EXPECT_EQ(before[1]["meta"]["architecture"], "bitnet-b1.58");
  EXPECT_GT(before[1]["max_model_len"], 0);

  const json answer = app.PostOk("/v1/chat/completions", BodyFor("second", "hi", false));
  EXPECT_EQ(answer["model"], "second");
  EXPECT_EQ(StateOf(app, "demo"), "unloaded");
  EXPECT_EQ(StateOf(app, "second"), "loaded");
  EXPECT_EQ(app.Metric("tern_model_loads_total{model_name=\"second\",result=\"ok\"}"), 1);
  EXPECT_EQ(app.Metric("tern_model_load_progress{model_name=\"second\"}"), 1);
  EXPECT_EQ(app.Metric("tern_model_load_progress{model_name=\"demo\"}"), 0);
  EXPECT_GT(app.Metric("tern_model_memory_bytes{model_name=\"second\"}"), 64 << 20);

  // The other routes that need a model wait for it as well; without a name it is the first.
  EXPECT_GT(app.PostOk("/tokenize", {{"prompt", "hi"}})["count"], 0);
  EXPECT_EQ(StateOf(app, "demo"), "loaded");
  const auto unknown = app.Post("/v1/chat/completions", BodyFor("third", "hi", false));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(json::parse(unknown.body)["error"]["code"], "model_not_found");
  EXPECT_EQ(json::parse(unknown.body)["error"]["param"], "model");
}

// Two of three models fit. Requests of both kinds, an operator who unloads, and idleness of 50 ms.
TEST(Models, UnderLoadTheyComeAndGoAndNoRequestFails) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 12;
  TestAppOptions options;
  options.more_names = {"second", "third"};
  options.policy = {.lazy = true, .idle_seconds = 0.05};
  options.server.model_memory_bytes = uint64_t{190} << 20;
  TestApp app(options);
  std::map<std::string, std::string> expected;
  for (const std::string& prompt : kPrompts) {
    const json answer = app.PostOk("/v1/chat/completions", BodyFor("demo", prompt, false));
    expected[prompt] = answer["choices"][0]["message"]["content"];
  }
  const std::vector<std::string> names = {"demo", "second", "third"};
  std::atomic<int> good{0};
  std::atomic<uint64_t> tokens{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(static_cast<uint32_t>(thread));
      for (int i = 0; i < kRequests; ++i) {
        const std::string& name = names[random() % names.size()];
        const std::string& prompt = kPrompts[random() % kPrompts.size()];
        const bool stream = random() % 2 == 0;
        if (random() % 6 == 0) {
          const auto unloaded = app.Post("/models/unload", {{"model", name}});
          EXPECT_EQ(unloaded.status, 200) << unloaded.body;
        }
        const auto response = app.Post("/v1/chat/completions", BodyFor(name, prompt, stream));
        EXPECT_EQ(response.status, 200) << response.body;
        if (response.status != 200) continue;
        std::string text;
        if (stream) {
          text = EventStream(response.body).Text();
        } else {
          const json answer = json::parse(response.body);
          EXPECT_EQ(answer["model"], name);
          text = answer["choices"][0]["message"]["content"];
        }
        EXPECT_EQ(text, expected[prompt]);
        EXPECT_EQ(app.Get("/health").status, 200);
        if (text == expected[prompt]) ++good;
        if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads * kRequests);
  double loads = 0;
  double unloads = 0;
  double finished = 0;
  for (const std::string& name : names) {
    const std::string label = "{model_name=\"" + name + "\",";
    loads += app.Metric("tern_model_loads_total" + label + "result=\"ok\"}");
    EXPECT_EQ(app.Metric("tern_model_loads_total" + label + "result=\"failed\"}"), 0);
    for (const char* reason : {"idle", "memory", "operator"}) {
      unloads += app.Metric("tern_model_unloads_total" + label + "reason=\"" + reason + "\"}");
    }
    // What a model counted stays counted when it goes.
    finished += app.Metric("tern_prompt_tokens_total{model_name=\"" + name + "\"}") > 0 ? 1 : 0;
  }
  EXPECT_GT(loads, 3);
  EXPECT_GT(unloads, 0);
  EXPECT_EQ(finished, 3);
}

TEST(Models, IdleOnesAreUnloadedAndComeBack) {
  TestAppOptions options;
  options.policy.idle_seconds = 0.05;
  TestApp app(options);
  const std::string label = "{model_name=\"demo\"}";
  app.PostOk("/v1/chat/completions", BodyFor("demo", "hi", false));
  ASSERT_TRUE(Eventually([&] { return StateOf(app, "demo") == "unloaded"; }));
  EXPECT_EQ(app.Metric("tern_model_memory_bytes" + label), 0);
  EXPECT_EQ(app.Metric("tern_requests_running" + label), 0);
  const double prompt_tokens = app.Metric("tern_prompt_tokens_total" + label);
  EXPECT_GT(prompt_tokens, 0);
  EXPECT_EQ(app.Get("/ready").status, 200);
  EXPECT_EQ(app.Get("/health").status, 200);
  app.PostOk("/v1/chat/completions", BodyFor("demo", "hi", false));
  EXPECT_GT(app.Metric("tern_prompt_tokens_total" + label), prompt_tokens);
}

TEST(Models, AStreamHoldsItsModelUntilItsEnd) {
  TestAppOptions options;
  options.policy.idle_seconds = 0.02;
  TestApp app(options);
  RawClient client = app.Connect();
  json body = BodyFor("demo", "Tell me a story.", true);
  body["max_tokens"] = 600;
  body["ignore_eos"] = true;
  client.Send(PostText("/v1/chat/completions", body.dump()));
  client.ReadUntil("data: ");
  // An operator's order waits for the stream.
  const auto unloaded = app.Post("/models/unload", {{"model", "demo"}});
  EXPECT_EQ(json::parse(unloaded.body)["state"], "unloaded");
  const std::string rest = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(rest, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_THAT(rest, HasSubstr("data: [DONE]"));
}

TEST(Models, ADrainDuringALoadServesWhoWaitsForIt) {
  TestAppOptions options;
  options.policy.lazy = true;
  TestApp app(options);
  RawClient client = app.Connect();
  client.Send(PostText("/v1/chat/completions", BodyFor("demo", "hi", false).dump()));
  ASSERT_TRUE(Eventually([&] { return StateOf(app, "demo") != "unloaded"; }));
  app.app().BeginShutdown();
  auto exit_code = std::async(std::launch::async, [&] { return app.app().Wait(); });
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_EQ(exit_code.get(), 0);
}

TEST(Models, ALoadThatFailsIsToldAndTriedAgainAndTheServerGoesOn) {
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) /
                                     ("late_model_" + std::to_string(getpid()) + ".gguf");
  std::filesystem::remove(path);
  std::ofstream(path) << "GGUF, but not really";
  TestAppOptions options;
  options.policy.lazy = true;
  options.model_path = path;
  TestApp app(options);
  EXPECT_EQ(app.Get("/ready").status, 200);
  const auto failed = app.Post("/v1/chat/completions", BodyFor("demo", "hi", true));
  EXPECT_EQ(failed.status, 503);
  EXPECT_EQ(json::parse(failed.body)["error"]["code"], "model_load_failed");
  EXPECT_EQ(failed.Header("Retry-After"), "1");
  EXPECT_EQ(StateOf(app, "demo"), "failed");
  EXPECT_EQ(app.Get("/health").status, 200);
  EXPECT_EQ(app.Metric("tern_model_loads_total{model_name=\"demo\",result=\"failed\"}"), 1);
  std::filesystem::copy_file(DemoModelPath(), path,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(Eventually([&] {
    return app.Post("/v1/chat/completions", BodyFor("demo", "hi", false)).status == 200;
  }));
  std::filesystem::remove(path);
}

TEST(Models, OnlyOperatorsLoadAndUnload) {
  TestAppOptions options;
  options.server.api_keys = {{.name = "user", .key = "sk-user", .admin = false},
                             {.name = "ops", .key = "sk-ops"}};
  TestApp app(options);
  const auto order = [&](const std::string& path, const std::string& key) {
    RawClient client = app.Connect();
    client.Send(PostText(path, R"({"model": "demo"})", "Authorization: Bearer " + key + "\r\n"));
    return client.ReadResponse();
  };
  EXPECT_EQ(order("/v1/models/unload", "sk-user").status, 403);
  EXPECT_EQ(order("/v1/models/unload", "sk-wrong").status, 401);
  EXPECT_EQ(order("/v1/models/unload", "sk-ops").status, 200);
  EXPECT_EQ(order("/v1/models/load", "sk-user").status, 403);
  EXPECT_EQ(order("/v1/models/load", "sk-ops").status, 200);
}

}  // namespace
}  // namespace server
