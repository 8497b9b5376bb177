// Property: a request's spans tell whose they are, what happened when, and how it ended; they carry
// OpenTelemetry's names; a caller's decision is followed; and no trace can harm a request.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/integration/test_app.h"
#include "tests/server/trace_receiver.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kCaller[] = "b7ad6b7169203331";

std::string ParentHeader(const std::string& flags) {
  return "traceparent: 00-" + std::string(kTrace) + "-" + kCaller + "-" + flags + "\r\n";
}

TestAppOptions To(const std::string& url) {
  TestAppOptions options;
  options.server.otlp_endpoint = url;
  return options;
}

RawClient::Response PostWith(const TestApp& app, const std::string& path, const json& body,
                             const std::string& headers) {
  RawClient client = app.Connect();
  client.Send(PostText(path, body.dump(), headers));
  return client.ReadResponse();
}

int64_t Start(const json& span) {
  return std::stoll(span.at("startTimeUnixNano").get<std::string>());
}
int64_t End(const json& span) { return std::stoll(span.at("endTimeUnixNano").get<std::string>()); }

TEST(Traces, ChatIsOneTreeWithItsPhasesInOrder) {
  TraceReceiver receiver;
  TestApp app(To(receiver.url()));
  const int64_t before = std::chrono::duration_cast<std::chrono::nanoseconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count();
  json body = ChatBody("Tell me a story.", 12);
  body["ignore_eos"] = true;
  const auto response =
      PostWith(app, "/v1/chat/completions", body, ParentHeader("01") + "tracestate: vendor=1\r\n");
  ASSERT_EQ(response.status, 200) << response.body;
  ASSERT_TRUE(Eventually([&] { return receiver.spans().size() == 5; }));
  EXPECT_THAT(receiver.complaints(), IsEmpty());
  const json http = receiver.Find("POST /v1/chat/completions");
  const json chat = receiver.Find("chat demo");
  const json queue = receiver.Find("queue");
  const json prefill = receiver.Find("prefill");
  const json decode = receiver.Find("decode");
  for (const json& span : {http, chat, queue, prefill, decode}) {
    ASSERT_FALSE(span.is_null());
    EXPECT_EQ(span["traceId"], kTrace);
    EXPECT_EQ(span["traceState"], "vendor=1");
    EXPECT_FALSE(span["status"].contains("code"));
  }
  EXPECT_EQ(http["parentSpanId"], kCaller);
  EXPECT_EQ(http["kind"], 2);
  EXPECT_EQ(chat["parentSpanId"], http["spanId"]);
  for (const json& phase : {queue, prefill, decode}) {
    EXPECT_EQ(phase["parentSpanId"], chat["spanId"]);
  }
  // The answer names the server's span.
  EXPECT_EQ(response.Header("traceparent"),
            "00-" + std::string(kTrace) + "-" + http["spanId"].get<std::string>() + "-01");
  EXPECT_EQ(response.Header("tracestate"), "vendor=1");
  // One after the other, within each other.
  EXPECT_LE(before, Start(http));
  EXPECT_LE(Start(http), Start(chat));
  EXPECT_LE(Start(chat), Start(queue));
  EXPECT_EQ(End(queue), Start(prefill));
  EXPECT_EQ(End(prefill), Start(decode));
  EXPECT_LT(Start(decode), End(decode));
  EXPECT_LE(End(decode), End(chat));
  EXPECT_LE(End(chat), End(http));

  const json usage = json::parse(response.body)["usage"];
  EXPECT_EQ(AttributeOf(chat, "gen_ai.operation.name"), "chat");
  EXPECT_EQ(AttributeOf(chat, "gen_ai.request.model"), "demo");
  EXPECT_EQ(AttributeOf(chat, "gen_ai.response.model"), "demo");
  EXPECT_EQ(AttributeOf(chat, "gen_ai.request.max_tokens"), "12");
  EXPECT_EQ(AttributeOf(chat, "gen_ai.usage.input_tokens"),
            std::to_string(usage["prompt_tokens"].get<int>()));
  EXPECT_EQ(AttributeOf(chat, "gen_ai.usage.output_tokens"), "12");
  EXPECT_EQ(AttributeOf(chat, "gen_ai.response.finish_reasons")["values"][0]["stringValue"],
            "length");
  EXPECT_EQ(AttributeOf(http, "http.request.method"), "POST");
  EXPECT_EQ(AttributeOf(http, "http.route"), "/v1/chat/completions");
  EXPECT_EQ(AttributeOf(http, "http.response.status_code"), "200");
  EXPECT_EQ(AttributeOf(http, "tern.request_id"), response.Header("x-request-id"));
  // Nothing of what was said.
  for (const json& span : receiver.spans()) EXPECT_THAT(span.dump(), Not(HasSubstr("story")));
  EXPECT_TRUE(
      Eventually([&] { return app.Metric("tern_trace_spans_total{result=\"sent\"}") == 5; }));
}

