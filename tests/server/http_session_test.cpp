// The HTTP layer against hostile and ordinary clients over raw sockets: limits have their status,
// ambiguous requests are refused and the connection ends, pipelined requests are answered in order,
// and a client that goes away is noticed while a handler waits.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "server/api_key_options.h"
#include "server/event_queue.h"
#include "server/http_server.h"
#include "tests/server/raw_client.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;
namespace {

namespace asio = boost::asio;

// Waits for what another thread does; the limit only ends a test that fails.
ServerOptions TestOptions() {
  ServerOptions options;
  options.port = 0;
  options.log_requests = false;
  options.max_body_bytes = 100'000;
  options.header_timeout_seconds = 5;
  options.body_timeout_seconds = 5;
  options.idle_timeout_seconds = 5;
  return options;
}

// Echoes bodies, streams lines, and waits for its client's end.
class TestServer {
 public:
  explicit TestServer(ServerOptions options = TestOptions())
      : server_(std::move(options), MakeRouter(), [this](const RequestRecord& record) {
          ++records;
          if (record.client_gone) ++gone_records;
        }) {
    server_.Start();
  }
  RawClient Connect() { return RawClient(server_.port()); }
  RawClient::Response Ask(const std::string& text) {
    RawClient client = Connect();
    client.Send(text);
    return client.ReadResponse();
  }
  HttpServer& server() { return server_; }

  std::atomic<int> waiting{0};
  std::atomic<int> gone{0};
  std::atomic<int> records{0};
  std::atomic<int> gone_records{0};

 private:
  Router MakeRouter() {
    Router router;
    router.Add({.method = "POST",
                .path = "/echo",
                .access = Router::Access::kKey,
                .json = true,
                .handler = [](const HttpRequest& request, HttpExchange& exchange) {
                  return Echo(request, exchange);
                }});
    router.Add({.method = "GET",
                .path = "/open",
                .access = Router::Access::kOpen,
                .handler = [](const HttpRequest& request, HttpExchange& exchange) {
                  return Echo(request, exchange);
                }});
    router.Add(
        {.method = "GET",
         .path = "/stream",
         .handler = [](const HttpRequest&, HttpExchange& exchange) { return Lines(exchange); }});
    router.Add(
        {.method = "GET",
         .path = "/flood",
         .handler = [](const HttpRequest&, HttpExchange& exchange) { return Flood(exchange); }});
    router.Add({.method = "POST",
                .path = "/wait",
                .access = Router::Access::kKey,
                .json = true,
                .handler = [this](const HttpRequest&, HttpExchange& exchange) {
                  return WaitForEnd(exchange);
                }});
    router.Add({.method = "POST",
                .path = "/linger",
                .access = Router::Access::kKey,
                .json = true,
                .handler = [this](const HttpRequest&, HttpExchange& exchange) {
                  return ReplyAndWaitForEnd(exchange);
                }});
    router.Add({.method = "GET",
                .path = "/admin",
                .access = Router::Access::kAdmin,
                .handler = [](const HttpRequest& request, HttpExchange& exchange) {
                  return Echo(request, exchange);
                }});
    router.Add({.method = "GET",
                .path = "/throw",
                .handler = [](const HttpRequest&, HttpExchange&) -> asio::awaitable<void> {
                  throw std::runtime_error("secret detail");
                }});
    return router;
  }

  static asio::awaitable<void> Echo(const HttpRequest& request, HttpExchange& exchange) {
    HttpResponse response;
    response.body = request.body;
    response.headers.emplace_back("x-key-name", request.key_name);
    co_await exchange.Reply(response);
  }
  static asio::awaitable<void> Lines(HttpExchange& exchange) {
    HttpResponse head;
    head.content_type = "text/event-stream";
    co_await exchange.StartStream(head);
    co_await exchange.Write("one\n");
    co_await exchange.Write("two\n");
    co_await exchange.FinishStream();
  }
  static asio::awaitable<void> Flood(HttpExchange& exchange) {
    const HttpResponse head;
    co_await exchange.StartStream(head);
    const std::string megabyte(1 << 20, 'x');
    while (co_await exchange.Write(megabyte)) {
    }
  }
  asio::awaitable<void> ReplyAndWaitForEnd(HttpExchange& exchange) {
    const HttpResponse response;
    co_await exchange.Reply(response);
    auto queue = std::make_shared<EventQueue>();
    const auto wake = co_await exchange.WaitFor(*queue, 15);
    queue->SetNotify({});
    if (wake == HttpExchange::Wake::kGone) ++gone;
  }
  asio::awaitable<void> WaitForEnd(HttpExchange& exchange) {
    auto queue = std::make_shared<EventQueue>();
    ++waiting;
    const auto wake = co_await exchange.WaitFor(*queue, 15);
    queue->SetNotify({});
    if (wake == HttpExchange::Wake::kGone) ++gone;
    const HttpResponse response;
    co_await exchange.Reply(response);
  }

