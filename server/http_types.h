#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace server {

using Clock = std::chrono::steady_clock;

inline Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

using HeaderList = std::vector<std::pair<std::string, std::string>>;

class KeyBudget;
class RequestTrace;
class RequestUse;

// A complete request. Header names are lower case; of repeated names the first one wins in
// Header().
struct HttpRequest {
  std::string method;
  std::string path;   // percent-decoded, without the query
  std::string query;  // as sent, without '?'
  HeaderList headers;
  std::string body;
  std::string request_id;                   // the client's x-request-id when it is sane, else ours
  std::string key_name;                     // of the API key that was used; empty without keys
  std::shared_ptr<RequestUse> use;          // never null: what the request costs its key
  std::shared_ptr<const KeyBudget> budget;  // of its key, for a refused request too; may be nullptr
  std::shared_ptr<const RequestTrace> trace;  // nullptr: neither the client nor we trace it
  Clock::time_point arrival;

  // Empty when absent.
  std::string_view Header(std::string_view lower_case_name) const {
    for (const auto& [name, value] : headers) {
      if (name == lower_case_name) return value;
    }
    return {};
  }
};

// A complete answer. Content-Length, Date, Connection, CORS and x-request-id are the session's.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";  // empty: none is sent
  HeaderList headers;
  std::string body;
  bool close = false;  // the connection ends after this answer
};

// "Not Found" for 404.
std::string_view StatusText(int status);

}  // namespace server
