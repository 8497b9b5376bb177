// Property: a load test sends what was planned when it was planned, measures by the published
// definitions, and counts what went wrong by its kind.
#include <gmock/gmock.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>

#include "cli/load_runner.h"
#include "cli/load_stats.h"
#include "server/http_server.h"

namespace cli {
namespace {

using server::Json;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LoadStats, FollowsTheDefinitions) {
  std::vector<LoadSample> samples = {
      {.sent = 10,
       .first = 0.5,
       .last = 1.5,
       .gaps = {0.4, 0.6},
       .prompt_tokens = 7,
       .output_tokens = 5},
      {.sent = 11, .first = 0.1, .last = 0.1, .prompt_tokens = 3, .output_tokens = 1},
      {.sent = 12, .error = "timeout", .last = 8}};
  EXPECT_DOUBLE_EQ(*samples[0].TimePerToken(), 0.25);  // (1.5 - 0.5) / (5 - 1)
  EXPECT_FALSE(samples[1].TimePerToken());
  LoadGoals goals;
  goals.first = 0.2;
  const LoadSummary summary = Summarise(samples, goals);
  EXPECT_EQ(summary.requests, 3U);
  EXPECT_EQ(summary.completed, 2U);
  EXPECT_EQ(summary.errors.at("timeout"), 1U);
  EXPECT_DOUBLE_EQ(summary.seconds, 10);  // from 10 to 12 + 8
  EXPECT_DOUBLE_EQ(summary.requests_per_second, 0.2);
  EXPECT_DOUBLE_EQ(*summary.goodput, 0.1);
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_second, 0.6);
  EXPECT_DOUBLE_EQ(summary.total_tokens_per_second, 1.6);
  EXPECT_DOUBLE_EQ(summary.concurrency, 0.16);
  EXPECT_DOUBLE_EQ(summary.first.mean, 0.3);
  EXPECT_EQ(summary.gap.count, 2U);
  EXPECT_DOUBLE_EQ(summary.gap.p50, 0.5);
  EXPECT_EQ(summary.per_token.count, 1U);
  EXPECT_FALSE(Summarise(samples, {}).goodput);
  EXPECT_THAT(ToMarkdown(summary), HasSubstr("| completed / requests | 2 / 3 |"));
  EXPECT_THAT(ToMarkdown(summary), HasSubstr("| error timeout | 1 |"));
  EXPECT_EQ(ToJson(summary)["ttft_seconds"]["max"], 0.5);
}

TEST(LoadStats, AnInterruptedRunSaysSo) {
  LoadSummary summary = Summarise({{.first = 1, .last = 2}}, {});
  EXPECT_EQ(ToJson(summary)["interrupted"], false);
  EXPECT_THAT(ToMarkdown(summary), Not(HasSubstr("interrupted")));
  summary.interrupted = true;
  EXPECT_EQ(ToJson(summary)["interrupted"], true);
  EXPECT_THAT(ToMarkdown(summary), HasSubstr("| interrupted | yes"));
}

TEST(LoadStats, PercentilesInterpolate) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Distribution all = Describe(values);
  EXPECT_DOUBLE_EQ(all.mean, 50.5);
  EXPECT_DOUBLE_EQ(all.p50, 50.5);
  EXPECT_DOUBLE_EQ(all.p90, 90.1);
  EXPECT_DOUBLE_EQ(all.p99, 99.01);
  EXPECT_DOUBLE_EQ(all.max, 100);
  EXPECT_EQ(Describe({}).count, 0U);
  EXPECT_DOUBLE_EQ(Describe({3}).p99, 3);
}

TEST(LoadStats, GoalsHoldTogether) {
  const LoadSample sample{.first = 0.5, .last = 1.5, .output_tokens = 5};
  EXPECT_TRUE((LoadGoals{.first = 0.5, .per_token = 0.25, .last = 1.5}.Met(sample)));
  EXPECT_FALSE((LoadGoals{.first = 0.4}.Met(sample)));
  EXPECT_FALSE((LoadGoals{.per_token = 0.24}.Met(sample)));
  EXPECT_FALSE((LoadGoals{.last = 1.4}.Met(sample)));
  EXPECT_FALSE((LoadGoals{.last = 9}.Met({.error = "closed", .last = 1})));
}

// A server whose streams are scripted by "prompt" of the request.
class ScriptedServer {
 public:
  ScriptedServer() {
    server::ServerOptions options;
    options.port = 0;
    options.log_requests = false;
    server::Router router;
    router.Add({.method = "POST",
                .path = "/v1/completions",
                .access = server::Router::Access::kOpen,
                .json = true,
                .handler = [this](const server::HttpRequest& http, server::HttpExchange& exchange) {
                  return Answer(http, exchange);
                }});
    server_.emplace(options, std::move(router), nullptr);
    server_->Start();
  }
  ~ScriptedServer() { server_->Stop(); }

