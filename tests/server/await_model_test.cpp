// A request whose model is not loaded waits for it, hears how far it is, and ends with its model or
// with a reason; operators load and unload over HTTP.
#include "server/routes/await_model.h"

#include <gmock/gmock.h>

#include <boost/asio/co_spawn.hpp>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "server/http_server.h"
#include "server/json.h"
#include "server/routes/respond.h"
#include "tests/server/raw_client.h"
#include "tests/server/scripted_source.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A server of scripted models, with a route that answers with the model's name, whole or streamed.
class TestServer {
 public:
  explicit TestServer(ServerOptions server_options = {})
      : options(std::move(server_options)),
        registry({{"m0", {.lazy = true}}, {"m1", {.lazy = true}}}, {}, source),
        server_(Listening(options), MakeRouter(), {}) {
    registry.Start([](bool, const std::string&) {});
    server_.Start();
  }
  ~TestServer() {
    registry.Stop();
    workers_.join();
    server_.Stop();
  }

  RawClient Connect() const { return RawClient(server_.port()); }
  RawClient Ask(const json& body, const std::string& path = "/answer") const {
    RawClient client = Connect();
    client.Send(PostText(path, body.dump()));
    return client;
  }
  RawClient::Response Get(const std::string& path) const {
    RawClient client = Connect();
    client.Send(GetText(path));
    return client.ReadResponse();
  }

  ServerOptions options;
  ScriptedSource source{{10, 10}};
  ModelRegistry registry;

 private:
  static ServerOptions Listening(ServerOptions options) {
    options.port = 0;
    options.log_requests = false;
    return options;
  }

  Router MakeRouter() {
    Router router;
    AddModelRoutes(context_, router);
    for (const char* path : {"/answer", "/v1/messages", "/v1/responses", "/whole"}) {
      router.Add({.method = "POST",
                  .path = path,
                  .json = true,
                  .handler = WhenLoaded(context_, path != std::string("/whole"),
                                        [this](const HttpRequest& http, HttpExchange& exchange) {
                                          return Answer(http, exchange);
                                        })});
    }
    return router;
  }

  asio::awaitable<void> Answer(const HttpRequest& http, HttpExchange& exchange) {
    const auto model = co_await OnWorker(workers_, [this, &http] {
      const Json body = ParseJson(http.body, 10);
      if (body.contains("bad")) throw InvalidValue("bad", "This is bad.");
      return registry.Get(body["model"].get<std::string>());
    });
    if (!exchange.streaming()) {
      HttpResponse response;
      response.body = model->name();
      co_await exchange.Reply(response);
      co_return;
    }
    const std::string text = "data: " + model->name() + "\n\n";
    if (co_await exchange.Write(text)) co_await exchange.FinishStream();
  }

  StreamStore streams_{{}};
  Metrics metrics_{false};
  asio::thread_pool workers_{2};
  RouteContext context_{.options = options,
                        .models = registry,
                        .streams = streams_,
                        .metrics = metrics_,
                        .workers = workers_,
                        .heartbeat_age = {},
                        .snapshot = {},
                        .draining = {}};
  HttpServer server_;
};

TEST(AwaitModel, AnAnswerWaitsForItsModel) {
  TestServer server;
  server.source.CloseGate();
  RawClient client = server.Ask({{"model", "m0"}});
  server.source.AwaitLoading();
  EXPECT_THAT(server.Get("/v1/models/m0").body, HasSubstr(R"("state":"loading")"));
  server.source.OpenGate();
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "m0");
}

TEST(AwaitModel, AStreamHearsTheProgressInComments) {
  ServerOptions options;
  options.ping_seconds = 0.1;
  TestServer server(options);
  server.source.CloseGate();
  RawClient client = server.Ask({{"model", "m0"}, {"stream", true}});
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  EXPECT_THAT(client.ReadChunk().value(), StartsWith(": loading "));
  EXPECT_EQ(client.ReadUntil(": loading 50 %").empty(), false);
  server.source.OpenGate();
  const std::string rest = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(rest, HasSubstr("data: m0\n\n"));
}

TEST(AwaitModel, ARouteWithoutStreamsKeepsItsShape) {
  ServerOptions options;
  options.ping_seconds = 0.05;
  TestServer server(options);
  server.source.CloseGate();
  RawClient client = server.Ask({{"model", "m0"}, {"stream", true}}, "/whole");
  server.source.AwaitLoading();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // several pings would have come
  server.source.OpenGate();
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "m0");
}

TEST(AwaitModel, WhatFailsBeforeTheStreamHasItsOwnStatus) {
  TestServer server;
  server.source.FailNext(1);
  const auto response = server.Ask({{"model", "m0"}, {"stream", true}}).ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.Header("Retry-After"), "1");
  EXPECT_EQ(response.Header("x-should-retry"), "true");
  const json error = json::parse(response.body)["error"];
  EXPECT_EQ(error["code"], "model_load_failed");
  EXPECT_EQ(error["type"], "service_unavailable_error");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("the file is broken"));
  // The server goes on.
  EXPECT_EQ(server.Ask({{"model", "m1"}}).ReadResponse().body, "m1");
}

