// Property: an exchange ends with the whole answer or with the reason why not; connections are used
// again; and over TLS only a server is trusted whose certificate is for its name.
#include "server/http_client.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "server/http_server.h"
#include "tests/server/trace_receiver.h"
#include "tests/support/certificate.h"

namespace server {
namespace {

using ::testing::HasSubstr;

struct Heard : ClientEvents {
  void OnHead(int got, const HeaderList& list) override {
    status = got;
    headers = list;
  }
  void OnBody(std::string_view piece) override { body += piece; }
  void OnEnd(const ClientFailure* why) override {
    ended = true;
    if (why != nullptr) failure = *why;
  }
  int status = 0;
  HeaderList headers;
  std::string body;
  bool ended = false;
  std::optional<ClientFailure> failure;
};

std::shared_ptr<Heard> Exchange(HttpClient& client, const std::string& url,
                                double timeout_seconds = 20) {
  auto heard = std::make_shared<Heard>();
  ClientRequest request;
  request.method = "GET";
  request.url = ClientUrl::Parse(url);
  request.timeout_seconds = timeout_seconds;
  client.Start(std::move(request), heard);
  client.Run();
  EXPECT_TRUE(heard->ended);
  return heard;
}

// Answers GET /whole with a length and GET /chunks in pieces.
class Site {
 public:
  explicit Site(ServerOptions options = {}) {
    options.port = 0;
    options.log_requests = false;
    Router router;
    router.Add(
        {.method = "GET",
         .path = "/whole",
         .access = Router::Access::kOpen,
         .handler = [](const HttpRequest&, HttpExchange& exchange) -> boost::asio::awaitable<void> {
           HttpResponse response;
           response.body = "whole";
           co_await exchange.Reply(response);
         }});
    router.Add(
        {.method = "GET",
         .path = "/chunks",
         .access = Router::Access::kOpen,
         .handler = [](const HttpRequest&, HttpExchange& exchange) -> boost::asio::awaitable<void> {
           const HttpResponse head;
           co_await exchange.StartStream(head);
           for (const char* piece : {"one ", "two ", "three"}) {
             const std::string_view text = piece;
             co_await exchange.Write(text);
           }
           co_await exchange.FinishStream();
         }});
    server_.emplace(options, std::move(router), nullptr);
    server_->Start();
  }
  ~Site() { server_->Stop(); }
  uint16_t port() const { return server_->port(); }
  uint32_t connections() const { return server_->connections(); }

 private:
  std::optional<HttpServer> server_;
};

TEST(HttpClient, AnswersArriveWholeOnOneConnection) {
  Site site;
  HttpClient client(HttpClient::Options{});
  const std::string base = "http://127.0.0.1:" + std::to_string(site.port());
  for (int i = 0; i < 3; ++i) {
    const auto whole = Exchange(client, base + "/whole");
    EXPECT_EQ(whole->status, 200);
    EXPECT_EQ(whole->body, "whole");
    const auto chunks = Exchange(client, base + "/chunks");
    EXPECT_EQ(chunks->body, "one two three");
    EXPECT_FALSE(chunks->failure);
  }
  EXPECT_EQ(site.connections(), 1U);
  EXPECT_EQ(Exchange(client, base + "/nothing")->status, 404);
}

TEST(HttpClient, ManyExchangesRunAtOnce) {
  Site site;
  HttpClient client(HttpClient::Options{});
  std::vector<std::shared_ptr<Heard>> all;
  for (int i = 0; i < 50; ++i) {
    all.push_back(std::make_shared<Heard>());
    ClientRequest request;
    request.method = "GET";
    request.url = ClientUrl::Parse("http://127.0.0.1:" + std::to_string(site.port()) + "/chunks");
    client.Start(std::move(request), all.back());
  }
  client.Run();
  for (const auto& heard : all) EXPECT_EQ(heard->body, "one two three");
}

TEST(HttpClient, AConnectionThatWasClosedMeanwhileIsReplaced) {
  ServerOptions options;
  options.idle_timeout_seconds = 0.1;
  Site site(options);
  HttpClient client(HttpClient::Options{});
  const std::string url = "http://127.0.0.1:" + std::to_string(site.port()) + "/whole";
  EXPECT_EQ(Exchange(client, url)->body, "whole");
  while (site.connections() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(Exchange(client, url)->body, "whole");
}

TEST(HttpClient, FailuresSayWhatHappened) {
  HttpClient client(HttpClient::Options{});
  uint16_t port = 0;
  { port = TraceReceiver().port(); }
  const std::string gone = "http://127.0.0.1:" + std::to_string(port);
  EXPECT_EQ(Exchange(client, gone)->failure->kind, ClientFailure::Kind::kConnect);
  EXPECT_THAT(Exchange(client, gone)->failure->message, HasSubstr("127.0.0.1"));

  TraceReceiver silent([](int) { return std::string(); });
  EXPECT_EQ(Exchange(client, silent.url(), 0.1)->failure->kind, ClientFailure::Kind::kTimeout);
  TraceReceiver nonsense([](int) { return std::string("yes\r\n\r\n"); });
  EXPECT_EQ(Exchange(client, nonsense.url())->failure->kind, ClientFailure::Kind::kProtocol);
  std::optional<TraceReceiver> cut;
  cut.emplace([](int) { return std::string("200 OK\r\nContent-Length: 9\r\n\r\nhalf"); });
  const auto half = Exchange(client, cut->url(), 0.5);
  EXPECT_EQ(half->body, "half");
  EXPECT_TRUE(half->failure);
}

TEST(HttpClient, TrustsOnlyTheRightCertificate) {
  const std::string folder = testing::TempDir() + "tern_client_" + std::to_string(getpid());
  std::filesystem::create_directory(folder);
  const auto options_for = [&](const std::string& name, const char* alternative) {
    ServerOptions options;
    options.tls_certificate_file = folder + "/" + name + ".pem";
    options.tls_key_file = folder + "/" + name + ".key";
    WriteCertificate(name, options.tls_certificate_file, options.tls_key_file, alternative);
    return options;
  };
  // By address: not every machine resolves a name.
  const ServerOptions options = options_for("right", "IP:127.0.0.1");
  Site site(options);
  const std::string url = "https://127.0.0.1:" + std::to_string(site.port()) + "/whole";
  HttpClient knows({.ca_file = options.tls_certificate_file});
  EXPECT_EQ(Exchange(knows, url)->body, "whole");
  HttpClient stranger(HttpClient::Options{});
  EXPECT_EQ(Exchange(stranger, url)->failure->kind, ClientFailure::Kind::kTls);

  const ServerOptions other = options_for("other", "IP:127.0.0.2");
  Site elsewhere(other);
  const std::string wrong = "https://127.0.0.1:" + std::to_string(elsewhere.port()) + "/whole";
  HttpClient misled({.ca_file = other.tls_certificate_file});
  EXPECT_EQ(Exchange(misled, wrong)->failure->kind, ClientFailure::Kind::kTls);
  HttpClient careless({.verify = false});
  EXPECT_EQ(Exchange(careless, wrong)->body, "whole");
  EXPECT_THROW(HttpClient({.ca_file = folder + "/none.pem"}), std::runtime_error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace server