  HttpServer server_;
};

std::string ErrorCode(const RawClient::Response& response) {
  const auto error = nlohmann::json::parse(response.body).at("error");
  return error.at("code").is_null() ? "null" : error.at("code").get<std::string>();
}

TEST(HttpSession, KeepsTheConnectionForTheNextRequest) {
  TestServer server;
  RawClient client = server.Connect();
  for (int i = 0; i < 3; ++i) {
    client.Send(PostText("/echo", std::string("[") + std::to_string(i) + "]"));
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, std::string("[") + std::to_string(i) + "]");
    EXPECT_EQ(response.Header("Connection"), "");
    EXPECT_TRUE(response.Header("x-request-id").starts_with("req_"));
  }
}

TEST(HttpSession, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(PostText("/echo", "\"a\"") + GetText("/stream") + PostText("/echo", "\"b\""));
  EXPECT_EQ(client.ReadResponse().body, "\"a\"");
  EXPECT_EQ(client.ReadResponse().body, "one\ntwo\n");
  EXPECT_EQ(client.ReadResponse().body, "\"b\"");
}

TEST(HttpSession, StreamsInChunksAndToHttp10UntilTheEnd) {
  TestServer server;
  const auto chunked = server.Ask(GetText("/stream"));
  EXPECT_EQ(chunked.Header("Transfer-Encoding"), "chunked");
  EXPECT_EQ(chunked.Header("Content-Length"), "");
  RawClient old = server.Connect();
  old.Send("GET /stream HTTP/1.0\r\n\r\n");
  const std::string all = old.ReadToEnd();
  EXPECT_EQ(all.find("Transfer-Encoding"), std::string::npos);
  EXPECT_TRUE(all.ends_with("\r\n\r\none\ntwo\n")) << all;
}