TEST(AwaitModel, WhatFailsInTheStreamIsToldInItsProtocol) {
  ServerOptions options;
  options.ping_seconds = 0.1;
  for (const auto& [path, frame] : std::vector<std::pair<std::string, std::string>>{
           {"/answer", R"(data: {"error":{"message":"The model 'm0' could not be loaded)"},
           {"/v1/messages", "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"},
           {"/v1/responses", "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0"}}) {
    TestServer server(options);
    server.source.CloseGate();
    server.source.FailNext(1);
    RawClient client = server.Ask({{"model", "m0"}, {"stream", true}}, path);
    client.ReadUntil(": loading ");
    server.source.OpenGate();
    const std::string rest = client.ReadUntil("0\r\n\r\n");
    EXPECT_THAT(rest, HasSubstr(frame));
    EXPECT_THAT(rest, HasSubstr("the file is broken"));
  }
}

TEST(AwaitModel, WaitingHasAnEnd) {
  ServerOptions options;
  options.model_wait_seconds = 0.2;
  TestServer server(options);
  server.source.CloseGate();
  EXPECT_EQ(server.Ask({{"model", "m0"}}).ReadResponse().status, 503);
  // The load goes on, however late it began.
  ASSERT_TRUE(Eventually([&] { return server.registry.StatusOf("m0").progress == 0.5; }));
  const auto response = server.Ask({{"model", "m0"}}).ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("model_loading"));
  EXPECT_THAT(response.body, HasSubstr("50 %"));
  server.source.OpenGate();
}

TEST(AwaitModel, AClientThatGoesAwayNoLongerWaits) {
  TestServer server;
  server.source.CloseGate();
  {
    RawClient client = server.Ask({{"model", "m0"}});
    server.source.AwaitLoading();
    EXPECT_EQ(server.registry.StatusOf("m0").waiting, 1U);
  }
  EXPECT_TRUE(Eventually([&] { return server.registry.StatusOf("m0").waiting == 0; }));
  server.source.OpenGate();
}

TEST(AwaitModel, OtherErrorsAreTheHandlersOwn) {
  TestServer server;
  EXPECT_EQ(server.Ask({{"model", "m0"}, {"bad", 1}}).ReadResponse().status, 400);
  EXPECT_EQ(server.Ask({{"model", "nobody"}}).ReadResponse().status, 404);
  EXPECT_EQ(server.source.loads(), 0);
}

TEST(ModelOrders, LoadAndUnloadAnswerWithTheModel) {
  TestServer server;
  const auto loaded = server.Ask({{"model", "m1"}}, "/v1/models/load").ReadResponse();
  EXPECT_EQ(loaded.status, 200);
  const json model = json::parse(loaded.body);
  EXPECT_EQ(model["id"], "m1");
  EXPECT_EQ(model["state"], "loaded");
  EXPECT_EQ(model["meta"]["memory_bytes"], 10);
  const auto unloaded = server.Ask({{"model", "m1"}}, "/models/unload").ReadResponse();
  EXPECT_EQ(json::parse(unloaded.body)["state"], "unloaded");
  const json list = json::parse(server.Get("/v1/models").body)["data"];
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["state"], "unloaded");
  EXPECT_EQ(server.Ask({{"model", "x"}}, "/v1/models/load").ReadResponse().status, 404);
  EXPECT_EQ(server.Ask({{"modle", "m1"}}, "/v1/models/unload").ReadResponse().status, 400);
  EXPECT_EQ(
      server.Ask({{"model", "m1"}, {"force", true}}, "/v1/models/unload").ReadResponse().status,
      400);
}

TEST(ModelOrders, AnUnloadThatTakesLongSaysSo) {
  ServerOptions options;
  options.model_wait_seconds = 0.1;
  TestServer server(options);
  ASSERT_EQ(server.Ask({{"model", "m0"}}).ReadResponse().body, "m0");
  const auto lease = server.registry.Get("m0");
  const auto response = server.Ask({{"model", "m0"}}, "/v1/models/unload").ReadResponse();
  EXPECT_EQ(response.status, 202);
  EXPECT_EQ(json::parse(response.body)["state"], "unloading");
}

TEST(ModelOrders, ALoadCanBeWatched) {
  TestServer server;
  server.source.CloseGate();
  RawClient client = server.Ask({{"model", "m0"}, {"stream", true}}, "/v1/models/load");
  client.ReadUntil(R"("load_progress":0.5)");
  server.source.OpenGate();
  const std::string rest = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(rest, HasSubstr(R"("state":"loaded")"));
  EXPECT_THAT(rest, HasSubstr("data: [DONE]\n\n"));
}

}  // namespace
}  // namespace server
