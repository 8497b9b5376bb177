// HTTPS: requests, pipelining, streams and the end of a client work as on plain connections; a
// renewed certificate is shown to new clients; a client that speaks plain HTTP harms nobody.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <thread>

#include "server/event_queue.h"
#include "server/http_server.h"
#include "tests/server/raw_client.h"
#include "tests/support/certificate.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// A blocking client that trusts everybody.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port) : stream_(io_, context_) {
    stream_.lowest_layer().connect({asio::ip::address_v4::loopback(), port});
    stream_.handshake(asio::ssl::stream_base::client);
  }
  void Send(std::string_view text) { asio::write(stream_, asio::buffer(text.data(), text.size())); }
  // Until the text has come or the server ends.
  std::string ReadUntil(std::string_view end) {
    while (read_.find(end) == std::string::npos) {
      char bytes[4096];
      error_code error;
      const size_t count = stream_.read_some(asio::buffer(bytes), error);
      if (error) break;
      read_.append(bytes, count);
    }
    const size_t found = read_.find(end);
    const std::string text =
        read_.substr(0, found == std::string::npos ? read_.size() : found + end.size());
    read_.erase(0, text.size());
    return text;
  }
  std::string CommonName() {
    char name[64] = {};
    X509* certificate = SSL_get1_peer_certificate(stream_.native_handle());
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                              sizeof name);
    X509_free(certificate);
    return name;
  }
  void Close() { stream_.lowest_layer().close(); }

 private:
  asio::io_context io_;
  asio::ssl::context context_{asio::ssl::context::tls_client};
  asio::ssl::stream<asio::ip::tcp::socket> stream_;
  std::string read_;
};

class Tls : public testing::Test {
 protected:
  // Of this process alone: tests run side by side.
  static std::string Path(const char* name) {
    return testing::TempDir() + "tls-test-" + std::to_string(getpid()) + "-" + name;
  }

  Tls() {
    certificate_ = Path("certificate.pem");
    key_ = Path("key.pem");
    WriteCertificate("first", certificate_, key_);
    ServerOptions options;
    options.port = 0;
    options.log_requests = false;
    options.header_timeout_seconds = 5;
    options.tls_certificate_file = certificate_;
    options.tls_key_file = key_;
    server_ = std::make_unique<HttpServer>(options, MakeRouter(), nullptr);
    server_->Start();
  }
  ~Tls() override {
    server_.reset();
    std::filesystem::remove(certificate_);
    std::filesystem::remove(key_);
  }

  Router MakeRouter() {
    Router router;
    router.Add({.method = "POST",
                .path = "/echo",
                .json = true,
                .handler = [](const HttpRequest& request,
                              HttpExchange& exchange) -> asio::awaitable<void> {
                  HttpResponse response;
                  response.body = request.body;
                  co_await exchange.Reply(response);
                }});
    router.Add({.method = "POST",
                .path = "/wait",
                .json = true,
                .handler = [this](const HttpRequest& request,
                                  HttpExchange& exchange) -> asio::awaitable<void> {
                  auto queue = std::make_shared<EventQueue>();
                  ++waiting_;
                  const double seconds = request.body == "[]" ? 20 : 0.3;
                  const auto wake = co_await exchange.WaitFor(*queue, seconds);
                  queue->SetNotify({});
                  if (wake == HttpExchange::Wake::kGone) ++gone_;
                  HttpResponse response;
                  response.body = "waited";
                  co_await exchange.Reply(response);
                }});
    return router;
  }

  std::string certificate_;
  std::string key_;
  std::atomic<int> waiting_{0};
  std::atomic<int> gone_{0};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(Tls, AnswersOneAfterTheOtherAndPipelined) {
  TlsClient client(server_->port());
  client.Send(PostText("/echo", "[1]"));
  EXPECT_NE(client.ReadUntil("[1]").find("200 OK"), std::string::npos);
  client.Send(PostText("/echo", "[2]") + PostText("/echo", "[3]"));
  EXPECT_NE(client.ReadUntil("[2]").find("200 OK"), std::string::npos);
  EXPECT_NE(client.ReadUntil("[3]").find("200 OK"), std::string::npos);
}

TEST_F(Tls, RequestSentAheadIsAnsweredAfterTheOneThatWaits) {
  TlsClient client(server_->port());
  client.Send(PostText("/wait", "[0]"));
  ASSERT_TRUE(Eventually([&] { return waiting_ == 1; }));
  client.Send(PostText("/echo", "[4]"));
  EXPECT_NE(client.ReadUntil("waited").find("200 OK"), std::string::npos);
  EXPECT_NE(client.ReadUntil("[4]").find("200 OK"), std::string::npos);
  EXPECT_EQ(gone_, 0);
}

TEST_F(Tls, LargeBodiesArrive) {
  TlsClient client(server_->port());
  const std::string body = "\"" + std::string(1 << 20, 'x') + "\"";
  std::thread sender([&] { client.Send(PostText("/echo", body)); });
  sender.join();
  EXPECT_NE(client.ReadUntil("xxx\"").find(body), std::string::npos);
}

TEST_F(Tls, ClientThatClosesIsNoticed) {
  TlsClient client(server_->port());
  client.Send(PostText("/wait", "[]"));
  ASSERT_TRUE(Eventually([&] { return waiting_ == 1; }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return gone_ == 1; }));
}

TEST_F(Tls, ReloadShowsTheNewCertificateToNewClients) {
  TlsClient before(server_->port());
  EXPECT_EQ(before.CommonName(), "first");
  WriteCertificate("second", certificate_, key_);
  server_->Reload({});
  EXPECT_EQ(TlsClient(server_->port()).CommonName(), "second");
  before.Send(PostText("/echo", "[5]"));
  EXPECT_NE(before.ReadUntil("[5]").find("200 OK"), std::string::npos);
  // A broken file leaves the old certificate in use.
  std::filesystem::resize_file(certificate_, 10);
  server_->Reload({});
  EXPECT_EQ(TlsClient(server_->port()).CommonName(), "second");
}

TEST_F(Tls, PlainHttpIsCutAndHarmsNobody) {
  RawClient plain(server_->port());
  plain.Send(GetText("/echo"));
  EXPECT_EQ(plain.ReadResponse().status, 0);
  TlsClient client(server_->port());
  client.Send(PostText("/echo", "[6]"));
  EXPECT_NE(client.ReadUntil("[6]").find("200 OK"), std::string::npos);
}

TEST_F(Tls, KeyOfAnotherCertificateIsRefusedWithBothNames) {
  const std::string other = Path("other-key.pem");
  WriteCertificate("third", Path("other.pem"), other);
  ServerOptions options;
  options.tls_certificate_file = certificate_;
  options.tls_key_file = other;
  try {
    HttpServer server(options, Router(), nullptr);
    FAIL() << "a key that does not fit was taken";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find(other), std::string::npos) << error.what();
  }
  std::filesystem::remove(other);
  std::filesystem::remove(Path("other.pem"));
}

}  // namespace
}  // namespace server