TEST(HttpSession, UnknownPathsAndMethods) {
  TestServer server;
  const auto unknown = server.Ask(GetText("/nothing"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(ErrorCode(unknown), "null");
  const auto method = server.Ask(GetText("/echo"));
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.Header("Allow"), "POST, OPTIONS");
  EXPECT_EQ(ErrorCode(method), "method_not_supported");
  const auto brew = server.Ask("BREW /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(brew.status, 405);
}

TEST(HttpSession, HeadHasTheHeadersWithoutTheBody) {
  TestServer server;
  RawClient client = server.Connect();
  for (const std::string path : {"/open", "/stream", "/flood"}) {
    client.Send("HEAD " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" + GetText("/open"));
    EXPECT_EQ(client.ReadResponse(true).status, 200) << path;
    EXPECT_EQ(client.ReadResponse().status, 200) << path;
  }
}

TEST(HttpSession, AmbiguousRequestsAreRefusedAndTheConnectionEnds) {
  TestServer server;
  const std::string smuggled = "GET /open HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  for (const std::string& bad :
       {head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
        head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n[] ",
        head + "Content-Length: 2, 2\r\n\r\n[]",
        head + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        head + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        head + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        head + "Transfer-Encoding: identity\r\n\r\n[]",
        head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        head + "Content-Length: -1\r\n\r\n",
        head + "Content-Length: +2\r\n\r\n[]",
        head + "Content-Length: 0x2\r\n\r\n[]",
        head + "Content-Length: \r\n\r\n",
        head + "Content-Length : 2\r\n\r\n[]",
        head + "Content-Length: 99999999999999999999999\r\n\r\n",
        std::string("POST /echo HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::string("GET /open HTTP/1.1\r\n\r\n"),
        std::string("GET /open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        std::string("GET /open HTTP/3.0\r\nHost: x\r\n\r\n"),
        std::string("GET /open\r\nHost: x\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01"
                    "garbage\r\n\r\n"),
        std::string("GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")}) {
    RawClient client = server.Connect();
    client.Send(bad + smuggled);
    ::shutdown(client.fd(), SHUT_WR);
    const std::string all = client.ReadToEnd();
    EXPECT_TRUE(all.starts_with("HTTP/1.1 400 ")) << bad << "\n->\n" << all;
    // One answer only: what followed was not taken for a request.
    EXPECT_EQ(all.find("}HTTP/1.1 "), std::string::npos) << bad << "\n->\n" << all;
  }
}

TEST(HttpSession, LimitsHaveTheirStatus) {
  TestServer server;
  EXPECT_EQ(server.Ask(GetText(std::string("/") + std::string(9000, 'a'))).status, 414);
  EXPECT_EQ(server.Ask(GetText(std::string("/") + std::string(100'000, 'a'))).status, 414);
  EXPECT_EQ(
      server.Ask(GetText("/open", std::string("X: ") + std::string(40'000, 'a') + "\r\n")).status,
      431);
  std::string lines;
  for (int i = 0; i < 101; ++i) lines += std::string("X-") + std::to_string(i) + ": 1\r\n";
  EXPECT_EQ(server.Ask(GetText("/open", lines)).status, 431);
  const auto large = server.Ask(PostText("/echo", std::string(100'001, ' ')));
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(ErrorCode(large), "request_too_large");
  EXPECT_EQ(server.Ask(PostText("/echo", std::string(100'000, ' '))).status, 200);
}

TEST(HttpSession, ChunkedBodiesAreJoinedAndLimited) {
  TestServer server;
  const std::string head =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(server.Ask(head + "3\r\n[1,\r\n2;x=y\r\n2]\r\n0\r\nTrailer: a\r\n\r\n").body, "[1,2]");
  EXPECT_EQ(server.Ask(head + "zz\r\n").status, 400);
  EXPECT_EQ(server.Ask(head + "ffffffffffffffffff\r\n").status, 400);
  std::string endless = head;
  for (int i = 0; i < 200; ++i) endless += std::string("400\r\n") + std::string(1024, ' ') + "\r\n";
  EXPECT_EQ(server.Ask(endless).status, 413);
}

TEST(HttpSession, OnlyJsonIsTakenWhereJsonIsExpected) {
  TestServer server;
  const auto with = [&](const std::string& type) {
    return server.Ask("POST /echo HTTP/1.1\r\nHost: x\r\n" + type + "Content-Length: 2\r\n\r\n[]")
        .status;
  };
  EXPECT_EQ(with("Content-Type: application/json\r\n"), 200);
  EXPECT_EQ(with("content-type: Application/JSON ; charset=utf-8\r\n"), 200);
  EXPECT_EQ(with("Content-Type: text/plain\r\n"), 415);
  EXPECT_EQ(with("Content-Type: application/x-www-form-urlencoded\r\n"), 415);
  EXPECT_EQ(with(""), 415);
  EXPECT_EQ(with("Content-Type: application/json\r\nContent-Encoding: identity\r\n"), 200);
  EXPECT_EQ(with("Content-Type: application/json\r\nContent-Encoding: gzip\r\n"), 415);
}

TEST(HttpSession, SlowClientsGet408) {
  ServerOptions options = TestOptions();
  options.header_timeout_seconds = 0.2;
  options.body_timeout_seconds = 0.2;
  TestServer server(options);
  RawClient header = server.Connect();
  header.Send("GET /open HTT");
  EXPECT_EQ(header.ReadResponse().status, 408);
  RawClient body = server.Connect();
  body.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 10\r\n\r\n[");
  EXPECT_EQ(body.ReadResponse().status, 408);
  RawClient silent = server.Connect();
  EXPECT_EQ(silent.ReadToEnd(), "");
}

TEST(HttpSession, IdleConnectionsEnd) {
  ServerOptions options = TestOptions();
  options.idle_timeout_seconds = 0.2;
  TestServer server(options);
  RawClient client = server.Connect();
  client.Send(GetText("/open"));
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST(HttpSession, ContinueIsSaidOnlyWhenTheBodyIsWanted) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 100);
  client.Send("[]");
  EXPECT_EQ(client.ReadResponse().body, "[]");
  const auto refused = server.Ask(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(refused.status, 413);
  const auto odd = server.Ask(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 2\r\nExpect: magic\r\n\r\n[]");
  EXPECT_EQ(odd.status, 417);
}

TEST(HttpSession, KeysOpenAllButTheOpenRoutes) {
  ServerOptions options = TestOptions();
  options.api_keys = {{"alice", "sk-1"}};
  TestServer server(options);
  EXPECT_EQ(server.Ask(GetText("/open")).status, 200);
  const auto refused = server.Ask(PostText("/echo", "[]"));
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.Header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(ErrorCode(refused), "invalid_api_key");
  const auto good = server.Ask(PostText("/echo", "[]", "Authorization: Bearer sk-1\r\n"));
  EXPECT_EQ(good.status, 200);
  EXPECT_EQ(good.Header("x-key-name"), "alice");
  EXPECT_EQ(server.Ask(PostText("/echo", "[]", "x-api-key: sk-1\r\n")).status, 200);
  EXPECT_EQ(server.Ask(PostText("/echo", "[]", "x-api-key: sk-2\r\n")).status, 401);
}

TEST(HttpSession, CorsIsSentWhenConfigured) {
  TestServer plain;
  EXPECT_EQ(plain.Ask(GetText("/open")).Header("Access-Control-Allow-Origin"), "");
  ServerOptions options = TestOptions();
  options.cors_origin = "*";
  options.api_keys = {{"alice", "sk-1"}};
  TestServer server(options);
  EXPECT_EQ(server.Ask(GetText("/open")).Header("Access-Control-Allow-Origin"), "*");
  // A preflight carries no key.
  const auto preflight = server.Ask(
      "OPTIONS /echo HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.Header("Access-Control-Allow-Origin"), "*");
  EXPECT_NE(preflight.Header("Access-Control-Allow-Headers"), "");
  ServerOptions listed = TestOptions();
  listed.cors_origin = "https://a.example, https://b.example";
  TestServer some(listed);
  const auto from = [&](const std::string& origin) {
    return some.Ask(GetText("/open", "Origin: " + origin + "\r\n"));
  };
  EXPECT_EQ(from("https://b.example").Header("Access-Control-Allow-Origin"), "https://b.example");
  EXPECT_EQ(from("https://c.example").Header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(from("https://c.example").Header("Vary"), "Origin");
  // Errors too, or a browser could not read them.
  EXPECT_EQ(server.Ask(PostText("/echo", "[]")).Header("Access-Control-Allow-Origin"), "*");
}

TEST(HttpSession, SaneRequestIdsAreKeptAndOthersReplaced) {
  TestServer server;
  EXPECT_EQ(server.Ask(GetText("/open", "X-Request-Id: abc-1.2:3\r\n")).Header("x-request-id"),
            "abc-1.2:3");
  EXPECT_TRUE(server.Ask(GetText("/open", "X-Request-Id: a b\r\n"))
                  .Header("x-request-id")
                  .starts_with("req_"));
  EXPECT_TRUE(
      server.Ask(GetText("/open", std::string("X-Request-Id: ") + std::string(200, 'a') + "\r\n"))
          .Header("x-request-id")
          .starts_with("req_"));
}

TEST(HttpSession, ExceptionsBecome500WithoutDetails) {
  TestServer server;
  const auto response = server.Ask(GetText("/throw"));
  EXPECT_EQ(response.status, 500);
  EXPECT_EQ(response.body.find("secret"), std::string::npos);
}

TEST(HttpSession, ClientThatClosesIsNoticedWhileTheHandlerWaits) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 1; }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return server.gone == 1; }));
  RawClient other = server.Connect();
  other.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 2; }));
  other.Reset();
  EXPECT_TRUE(Eventually([&] { return server.gone == 2 && server.gone_records == 2; }));
  EXPECT_TRUE(Eventually([&] { return server.server().connections() == 0; }));
}

TEST(HttpSession, ClientThatClosesWithItsWholeAnswerDidNotLeaveEarly) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(PostText("/linger", "[]"));
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.Close();
  EXPECT_TRUE(Eventually([&] { return server.gone == 1 && server.records == 1; }));
  EXPECT_EQ(server.gone_records, 0);
}

TEST(HttpSession, BytesSentAheadAreNotTakenForTheEnd) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 1; }));
  client.Send(PostText("/echo", "\"next\""));
  // More than is read ahead: the rest waits in the kernel, and the end is still seen.
  RawClient flood = server.Connect();
  flood.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 2; }));
  flood.Send(std::string(100'000, ' '));
  EXPECT_EQ(server.gone, 0);
  flood.Close();
  EXPECT_TRUE(Eventually([&] { return server.gone == 1; }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return server.gone == 2; }));
}

TEST(HttpSession, ReaderThatTakesNothingIsGoneAfterTheWriteTimeout) {
  ServerOptions options = TestOptions();
  options.write_timeout_seconds = 0.3;
  TestServer server(options);
  RawClient client = server.Connect();
  client.Send(GetText("/flood"));
  EXPECT_TRUE(Eventually([&] { return server.gone_records == 1; }));
  EXPECT_TRUE(Eventually([&] { return server.server().connections() == 0; }));
}

TEST(HttpSession, NewConnectionsTakeThePlaceOfIdleOnes) {
  ServerOptions options = TestOptions();
  options.max_connections = 8;
  TestServer server(options);
  std::vector<std::unique_ptr<RawClient>> silent;
  for (uint32_t i = 0; i < 200; ++i) {
    silent.push_back(std::make_unique<RawClient>(server.server().port()));
  }
  EXPECT_EQ(server.Ask(GetText("/open")).status, 200);
  EXPECT_TRUE(Eventually([&] { return server.server().connections() <= 9; }));
  // The longest-waiting one went first.
  EXPECT_EQ(silent.front()->ReadToEnd(), "");
}

TEST(HttpSession, EmptyLinesBeforeARequestAreSkipped) {
  TestServer server;
  EXPECT_EQ(server.Ask("\r\n\r\n" + GetText("/open")).status, 200);
}

TEST(HttpSession, BodiesTogetherAreLimited) {
  ServerOptions options = TestOptions();
  options.max_body_memory_bytes = 100'000;
  TestServer server(options);
  const auto begin = [](size_t length, size_t sent) {
    return "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(length) + "\r\n\r\n" + std::string(sent, ' ');
  };
  RawClient large = server.Connect();
  large.Send(begin(90'000, 89'000));
  RawClient second = server.Connect();
  ASSERT_TRUE(Eventually([&] {
    RawClient other = server.Connect();
    other.Send(begin(50'000, 49'000));
    return other.ReadResponseWithin(0.2).status == 503;
  }));
  // Small requests pass, and the room comes back.
  EXPECT_EQ(server.Ask(PostText("/echo", "[]")).status, 200);
  large.Close();
  EXPECT_TRUE(Eventually(
      [&] { return server.Ask(PostText("/echo", std::string(90'000, ' '))).status == 200; }));
}

// A browser shows its page nothing of an answer without the header; who reads logs needs the id.
TEST(HttpSession, ARefusedHeadStillHasItsClientsIdAndOrigin) {
  ServerOptions options = TestOptions();
  options.cors_origin = "https://a.example";
  TestServer server(options);
  const std::string origin = "Origin: https://a.example\r\nx-request-id: mine-1\r\n";
  for (const auto& [more, status] :
       {std::pair{std::string("Content-Length: 99999999\r\n"), 413},
        {std::string("Content-Length: 1\r\nContent-Length: 2\r\n"), 400}}) {
    const auto refused = server.Ask("POST /echo HTTP/1.1\r\nHost: x\r\n" + origin + more + "\r\n");
    EXPECT_EQ(refused.status, status);
    EXPECT_EQ(refused.Header("x-request-id"), "mine-1") << status;
    EXPECT_EQ(refused.Header("Access-Control-Allow-Origin"), "https://a.example") << status;
  }
}

TEST(HttpSession, AdminRoutesNeedTheScope) {
  ServerOptions options = TestOptions();
  options.api_keys = {{"user", "sk-1", false}, {"ops", "sk-2", true}};
  TestServer server(options);
  EXPECT_EQ(server.Ask(GetText("/admin")).status, 401);
  const auto refused = server.Ask(GetText("/admin", "x-api-key: sk-1\r\n"));
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(nlohmann::json::parse(refused.body)["error"]["type"], "permission_error");
  EXPECT_EQ(server.Ask(GetText("/admin", "x-api-key: sk-2\r\n")).status, 200);
}

TEST(HttpSession, KeysBeyondTheirRateAreToldWhenToComeBack) {
  ServerOptions options = TestOptions();
  options.api_keys = {{"alice", "sk-1", false, {.requests_per_minute = 2}},
                      {"bob", "sk-2", false, {}}};
  TestServer server(options);
  const std::string request = PostText("/echo", "[]", "x-api-key: sk-1\r\n");
  const auto first = server.Ask(request);
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.Header("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(first.Header("x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(server.Ask(request).status, 200);
  const auto refused = server.Ask(request);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(ErrorCode(refused), "rate_limit_exceeded");
  const int seconds = std::atoi(refused.Header("Retry-After").c_str());
  EXPECT_GT(seconds, 0);
  EXPECT_LE(seconds, 30);
  EXPECT_EQ(refused.Header("x-should-retry"), "true");
  EXPECT_EQ(refused.Header("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(refused.Header("x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(server.Ask(PostText("/echo", "[]", "x-api-key: sk-2\r\n")).status, 200);
}

TEST(HttpSession, KeysHaveAnOwnNumberOfConcurrentRequests) {
  ServerOptions options = TestOptions();
  options.api_keys = {{"alice", "sk-1", false, {.concurrent = 1}}};
  TestServer server(options);
  RawClient waiting = server.Connect();
  waiting.Send(PostText("/wait", "[]", "x-api-key: sk-1\r\n"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 1; }));
  EXPECT_EQ(server.Ask(PostText("/echo", "[]", "x-api-key: sk-1\r\n")).status, 429);
  waiting.Close();
  EXPECT_TRUE(Eventually(
      [&] { return server.Ask(PostText("/echo", "[]", "x-api-key: sk-1\r\n")).status == 200; }));
}

TEST(HttpSession, ReloadReadsTheKeyFileAndKeepsTheOldKeysWhenItIsBroken) {
  const std::string path = testing::TempDir() + "reloaded-keys-" + std::to_string(getpid());
  std::ofstream(path) << "alice sk-old\n";
  ServerOptions options = TestOptions();
  options.api_key_file = path;
  options.api_keys = ReadApiKeyFile(path);
  TestServer server(options);
  const auto status = [&](const std::string& key) {
    return server.Ask(PostText("/echo", "[]", "x-api-key: " + key + "\r\n")).status;
  };
  EXPECT_EQ(status("sk-old"), 200);
  std::ofstream(path) << "alice sk-new\n";
  server.server().Reload(options);
  EXPECT_EQ(status("sk-old"), 401);
  EXPECT_EQ(status("sk-new"), 200);
  std::ofstream(path) << "alice sk-new what=1\n";
  server.server().Reload(options);
  EXPECT_EQ(status("sk-new"), 200);
  std::filesystem::remove(path);
}

TEST(HttpSession, ConnectionsBeyondTheLimitAreToldSo) {
  ServerOptions options = TestOptions();
  options.max_connections = 2;
  TestServer server(options);
  RawClient first = server.Connect();
  RawClient second = server.Connect();
  first.Send(PostText("/wait", "[]"));
  second.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return server.waiting == 2; }));
  RawClient third = server.Connect();
  const auto response = third.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.Header("Retry-After"), "1");
  first.Close();
  third.Close();
  ASSERT_TRUE(Eventually([&] { return server.server().connections() == 1; }));
  EXPECT_EQ(server.Ask(GetText("/open")).status, 200);
}

TEST(HttpSession, DrainRefusesWorkAndClosesConnectionsAfterTheirAnswer) {
  TestServer server;
  RawClient client = server.Connect();
  client.Send(GetText("/open"));
  EXPECT_EQ(client.ReadResponse().status, 200);
  server.server().BeginDrain();
  client.Send(PostText("/echo", "[]"));
  const auto refused = client.ReadResponse();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(ErrorCode(refused), "shutting_down");
  EXPECT_EQ(refused.Header("Connection"), "close");
  EXPECT_EQ(client.ReadToEnd(), "");
  EXPECT_EQ(server.Ask(GetText("/open")).status, 200);
}

TEST(HttpSession, PortInUseIsOneSentence) {
  TestServer server;
  ServerOptions options = TestOptions();
  options.port = server.server().port();
  HttpServer second(options, Router(), {});
  try {
    second.Start();
    FAIL() << "two servers on one port";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(options.port)), std::string::npos);
  }
}

}  // namespace
}  // namespace server
