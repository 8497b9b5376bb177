#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "cli/command.h"

namespace cli {
namespace {

constexpr const char* kHealthExamples =
    "Exit code 0 when the server answers 200: a health check for images without curl.\n"
    "\n"
    "Examples:\n"
    "  tern health\n"
    "  tern health --url http://127.0.0.1:9000/ready --timeout 2";

struct HealthFlags {
  std::string url = "http://127.0.0.1:8080/health";
  int timeout = 5;
};

struct Url {
  std::string host;
  std::string port = "80";
  std::string path = "/";
};

Url ParseUrl(const std::string& text) {
  constexpr std::string_view kScheme = "http://";
  if (!text.starts_with(kScheme)) {
    throw UsageError("--url must begin with http://, not \"" + text + "\".");
  }
  Url url;
  const size_t slash = text.find('/', kScheme.size());
  std::string authority = text.substr(kScheme.size(), slash - kScheme.size());
  if (slash != std::string::npos) url.path = text.substr(slash);
  // "[::1]:8080": the colon of the port comes after the bracket.
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) {
    url.port = authority.substr(colon + 1);
    authority.resize(colon);
    unsigned port = 0;
    const char* end = url.port.data() + url.port.size();
    const auto [rest, error] = std::from_chars(url.port.data(), end, port);
    if (error != std::errc() || rest != end || port == 0 || port > 65535) {
      throw UsageError("--url names no port from 1 to 65535: \"" + text + "\".");
    }
  }
  if (authority.starts_with('[') && authority.ends_with(']')) {
    authority = authority.substr(1, authority.size() - 2);
  }
  url.host = authority;
  if (url.host.empty()) throw UsageError("--url names no host: \"" + text + "\".");
  return url;
}

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

int Connect(const Url& url, int timeout_seconds) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &list)) {
    throw std::runtime_error("Cannot resolve " + url.host + ": " + gai_strerror(error) + ".");
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  const timeval timeout{.tv_sec = timeout_seconds, .tv_usec = 0};
  for (const addrinfo* address = list; address != nullptr; address = address->ai_next) {
    const int descriptor = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(descriptor, address->ai_addr, address->ai_addrlen) == 0) return descriptor;
    close(descriptor);
  }
  throw std::runtime_error("Nothing answers at " + url.host + ":" + url.port + ".");
}

// The first line of the answer: "HTTP/1.1 200 OK".
std::string StatusLine(const Url& url, int timeout_seconds) {
  const Socket connection(Connect(url, timeout_seconds));
  const std::string request = "GET " + url.path + " HTTP/1.1\r\nHost: " + url.host +
                              "\r\nConnection: close\r\nUser-Agent: tern-health\r\n\r\n";
  if (send(connection.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    throw std::runtime_error("The connection to " + url.host + " broke.");
  }
  std::string answer;
  char buffer[512];
  while (answer.find('\n') == std::string::npos) {
    const ssize_t count = recv(connection.get(), buffer, sizeof buffer, 0);
    if (count <= 0) throw std::runtime_error("No answer from " + url.host + " in time.");
    answer.append(buffer, static_cast<size_t>(count));
  }
  return answer.substr(0, answer.find_first_of("\r\n"));
}

int RunHealth(const HealthFlags& flags) {
  const std::string status = StatusLine(ParseUrl(flags.url), flags.timeout);
  std::cout << status << std::endl;
  return status.size() > 12 && status.starts_with("HTTP/1.") && status.substr(8, 5) == " 200 "
             ? kSuccess
             : kFailed;
}

}  // namespace

void AddHealth(CLI::App& root, Run* run) {
  auto flags = std::make_shared<HealthFlags>();
  CLI::App* command = root.add_subcommand("health", "Ask a running server whether it is well");
  command->footer(kHealthExamples);
  command->add_option("--url", flags->url, "what to ask")->type_name("URL")->capture_default_str();
  command->add_option("--timeout", flags->timeout, "seconds to wait")
      ->type_name("N")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  command->callback([flags, run] { *run = [flags] { return RunHealth(*flags); }; });
}

}  // namespace cli
