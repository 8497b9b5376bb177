// A stream that asked for it outlives its connection: whoever has its id and its key reads on where
// the client was, any number of times, until it is forgotten. A client that does not read holds up
// nobody and costs a bounded amount of memory.
#include <gmock/gmock.h>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kResumable[] = "x-tern-resumable: true\r\n";

json StreamBody(const std::string& prompt, int max_tokens) {
  json body = ChatBody(prompt, max_tokens);
  body["stream"] = true;
  body["ignore_eos"] = true;
  return body;
}

constexpr char kAborted[] =
    "tern_request_success_total{finished_reason=\"abort\",model_name=\"demo\"}";
constexpr char kLength[] =
    "tern_request_success_total{finished_reason=\"length\",model_name=\"demo\"}";
constexpr char kRunning[] = "tern_requests_running{model_name=\"demo\"}";

// The events of a stream, each with its final empty line; comments left out.
std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  for (size_t begin = 0; begin < body.size();) {
    const size_t end = body.find("\n\n", begin);
    if (end == std::string::npos) break;
    std::string event = body.substr(begin, end + 2 - begin);
    begin = end + 2;
    if (!event.starts_with(":")) events.push_back(std::move(event));
  }
  return events;
}

std::string Joined(const std::vector<std::string>& events, size_t from) {
  std::string text;
  for (size_t i = from; i < events.size(); ++i) text += events[i];
  return text;
}

struct Started {
  RawClient client;
  std::string id;
};

// Sends the request and reads the head of its answer.
Started Begin(const TestApp& app, const json& body, const std::string& headers = "",
              const std::string& path = "/v1/chat/completions") {
  Started started{app.Connect(), ""};
  started.client.Send(PostText(path, body.dump(), kResumable + headers));
  const auto head = started.client.ReadResponse(true);
  EXPECT_EQ(head.status, 200) << head.head;
  started.id = head.Header("x-tern-stream-id");
  EXPECT_THAT(started.id, ::testing::StartsWith("strm_"));
  return started;
}

std::string RestOf(RawClient& client) {
  std::string text;
  while (auto chunk = client.ReadChunk()) text += *chunk;
  return text;
}

std::vector<std::string> EventsOf(const TestApp& app, const json& body) {
  Started started = Begin(app, body);
  return Events(RestOf(started.client));
}

RawClient::Response Resume(const TestApp& app, const std::string& id, uint64_t after,
                           const std::string& headers = "") {
  RawClient client = app.Connect();
  client.Send(GetText("/v1/streams/" + id + "?after=" + std::to_string(after), headers));
  return client.ReadResponse();
}

std::string ErrorCode(const RawClient::Response& response) {
  return json::parse(response.body)["error"]["code"].get<std::string>();
}

TEST(ResumableStream, GoesOnWithoutItsClientAndIsReadOnFromAnyPlace) {
  TestApp app;
  Started started = Begin(app, StreamBody("Tell me a story.", 300));
  std::vector<std::string> seen;
  while (seen.size() < 5) {
    for (std::string& event : Events(started.client.ReadChunk().value())) {
      seen.push_back(std::move(event));
    }
  }
  started.client.Reset();
  const auto rest = Resume(app, started.id, seen.size());
  EXPECT_EQ(rest.status, 200);
  EXPECT_EQ(rest.Header("Content-Type"), "text/event-stream; charset=utf-8");
  const std::string whole = Joined(seen, 0) + rest.body;
  const EventStream stream(whole);
  EXPECT_TRUE(stream.done);
  EXPECT_EQ(stream.FinishReason(), "length");
  // As it is without an interruption.
  json plain = StreamBody("Tell me a story.", 300);
  plain["stream"] = false;
  EXPECT_EQ(stream.Text(),
            app.PostOk("/v1/chat/completions", plain)["choices"][0]["message"]["content"]);
  EXPECT_EQ(app.Metric("tern_request_success_total{finished_reason=\"abort\","
                       "model_name=\"demo\"}"),
            0);
}