  LoadPlan PlanOf(std::vector<std::string> prompts) const {
    LoadPlan plan;
    plan.url = server::ClientUrl::Parse("http://127.0.0.1:" + std::to_string(server_->port()) +
                                        "/v1/completions");
    plan.headers = {{"Content-Type", "application/json"}};
    for (const std::string& prompt : prompts)
      plan.bodies.push_back(Json{{"prompt", prompt}}.dump());
    plan.timeout_seconds = 20;
    return plan;
  }
  int most_at_once() const { return most_; }
  int served() const { return served_; }

 private:
  boost::asio::awaitable<void> Answer(const server::HttpRequest& http,
                                      server::HttpExchange& exchange) {
    ++served_;
    most_ = std::max(most_.load(), ++now_);
    const std::shared_ptr<void> leave(nullptr, [this](void*) { --now_; });
    const std::string prompt = Json::parse(http.body)["prompt"];
    if (prompt == "busy") {
      server::HttpResponse refusal;
      refusal.status = 503;
      refusal.body = R"({"error":{"message":"come\nback | later"}})";
      co_await exchange.Reply(refusal);
      co_return;
    }
    server::HttpResponse head;
    head.content_type = "text/event-stream";
    co_await exchange.StartStream(head);
    for (const std::string& text : Frames(prompt)) {
      boost::asio::steady_timer pause(co_await boost::asio::this_coro::executor,
                                      std::chrono::milliseconds(20));
      co_await pause.async_wait(boost::asio::use_awaitable);
      co_await exchange.Write(text);
    }
    co_await exchange.FinishStream();
  }

  static std::vector<std::string> Frames(const std::string& prompt) {
    if (prompt == "empty") return {"data: [DONE]\n\n"};
    if (prompt == "error")
      return {R"(data: {"error":{"message":"no"}})"
              "\n\n"};
    return {": ping\n\n",
            R"(data: {"choices":[{"index":0,"text":""}]})"
            "\n\n",
            R"(data: {"choices":[{"index":0,"text":"a"}]})"
            "\r\n\r\n",
            // Two events at once, the second one cut in two by the wire.
            R"(data: {"choices":[{"index":0,"text":"b"}]})"
            "\n\n"
            R"(data: {"choices":[{"ind)",
            R"(ex":0,"delta":{"reasoning_content":"c"}}]})"
            "\n\n",
            R"(data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5}})"
            "\n\n",
            "data: [DONE]\n\n"};
  }

  std::optional<server::HttpServer> server_;
  std::atomic<int> now_ = 0;
  std::atomic<int> most_ = 0;
  std::atomic<int> served_ = 0;
};

std::vector<LoadSample> Go(const LoadPlan& plan) {
  server::HttpClient client(server::HttpClient::Options{});
  return RunLoad(
      client, plan, [](size_t, double) {}, [] { return false; });
}

TEST(LoadRunner, TimesAreThoseOfPiecesWithText) {
  ScriptedServer server;
  LoadPlan plan = server.PlanOf({"tell"});
  plan.requests = 1;
  const auto samples = Go(plan);
  ASSERT_EQ(samples.size(), 1U);
  const LoadSample& sample = samples[0];
  EXPECT_EQ(sample.error, "");
  EXPECT_EQ(sample.prompt_tokens, 11U);
  EXPECT_EQ(sample.output_tokens, 5U);
  // Three pieces had text; the ping, the empty one and the usage had not. Lower bounds only: a
  // machine may be slow.
  EXPECT_EQ(sample.gaps.size(), 2U);
  EXPECT_GE(sample.first, 0.06);
  EXPECT_GE(sample.last, sample.first + 0.04);
  EXPECT_NEAR(sample.first + sample.gaps[0] + sample.gaps[1], sample.last, 1e-9);
}

TEST(LoadRunner, ClosedLoopKeepsItsNumberUnderWay) {
  ScriptedServer server;
  LoadPlan plan = server.PlanOf({"tell"});
  plan.requests = 20;
  plan.concurrency = 4;
  EXPECT_EQ(Go(plan).size(), 20U);
  EXPECT_EQ(server.served(), 20);
  EXPECT_EQ(server.most_at_once(), 4);
}

