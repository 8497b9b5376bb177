// Property: `tern health` ends with 0 when a server is well, with TLS or without, and otherwise
// tells what happened: no answer in time, a closed connection, or an answer that is no HTTP.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/cli/process.h"
#include "tests/support/certificate.h"

namespace cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Listens on a free port of this machine.
class Listener {
 public:
  Listener() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(socket_, generic, size), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    EXPECT_EQ(getsockname(socket_, generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { close(socket_); }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/health"; }
  // Reads a request and answers it so, then closes.
  void AnswerOne(const std::string& text) const {
    const int connection = accept(socket_, nullptr, nullptr);
    char request[1024];
    EXPECT_GT(recv(connection, request, sizeof request, 0), 0);
    EXPECT_EQ(send(connection, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    close(connection);
  }

 private:
  int socket_;
  int port_ = 0;
};

ProcessResult HealthOf(const std::string& answer) {
  const Listener listener;
  std::thread server([&] { listener.AnswerOne(answer); });
  ProcessResult result = RunTern({"health", "--url", listener.url()});
  server.join();
  return result;
}

TEST(Health, TellsATimeoutFromAClosedConnectionAndFromNoHttp) {
  const Listener silent;
  const ProcessResult late = RunTern({"health", "--url", silent.url(), "--timeout", "1"});
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_THAT(late.err, HasSubstr("did not answer in time"));

  const ProcessResult closed = HealthOf("");
  EXPECT_EQ(closed.exit_code, 1);
  EXPECT_THAT(closed.err, AllOf(HasSubstr("closed the connection"), HasSubstr("https://"),
                                Not(HasSubstr("in time"))));
  const ProcessResult other = HealthOf("SSH-2.0-OpenSSH_9.2\r\n");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, AllOf(HasSubstr("is no HTTP"), Not(HasSubstr("in time"))));
}

TEST(Health, SaysWhatTheServerSays) {
  const ProcessResult well = HealthOf("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall\r\nw");
  EXPECT_EQ(well.exit_code, 0) << well.err;
  EXPECT_EQ(well.out, "HTTP 200 all w\n");
  const ProcessResult unwell =
      HealthOf("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nstarting");
  EXPECT_EQ(unwell.exit_code, 1);
  EXPECT_THAT(unwell.err, HasSubstr("status 503: starting"));
}

TEST(Health, AsksAServerWithTls) {
  const ScratchFile model("gguf"), certificate("pem"), key("pem");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", model.path()}).exit_code, 0);
  WriteCertificate("somewhere", certificate.path(), key.path());
  BackgroundTern server({"serve", "--model", model.path(), "--port", "0", "--kv-bytes", "16MiB",
                         "--tls-certificate", certificate.path(), "--tls-key", key.path()});
  ASSERT_TRUE(server.WaitFor("curl ", 120)) << server.Errors();
  const std::string log = server.Errors();
  const std::string start = "https://127.0.0.1:";
  const size_t port = log.find(start) + start.size();
  const std::string place = log.substr(port, log.find_first_not_of("0123456789", port) - port);
  const std::string url = start + place + "/health";

  const ProcessResult well = RunTern({"health", "--url", url, "--insecure"});
  EXPECT_EQ(well.exit_code, 0) << well.err;
  EXPECT_THAT(well.out, HasSubstr(" 200 "));
  // For another name, and of no authority that anybody knows.
  for (const auto& more : {std::vector<std::string>{}, {"--ca-file", certificate.path()}}) {
    std::vector<std::string> arguments = {"health", "--url", url};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult stranger = RunTern(arguments);
    EXPECT_EQ(stranger.exit_code, 1);
    EXPECT_THAT(stranger.err, HasSubstr("TLS with "));
  }
  const ProcessResult plain = RunTern({"health", "--url", "http://127.0.0.1:" + place + "/health"});
  EXPECT_EQ(plain.exit_code, 1);
  EXPECT_THAT(plain.err, AllOf(HasSubstr("https://"), Not(HasSubstr("in time"))));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

}  // namespace
}  // namespace cli