// After its end every place can be read from: of characters of several bytes, several choices, and
// the events of other protocols.
TEST(ResumableStream, EveryPlaceGivesExactlyTheRest) {
  TestApp app;
  json bytes = StreamBody("hi", 60);
  bytes.erase("ignore_eos");
  bytes["guided_choice"] = {"日本語 ħ 🙂🙃 naïve"};
  json choices = StreamBody("hi", 12);
  choices["n"] = 3;
  choices["temperature"] = 1;
  choices["seed"] = 7;
  choices["stream_options"] = {{"include_usage", true}};
  json messages = {{"model", "demo"},
                   {"max_tokens", 10},
                   {"stream", true},
                   {"temperature", 0},
                   {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  json responses = {
      {"model", "demo"}, {"max_output_tokens", 10}, {"stream", true}, {"input", "hi"}};
  for (const auto& [path, body] :
       std::vector<std::pair<std::string, json>>{{"/v1/chat/completions", bytes},
                                                 {"/v1/chat/completions", choices},
                                                 {"/v1/messages", messages},
                                                 {"/v1/responses", responses}}) {
    Started started = Begin(app, body, "", path);
    const std::vector<std::string> events = Events(RestOf(started.client));
    ASSERT_GT(events.size(), 5U) << path;
    for (size_t after = 0; after <= events.size(); ++after) {
      const auto response = Resume(app, started.id, after);
      ASSERT_EQ(response.status, 200);
      EXPECT_EQ(response.body, Joined(events, after)) << path << " after " << after;
    }
    const auto beyond = Resume(app, started.id, events.size() + 1);
    EXPECT_EQ(beyond.status, 400);
    EXPECT_EQ(ErrorCode(beyond), "invalid_value");
  }
  EXPECT_EQ(EventStream(Joined(EventsOf(app, bytes), 0)).Text(), "日本語 ħ 🙂🙃 naïve");
}

TEST(ResumableStream, SeveralMayReadTheSameOneWhileItRuns) {
  TestApp app(OneAtATime());
  json body = LongBody();
  body["n"] = 4;
  Started started = Begin(app, body);
  std::vector<RawClient> readers;
  for (const int after : {0, 1}) {
    readers.push_back(app.Connect());
    readers.back().Send(GetText("/v1/streams/" + started.id + "?after=" + std::to_string(after)));
    EXPECT_EQ(readers.back().ReadResponse(true).status, 200);
  }
  std::vector<std::string> texts;
  texts.push_back(started.client.ReadChunk().value_or(""));
  for (RawClient& reader : readers) texts.push_back(reader.ReadChunk().value_or(""));
  ASSERT_LT(app.Metric(kLength), 4) << "all three read before it has ended";
  readers.push_back(std::move(started.client));
  std::vector<std::future<std::string>> rests;
  for (RawClient& reader : readers) {
    rests.push_back(std::async(std::launch::async, [&reader] { return RestOf(reader); }));
  }
  const std::vector<std::string> events = Events(texts[0] + rests[2].get());
  EXPECT_GT(events.size(), 1000U);
  EXPECT_EQ(Joined(Events(texts[1] + rests[0].get()), 0), Joined(events, 0));
  EXPECT_EQ(Joined(Events(texts[2] + rests[1].get()), 0), Joined(events, 1));
  EXPECT_TRUE(Eventually([&] { return app.Metric(kLength) == 4; }));
}

TEST(ResumableStream, IsFoundByItsKeyAlone) {
  TestAppOptions options;
  options.server.api_keys = {{.name = "alice", .key = "sk-alice"},
                             {.name = "bob", .key = "sk-bob"}};
  TestApp app(options);
  const std::string alice = "Authorization: Bearer sk-alice\r\n";
  const std::string bob = "Authorization: Bearer sk-bob\r\n";
  Started started = Begin(app, StreamBody("hi", 5), alice);
  const std::vector<std::string> events = Events(RestOf(started.client));
  EXPECT_EQ(Resume(app, started.id, 0).status, 401);
  const auto others = Resume(app, started.id, 0, bob);
  EXPECT_EQ(others.status, 404);
  EXPECT_EQ(ErrorCode(others), "stream_not_found");
  const auto unknown = Resume(app, "strm_00", 0, alice);
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(ErrorCode(unknown), "stream_not_found");
  EXPECT_EQ(Resume(app, started.id, 0, alice).body, Joined(events, 0));
  RawClient client = app.Connect();
  for (const std::string bad : {"-1", "%2D1", "%3"}) {
    client.Send(GetText("/v1/streams/" + started.id + "?after=" + bad, alice));
    EXPECT_EQ(client.ReadResponse().status, 400) << bad;
  }
  client.Send(GetText("/v1/streams/" + started.id + "?after=%30", alice));
  EXPECT_EQ(client.ReadResponse().status, 200);
}

TEST(ResumableStream, OnlyThoseThatAskedAre) {
  TestApp app;
  const auto plain = app.Post("/v1/chat/completions", StreamBody("hi", 3));
  EXPECT_EQ(plain.Header("x-tern-stream-id"), "");
  json whole = ChatBody("hi", 3);
  RawClient client = app.Connect();
  client.Send(PostText("/v1/chat/completions", whole.dump(), kResumable));
  EXPECT_EQ(client.ReadResponse().Header("x-tern-stream-id"), "");
  client.Send(
      PostText("/v1/chat/completions", StreamBody("hi", 3).dump(), "x-tern-resumable: yes\r\n"));
  const auto misspelt = client.ReadResponse();
  EXPECT_EQ(misspelt.status, 400);
  EXPECT_EQ(json::parse(misspelt.body)["error"]["param"], "x-tern-resumable");
}

TEST(ResumableStream, ARequestThatFailsAtOnceHasItsStatus) {
  TestAppOptions options = OneAtATime();
  options.scheduler.max_queued_requests = 1;
  options.server.ping_seconds = 0.1;  // so that the head of the one that waits comes soon
  TestApp app(options);
  std::vector<RawClient> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(app.Connect());
    clients.back().Send(PostText("/v1/chat/completions", LongBody().dump(), kResumable));
  }
  int refused = 0;
  for (RawClient& client : clients) {
    const auto head = client.ReadResponse(true);
    if (head.status == 503) ++refused;
  }
  EXPECT_GT(refused, 0);
}

TEST(ResumableStream, IsForgottenAfterAWhileAndItsRequestCancelled) {
  TestAppOptions options = OneAtATime();
  options.server.stream_ttl_seconds = 0.05;
  TestApp app(options);
  Started ended = Begin(app, StreamBody("hi", 3));
  RestOf(ended.client);
  ended.client.Close();
  EXPECT_TRUE(Eventually([&] {
    // Every look begins the time anew.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return Resume(app, ended.id, 0).status == 404;
  }));
  Started running = Begin(app, LongBody());
  running.client.Reset();
  EXPECT_TRUE(Eventually([&] { return app.Metric(kAborted) > 0; }));
  EXPECT_EQ(Resume(app, running.id, 0).status, 404);
  EXPECT_TRUE(Eventually([&] { return app.Metric(kRunning) == 0; }));
}

TEST(ResumableStream, CanBeDeleted) {
  TestApp app(OneAtATime());
  Started started = Begin(app, LongBody());
  RawClient client = app.Connect();
  client.Send("DELETE /v1/streams/" + started.id + " HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_THAT(RestOf(started.client), HasSubstr("The stream was cancelled."));
  EXPECT_EQ(Resume(app, started.id, 0).status, 404);
  EXPECT_TRUE(Eventually([&] { return app.Metric(kRunning) == 0; }));
}

// Who waits for the first event then has an answer of its own, not a stream.
TEST(ResumableStream, CancelledBeforeItsFirstEventIsGone) {
  TestAppOptions options = OneAtATime();
  options.server.ping_seconds = 0.5;  // so that the head of one that waits comes soon
  TestApp app(options);
  Started running = Begin(app, LongBody());
  EXPECT_TRUE(Eventually([&] {
    Started waiting = Begin(app, StreamBody("hi", 3));
    RawClient reader = app.Connect();
    reader.Send(GetText("/v1/streams/" + waiting.id));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    RawClient client = app.Connect();
    client.Send("DELETE /v1/streams/" + waiting.id + " HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 200);
    EXPECT_THAT(RestOf(waiting.client), HasSubstr("stream_cancelled"));
    // On a busy machine it comes too late, or its first ping too early.
    const auto response = reader.ReadResponse();
    return response.status == 410 && ErrorCode(response) == "stream_cancelled";
  }));
}

TEST(ResumableStream, WhatWasReadMakesRoomAndWhatNobodyReadsEnds) {
  TestAppOptions options;
  options.server.stream_buffer_bytes = 1 << 20;
  TestApp app(options);
  json body = StreamBody("Tell me a story.", 900);
  body["n"] = 8;
  // Read by its client to the end, though it is larger than its buffer.
  Started read = Begin(app, body);
  const std::string text = RestOf(read.client);
  EXPECT_THAT(text, HasSubstr("data: [DONE]"));
  EXPECT_GT(text.size(), options.server.stream_buffer_bytes + 100'000);
  const auto gone = Resume(app, read.id, 0);
  EXPECT_EQ(gone.status, 410);
  EXPECT_EQ(ErrorCode(gone), "stream_position_gone");
  // Nobody reads this one.
  Started unread = Begin(app, body);
  unread.client.Reset();
  EXPECT_TRUE(Eventually([&] { return app.Metric(kAborted) > 0; }));
  const size_t kept = Events(text).size() / 2;
  EXPECT_THAT(Resume(app, unread.id, kept).body, HasSubstr("events that nobody has read"));
}

TEST(ResumableStream, NoMoreAreKeptThanAllowed) {
  TestAppOptions options = OneAtATime();
  options.server.max_streams = 2;
  options.server.ping_seconds = 0.1;  // so that the head of one that waits comes soon
  TestApp app(options);
  Started ended = Begin(app, StreamBody("hi", 3));
  RestOf(ended.client);
  ended.client.Close();
  Started running = Begin(app, LongBody());
  // The one that has ended makes room, once its connection is known to have gone.
  std::vector<RawClient> waiting;
  ASSERT_TRUE(Eventually([&] {
    waiting.push_back(app.Connect());
    waiting.back().Send(PostText("/v1/chat/completions", LongBody().dump(), kResumable));
    return waiting.back().ReadResponse(true).status == 200;
  }));
  EXPECT_EQ(Resume(app, ended.id, 0).status, 404);
  // Those that run do not.
  RawClient client = app.Connect();
  client.Send(PostText("/v1/chat/completions", StreamBody("hi", 3).dump(), kResumable));
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(ErrorCode(response), "server_is_overloaded");
}

// Its answer is many times what the sockets and the backlog hold.
TEST(SlowReader, HoldsUpNobodyAndIsCutWhenItsBacklogIsFull) {
  TestAppOptions options;
  options.server.stream_backlog_bytes = 64 << 10;
  TestApp app(options);
  RawClient slow = app.Connect();
  json body = StreamBody("Tell me a story.", 900);
  body["n"] = 16;
  body["temperature"] = 1;
  body["logprobs"] = true;
  body["top_logprobs"] = 20;
  slow.Send(PostText("/v1/chat/completions", body.dump()));
  // The engine goes on for others all the while.
  ASSERT_TRUE(Eventually([&] {
    EXPECT_EQ(app.Post("/v1/chat/completions", ChatBody("hi", 2)).status, 200);
    return app.Metric("tern_requests_running{model_name=\"demo\"}") == 0 &&
           app.Metric("tern_slow_readers_cut_total{model_name=\"demo\"}") == 1;
  }));
  // What it is told when it reads on after all.
  EXPECT_EQ(slow.ReadResponse(true).status, 200);
  const EventStream stream(RestOf(slow));
  ASSERT_TRUE(stream.done);
  EXPECT_EQ(stream.chunks.back()["error"]["code"], "slow_reader");
}

}  // namespace
}  // namespace server