TEST(Traces, StreamsChoicesAndEmbeddingsHaveTheirs) {
  TraceReceiver receiver;
  TestApp app(To(receiver.url()));
  json body = {{"prompt", {"Once", "Twice"}}, {"n", 2}, {"max_tokens", 4}, {"stream", true}};
  EXPECT_EQ(app.Post("/v1/completions", body).status, 200);
  ASSERT_TRUE(Eventually([&] { return !receiver.Find("POST /v1/completions").is_null(); }));
  const json work = receiver.Find("text_completion demo");
  EXPECT_EQ(AttributeOf(work, "gen_ai.request.choice.count"), "2");
  int prefills = 0;
  for (const json& span : receiver.spans()) {
    if (span["name"] != "prefill") continue;
    EXPECT_EQ(AttributeOf(span, "tern.prompt.index"), std::to_string(prefills++));
  }
  EXPECT_EQ(prefills, 2);
  // A trace that begins here has a root.
  EXPECT_FALSE(receiver.Find("POST /v1/completions").contains("parentSpanId"));

  EXPECT_EQ(app.Post("/v1/embeddings", {{"input", "a text"}}).status, 200);
  ASSERT_TRUE(Eventually([&] { return !receiver.Find("POST /v1/embeddings").is_null(); }));
  EXPECT_FALSE(receiver.Find("embeddings demo").is_null());
  EXPECT_THAT(receiver.complaints(), IsEmpty());
}

TEST(Traces, ErrorsAndLostClientsShowInTheSpans) {
  TraceReceiver receiver;
  TestAppOptions options = OneAtATime();
  options.server.otlp_endpoint = receiver.url();
  TestApp app(options);
  // The client's fault is no error of the server's span.
  EXPECT_EQ(
      app.Post("/v1/chat/completions", {{"model", "nobody"}, {"messages", json::array()}}).status /
          100,
      4);
  ASSERT_TRUE(Eventually([&] { return receiver.spans().size() == 1; }));
  EXPECT_FALSE(receiver.spans()[0]["status"].contains("code"));
  {
    RawClient client = app.Connect();
    client.Send(PostText("/v1/chat/completions", LongBody().dump()));
    client.ReadUntil("data: ");
    client.Reset();
  }
  ASSERT_TRUE(Eventually([&] { return !receiver.Find("chat demo").is_null(); }));
  const json chat = receiver.Find("chat demo");
  EXPECT_EQ(AttributeOf(chat, "tern.cancelled"), true);
  EXPECT_EQ(AttributeOf(chat, "gen_ai.response.finish_reasons")["values"].back()["stringValue"],
            "abort");
  // However far it got: one that ended before its second token has no span of decoding.
  EXPECT_TRUE(Eventually([&] {
    const auto spans = receiver.spans();
    return std::any_of(spans.begin(), spans.end(), [](const json& span) {
      return AttributeOf(span, "tern.client_gone") == true;
    });
  }));

  // A server that ends cuts its requests: that is an error.
  RawClient client = app.Connect();
  client.Send(PostText("/v1/chat/completions", LongBody().dump()));
  client.ReadUntil("data: ");
  app.app().BeginShutdown();
  app.app().BeginShutdown();
  app.app().Wait();
  const auto failed = [&] {
    for (const json& span : receiver.spans()) {
      if (span["name"] == "chat demo" && span["status"].value("code", 0) == 2) return true;
    }
    return false;
  };
  EXPECT_TRUE(Eventually(failed));
}

TEST(Traces, CallersDecideUnlessToldOtherwise) {
  TraceReceiver receiver;
  {
    TestApp app(To(receiver.url()));
    const auto response =
        PostWith(app, "/v1/chat/completions", ChatBody("Hi", 2), ParentHeader("00"));
    EXPECT_THAT(response.Header("traceparent"), StartsWith("00-" + std::string(kTrace)));
    EXPECT_THAT(response.Header("traceparent"), ::testing::EndsWith("-00"));
    // Probes are no requests, and a parent that makes no sense is none.
    app.Get("/health");
    EXPECT_EQ(
        PostWith(app, "/v1/chat/completions", ChatBody("Hi", 1), "traceparent: 00-x\r\n").status,
        200);
    EXPECT_TRUE(Eventually([&] { return !receiver.Find("POST /v1/chat/completions").is_null(); }));
  }
  for (const json& span : receiver.spans()) {
    EXPECT_NE(span["traceId"], kTrace);
    EXPECT_NE(span["name"], "GET /health");
  }
  TraceReceiver none;
  {
    TestAppOptions options = To(none.url());
    options.server.trace_follows_caller = false;
    options.server.trace_ratio = 0;
    TestApp app(options);
    EXPECT_EQ(PostWith(app, "/v1/chat/completions", ChatBody("Hi", 2), ParentHeader("01")).status,
              200);
  }
  EXPECT_EQ(none.requests(), 0);
}

TEST(Traces, WithoutACollectorACallersTraceIsStillNamed) {
  TestApp app;
  const auto response =
      PostWith(app, "/v1/chat/completions", ChatBody("Hi", 2), ParentHeader("01"));
  EXPECT_THAT(response.Header("traceparent"), StartsWith("00-" + std::string(kTrace)));
  EXPECT_THAT(response.Header("traceparent"), Not(HasSubstr(kCaller)));
  EXPECT_EQ(app.Post("/v1/chat/completions", ChatBody("Hi", 2)).Header("traceparent"), "");
}

TEST(Traces, ADeadOrSilentCollectorCostsNoRequestAnything) {
  TraceReceiver silent([](int) { return std::string(); });
  uint16_t dead = 0;
  { dead = TraceReceiver().port(); }
  for (const std::string& url : {silent.url(), "http://127.0.0.1:" + std::to_string(dead)}) {
    TestApp app(To(url));
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(app.Post("/v1/chat/completions", ChatBody("Hi", 2)).status, 200);
    }
    app.app().BeginShutdown();
    EXPECT_EQ(app.app().Wait(), 0);
  }
}

}  // namespace
}  // namespace server
