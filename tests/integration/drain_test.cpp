// Shutting down fails nobody who was accepted; a second request to end cuts what is left; a model
// that cannot be loaded ends the server with its reason.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json LongStream(int max_tokens) {
  json body = ChatBody("Tell me a story.", max_tokens);
  body["ignore_eos"] = true;
  body["stream"] = true;
  return body;
}

TEST(Drain, SixteenStreamsEndCompleteAndNewWorkIsRefused) {
  TestApp app;
  std::vector<RawClient> clients;
  for (int i = 0; i < 16; ++i) {
    clients.push_back(app.Connect());
    clients.back().Send(PostText("/v1/chat/completions", LongStream(100).dump()));
  }
  RawClient idle = app.Connect();
  idle.Send(GetText("/ready"));
  EXPECT_EQ(idle.ReadResponse().status, 200);
  // All have come, be some answered already; one more is who asks.
  ASSERT_TRUE(Eventually([&] {
    const double answered =
        app.Metric("tern_http_requests_total{code=\"200\",route=\"/v1/chat/completions\"}");
    return std::max(0.0, answered) + app.Metric("tern_http_active_requests") >= 17;
  }));
  app.app().BeginShutdown();
  // The same instant: not ready, and no new work on old or new connections.
  EXPECT_EQ(app.Get("/ready").status, 503);
  idle.Send(PostText("/v1/chat/completions", LongStream(5).dump()));
  const auto refused = idle.ReadResponse();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("shutting_down"));
  EXPECT_EQ(refused.Header("x-should-retry"), "true");

  auto exit_code = std::async(std::launch::async, [&] { return app.app().Wait(); });
  for (RawClient& client : clients) {
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    const EventStream stream(response.body);
    EXPECT_TRUE(stream.done);
    EXPECT_TRUE(stream.clean);
    EXPECT_EQ(stream.FinishReason(), "length");
  }
  EXPECT_EQ(exit_code.get(), 0);
}

TEST(Drain, SecondCallCutsWhatIsLeftWithAnErrorFrame) {
  TestApp app(OneAtATime());
  RawClient client = app.Connect();
  client.Send(PostText("/v1/chat/completions", LongBody().dump()));
  ASSERT_FALSE(client.ReadUntil("\r\n\r\n").empty());
  app.app().BeginShutdown();
  app.app().BeginShutdown();
  EXPECT_EQ(app.app().Wait(), 1);
  const std::string rest = client.ReadToEnd();
  EXPECT_THAT(rest, HasSubstr("shutting_down"));
  EXPECT_THAT(rest, HasSubstr("data: [DONE]"));
}

TEST(Drain, IdleServerEndsAtOnce) {
  TestApp app;
  RawClient idle = app.Connect();
  app.app().BeginShutdown();
  EXPECT_EQ(app.app().Wait(), 0);
  EXPECT_EQ(idle.ReadToEnd(), "");
}

TEST(Load, ServerListensWhileTheModelLoads) {
  TestAppOptions options;
  options.await_ready = false;
  TestApp app(options);
  EXPECT_EQ(app.Get("/live").status, 200);
  const auto early = app.Post("/v1/chat/completions", ChatBody("hi", 2));
  if (early.status != 200) {
    EXPECT_EQ(early.status, 503);
    EXPECT_THAT(early.body, HasSubstr("model_loading"));
  }
  EXPECT_TRUE(Eventually([&] { return app.Get("/ready").status == 200; }));
  EXPECT_EQ(app.Post("/v1/chat/completions", ChatBody("hi", 2)).status, 200);
}

TEST(Load, ModelThatCannotBeLoadedEndsTheServerWithItsReason) {
  fabric::WorkerTeam team(1);
  ServerOptions options;
  options.port = 0;
  scheduler::ModelRuntime::Options model;
  model.name = "broken";
  model.path = "/nonexistent/model.gguf";
  App app(options, {{.runtime = model, .policy = {}}}, team);
  std::promise<std::pair<bool, std::string>> ready;
  app.OnReady([&](bool ok, const std::string& message) { ready.set_value({ok, message}); });
  app.Start();
  const auto [ok, message] = ready.get_future().get();
  EXPECT_FALSE(ok);
  EXPECT_THAT(message, HasSubstr("/nonexistent/model.gguf"));
  EXPECT_EQ(app.Wait(), 1);
}

}  // namespace
}  // namespace server
