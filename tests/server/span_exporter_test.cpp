// Property: spans reach a collector that works, in OTLP's JSON to the letter; and a collector that
// is down, slow, busy or refusing costs spans, which are counted, but never a caller's time.
#include "server/span_exporter.h"

#include <gmock/gmock.h>

#include <chrono>

#include "server/otlp_json.h"
#include "tests/server/trace_receiver.h"
#include "tests/support/eventually.h"

namespace server {
namespace {

using support::Eventually;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Span MakeSpan(const std::string& name) {
  Span span;
  span.name = name;
  span.context.trace_id = NewTraceId();
  span.context.span_id = NewSpanId();
  span.context.sampled = true;
  span.start_ns = 1'700'000'000'000'000'000;
  span.end_ns = span.start_ns + 5;
  return span;
}

SpanExporter::Options To(const std::string& url) {
  SpanExporter::Options options;
  options.url = ClientUrl::Parse(url + "/v1/traces");
  options.batch_seconds = 0.01;
  options.retry_seconds = 0.01;
  options.max_retry_seconds = 0.02;
  options.farewell_seconds = 0.5;
  return options;
}

TEST(SpanExporter, SpansArriveAsTheyAre) {
  TraceReceiver receiver;
  SpanExporter::Options options = To(receiver.url());
  options.headers = {{"authorization", "Bearer abc"}};
  options.service_name = "svc";
  SpanExporter exporter(options);
  Span span = MakeSpan("work");
  span.parent = NewSpanId();
  span.kind = Span::Kind::kServer;
  span.context.state = "a=1";
  span.attributes = {{"text", std::string("\"\xff")},
                     {"count", int64_t{1} << 60},
                     {"real", 0.5},
                     {"flag", true},
                     {"list", std::vector<std::string>{"x", "y"}}};
  span.failed = true;
  span.failure = "broken";
  const Span sent = span;
  exporter.Add(std::move(span));
  ASSERT_TRUE(Eventually([&] { return receiver.spans().size() == 1; }));
  EXPECT_THAT(receiver.complaints(), IsEmpty());
  const auto got = receiver.spans()[0];
  EXPECT_EQ(got["traceId"], Hex(sent.context.trace_id));
  EXPECT_EQ(got["spanId"], Hex(sent.context.span_id));
  EXPECT_EQ(got["parentSpanId"], Hex(sent.parent));
  EXPECT_EQ(got["traceState"], "a=1");
  EXPECT_EQ(got["flags"], 1);
  EXPECT_EQ(got["kind"], 2);
  EXPECT_EQ(got["startTimeUnixNano"], "1700000000000000000");
  EXPECT_EQ(got["endTimeUnixNano"], "1700000000000000005");
  EXPECT_EQ(got["status"], (nlohmann::json{{"code", 2}, {"message", "broken"}}));
  EXPECT_EQ(AttributeOf(got, "count"), "1152921504606846976");
  EXPECT_EQ(AttributeOf(got, "real"), 0.5);
  EXPECT_EQ(AttributeOf(got, "flag"), true);
  EXPECT_EQ(AttributeOf(got, "list")["values"][1]["stringValue"], "y");
  EXPECT_EQ(receiver.service(), "svc");
  EXPECT_THAT(receiver.last_head(), HasSubstr("\r\nauthorization: Bearer abc\r\n"));
  EXPECT_TRUE(Eventually([&] { return exporter.stats().sent == 1; }));
}

TEST(SpanExporter, ManySpansTravelInFewRequests) {
  TraceReceiver receiver;
  SpanExporter::Options options = To(receiver.url());
  options.batch_spans = 100;
  options.batch_seconds = 60;
  SpanExporter exporter(options);
  for (int i = 0; i < 300; ++i) exporter.Add(MakeSpan("s" + std::to_string(i)));
  ASSERT_TRUE(Eventually([&] { return receiver.spans().size() == 300; }));
  EXPECT_TRUE(Eventually([&] { return exporter.stats().sent == 300; }));
  EXPECT_EQ(receiver.requests(), 3);
  EXPECT_EQ(receiver.spans()[299]["name"], "s299");
  EXPECT_THAT(receiver.complaints(), IsEmpty());
}

TEST(SpanExporter, BusyCollectorIsAskedAgainWhenItSays) {
  TraceReceiver receiver([](int n) -> std::string {
    if (n == 0) return "429 Too Many Requests\r\nRetry-After: 0.3\r\nContent-Length: 0\r\n\r\n";
    if (n == 1) return "503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    return TraceReceiver::Ok();
  });
  SpanExporter exporter(To(receiver.url()));
  const auto start = std::chrono::steady_clock::now();
  exporter.Add(MakeSpan("late"));
  ASSERT_TRUE(Eventually([&] { return exporter.stats().sent == 1; }));
  EXPECT_EQ(receiver.requests(), 3);
  // Not before it may: a lower bound cannot fail on a slow machine.
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(300));
  EXPECT_EQ(exporter.stats().failed, 0U);
}

TEST(SpanExporter, RefusedSpansAreNotSentAgain) {
  TraceReceiver receiver([](int n) -> std::string {
    if (n == 0) return "400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    return "200 OK\r\nContent-Length: 41\r\n\r\n{\"partialSuccess\":{\"rejectedSpans\":\"1\"}}  ";
  });
  SpanExporter exporter(To(receiver.url()));
  exporter.Add(MakeSpan("refused"));
  ASSERT_TRUE(Eventually([&] { return exporter.stats().failed == 1; }));
  exporter.Add(MakeSpan("rejected"));
  ASSERT_TRUE(Eventually([&] { return exporter.stats().failed == 2; }));
  EXPECT_EQ(receiver.requests(), 2);
  EXPECT_EQ(exporter.stats().sent, 0U);
}

TEST(SpanExporter, CollectorThatIsDownCostsSpansOnly) {
  uint16_t port = 0;
  { port = TraceReceiver().port(); }  // nothing listens there any more
  SpanExporter::Options options = To("http://127.0.0.1:" + std::to_string(port));
  options.queue_spans = 10;
  options.batch_spans = 5;
  options.max_attempts = 2;
  SpanExporter exporter(options);
  for (int i = 0; i < 1000; ++i) exporter.Add(MakeSpan("lost"));
  ASSERT_TRUE(Eventually([&] {
    const auto stats = exporter.stats();
    return stats.failed + stats.dropped == 1000;
  }));
  EXPECT_GT(exporter.stats().dropped, 0U);
  EXPECT_GE(exporter.stats().failed, 5U);
  EXPECT_EQ(exporter.stats().sent, 0U);
}

TEST(SpanExporter, SilentCollectorHoldsUpNobody) {
  TraceReceiver receiver([](int) { return std::string(); });
  SpanExporter::Options options = To(receiver.url());
  options.timeout_seconds = 3600;
  options.queue_spans = 4;
  options.batch_spans = 1;
  options.farewell_seconds = 0.2;
  auto exporter = std::make_unique<SpanExporter>(options);
  exporter->Add(MakeSpan("first"));
  ASSERT_TRUE(Eventually([&] { return receiver.requests() == 1; }));
  // The exporter's thread now waits for an hour; adding does not.
  for (int i = 0; i < 100; ++i) exporter->Add(MakeSpan("more"));
  EXPECT_EQ(exporter->stats().dropped, 96U);
  exporter.reset();  // and neither does the end
}

TEST(SpanExporter, WhatIsLeftIsSentAtTheEnd) {
  TraceReceiver receiver;
  {
    SpanExporter::Options options = To(receiver.url());
    options.batch_seconds = 3600;
    SpanExporter exporter(options);
    exporter.Add(MakeSpan("last"));
  }
  EXPECT_EQ(receiver.spans().size(), 1U);
}

TEST(ClientUrl, ReadsWhatAUrlMayBe) {
  const ClientUrl plain = ClientUrl::Parse("http://host");
  EXPECT_EQ(plain.host, "host");
  EXPECT_EQ(plain.port, 80);
  EXPECT_EQ(plain.path, "/");
  EXPECT_FALSE(plain.tls);
  const ClientUrl full = ClientUrl::Parse("https://[::1]:4318/base?x=1#f");
  EXPECT_EQ(full.host, "::1");
  EXPECT_EQ(full.port, 4318);
  EXPECT_EQ(full.path, "/base?x=1");
  EXPECT_EQ(full.Authority(), "[::1]:4318");
  EXPECT_TRUE(full.tls);
  EXPECT_EQ(ClientUrl::Parse("https://h").port, 443);
  for (const char* bad : {"", "host:80", "ftp://h", "http://", "http://:80", "http://h:0",
                          "http://h:99999", "http://h:x", "http://u:p@h", "http://h /x"}) {
    EXPECT_THROW(ClientUrl::Parse(bad), std::invalid_argument) << bad;
  }
}

}  // namespace
}  // namespace server
