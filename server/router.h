#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_exchange.h"
#include "server/http_types.h"

namespace server {

using Handler =
    std::function<boost::asio::awaitable<void>(const HttpRequest& request, HttpExchange& exchange)>;

// method + path -> handler.
//
// Threads: Add() before the server starts; the rest from any thread.
class Router {
 public:
  enum class Access {
    kOpen,  // no API key needed
    kKey,
    kAdmin,  // a key with the scope admin
  };
  struct Route {
    std::string method;  // "GET" also serves HEAD
    std::string path;    // a trailing '*' matches any non-empty rest that is no path of its own
    Access access = Access::kKey;
    // Takes JSON: another content type is 415.
    bool json = false;
    // "stream": true in it asks for an event stream.
    bool streams = false;
    Handler handler;
  };
  struct Match {
    const Route* route = nullptr;      // nullptr: none for this method
    std::vector<std::string> allowed;  // methods that the path has; empty: unknown path
  };

  void Add(Route route) { routes_.push_back(std::move(route)); }
  Match Find(std::string_view method, std::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

// Value of the query parameter, percent-decoding left out; empty when absent.
std::string_view QueryParameter(std::string_view query, std::string_view name);

// "%2F" -> "/"; false when an escape is malformed or gives a NUL.
bool PercentDecode(std::string_view text, std::string* decoded);

}  // namespace server
