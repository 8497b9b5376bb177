#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/http_types.h"

namespace server {

// Where a request goes.
struct ClientUrl {
  bool tls = false;
  std::string host;  // without the brackets of an IPv6 address
  uint16_t port = 80;
  std::string path = "/";  // with the query

  // "http://host:port/path" or https. Throws std::invalid_argument with the end of a sentence:
  // `must be ..., not "..."`.
  static ClientUrl Parse(const std::string& text);
  // "host:port", for messages and the Host header.
  std::string Authority() const;
};

struct ClientRequest {
  std::string method = "POST";
  ClientUrl url;
  HeaderList headers;  // besides Host and Content-Length
  std::string body;
  double timeout_seconds = 600;  // of the whole exchange
};

// Why an exchange did not end with a complete answer.
struct ClientFailure {
  enum class Kind { kConnect, kTls, kTimeout, kClosed, kProtocol };
  Kind kind = Kind::kConnect;
  std::string message;  // a sentence without its full stop
};

// Hears an exchange, on the thread of HttpClient::Run(): the head, pieces of the body, the end.
class ClientEvents {
 public:
  virtual ~ClientEvents() = default;
  // Header names are lower case.
  virtual void OnHead(int status, const HeaderList& headers) = 0;
  virtual void OnBody(std::string_view piece) = 0;
  // Last. nullptr: the answer is complete.
  virtual void OnEnd(const ClientFailure* failure) = 0;
};

// Any number of HTTP/1.1 exchanges on one thread. Connections are kept for later requests to the
// same place; redirects are not followed.
//
// Threads: Stop() from any; the rest from the thread that calls Run(), before or within it.
class HttpClient {
 public:
  struct Options {
    bool verify = true;        // certificates of https, against the system's authorities
    std::string ca_file = {};  // PEM: these authorities instead; empty = the system's
  };

  // Throws std::runtime_error when ca_file cannot be used.
  explicit HttpClient(const Options& options);
  ~HttpClient();

  void Start(ClientRequest request, std::shared_ptr<ClientEvents> events);
  // Calls back at that time.
  void At(Clock::time_point when, std::function<void()> callback);
  // Until nothing is under way or waited for, or until Stop().
  void Run();
  // Run() returns soon; what is under way is given up without another word. May come before Run().
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::atomic<bool> stopped_ = false;
};

}  // namespace server