TEST(LoadRunner, OpenLoopDoesNotWaitForAnswers) {
  ScriptedServer server;
  LoadPlan plan = server.PlanOf({"tell"});
  plan.requests = 50;
  plan.rate = 500;  // an answer takes at least 140 ms: 70 gaps
  plan.seed = 5;
  const auto samples = Go(plan);
  EXPECT_EQ(samples.size(), 50U);
  EXPECT_GT(server.most_at_once(), 4);
  // The same seed plans the same times; they are not evenly spaced.
  std::vector<double> planned;
  for (const LoadSample& sample : samples) planned.push_back(sample.sent - sample.late);
  std::sort(planned.begin(), planned.end());
  std::vector<double> again;
  for (const LoadSample& sample : Go(plan)) again.push_back(sample.sent - sample.late);
  std::sort(again.begin(), again.end());
  double least = 1;
  double most = 0;
  for (size_t i = 0; i < planned.size(); ++i) {
    EXPECT_NEAR(planned[i], again[i], 1e-3);
    if (i == 0) continue;
    least = std::min(least, planned[i] - planned[i - 1]);
    most = std::max(most, planned[i] - planned[i - 1]);
  }
  EXPECT_LT(least * 4, most);
}

TEST(LoadRunner, ErrorsAreCountedByTheirKind) {
  ScriptedServer server;
  LoadPlan plan = server.PlanOf({"tell", "busy", "empty", "error"});
  plan.requests = 8;
  plan.concurrency = 2;
  const LoadSummary summary = Summarise(Go(plan), {});
  EXPECT_EQ(summary.completed, 2U);
  const std::map<std::string, size_t> expected = {
      {"http_503", 2}, {"no_tokens", 2}, {"stream_error", 2}};
  EXPECT_EQ(summary.errors, expected);
  const std::map<std::string, std::string> messages = {{"http_503", "come back | later"},
                                                       {"stream_error", "no"}};
  EXPECT_EQ(summary.messages, messages);
  EXPECT_EQ(ToJson(summary)["error_messages"]["http_503"], "come back | later");
  EXPECT_THAT(ToMarkdown(summary), HasSubstr("| error http_503 | 2: come back \\| later |\n"));
  EXPECT_THAT(ToMarkdown(summary), HasSubstr("| error no_tokens | 2 |\n"));
  plan.url.port = 1;
  plan.requests = 3;
  EXPECT_EQ(Summarise(Go(plan), {}).errors.at("connect"), 3U);
  EXPECT_THAT(Summarise(Go(plan), {}).messages.at("connect"), HasSubstr("cannot connect to "));
}

TEST(LoadRunner, MessagesAreOneLineAndNotTooLong) {
  EXPECT_EQ(OneLine("  a\r\n\tb \x7F c\n"), "a b c");
  EXPECT_EQ(OneLine(""), "");
  EXPECT_EQ(OneLine(std::string(200, 'x')), std::string(200, 'x'));
  EXPECT_EQ(OneLine(std::string(201, 'x')), std::string(200, 'x') + "...");
  // A character of three bytes is not cut.
  const std::string longer = std::string(199, 'x') + "\xE2\x82\xAC and more";
  EXPECT_EQ(OneLine(longer), std::string(199, 'x') + "...");
}

TEST(LoadRunner, StopWaitsNeitherForAHangingServerNorForTheSchedule) {
  boost::asio::io_context io;
  boost::asio::ip::tcp::acceptor silent(io, {boost::asio::ip::address_v4::loopback(), 0});
  const auto stopped = [](const LoadPlan& plan) {
    server::HttpClient client(server::HttpClient::Options{});
    return RunLoad(
        client, plan, [](size_t, double) {}, [asked = 0]() mutable { return ++asked > 5; });
  };
  LoadPlan plan;
  plan.url.host = "127.0.0.1";
  plan.url.port = silent.local_endpoint().port();
  plan.bodies = {"{}"};
  plan.duration = 3600;
  plan.timeout_seconds = 3600;
  plan.stop_seconds = 0.1;
  plan.concurrency = 3;
  const LoadSummary summary = Summarise(stopped(plan), {});
  EXPECT_EQ(summary.requests, 3U);
  EXPECT_EQ(summary.errors.at("interrupted"), 3U);
  plan.rate = 0.0001;  // the first request in hours
  EXPECT_TRUE(stopped(plan).empty());
}

TEST(LoadRunner, StopsWhenTheTimeIsOver) {
  ScriptedServer server;
  LoadPlan plan = server.PlanOf({"tell"});
  plan.duration = 0.3;
  plan.concurrency = 2;
  const auto samples = Go(plan);
  EXPECT_GE(samples.size(), 2U);
  for (const LoadSample& sample : samples) EXPECT_LT(sample.sent, 0.3);
}

}  // namespace
}  // namespace cli
