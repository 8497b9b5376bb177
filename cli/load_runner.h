#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/load_stats.h"
#include "server/http_client.h"

namespace cli {

// How requests of a load test come.
struct LoadPlan {
  server::ClientUrl url;            // of the endpoint
  server::HeaderList headers;       // Authorization and Content-Type
  std::vector<std::string> bodies;  // JSON; taken in turn
  uint32_t requests = 0;            // 0 = by duration alone
  double duration = 0;              // seconds in which requests are sent; 0 = by number alone
  uint32_t concurrency = 1;         // closed loop: so many at once
  double rate = 0;    // open loop: requests per second on average, Poisson; 0 = closed
  uint64_t seed = 0;  // of the arrivals
  double timeout_seconds = 600;
  double stop_seconds = 5;  // what requests under way are given when the run is stopped
};

// Runs the plan to its end. on_progress: completed requests and the share of the plan that is done.
// stop: asked many times a second; when true no more are sent, and those under way get
// plan.stop_seconds: what is not answered then has the error "interrupted", and the client is
// stopped for good.
//
// Threads: one, which sends, receives and takes the times.
std::vector<LoadSample> RunLoad(server::HttpClient& client, const LoadPlan& plan,
                                const std::function<void(size_t, double)>& on_progress,
                                const std::function<bool()>& stop);

// The text's beginning in one line, at most about 200 bytes, for messages.
std::string OneLine(std::string_view text);

// The whole answer of a GET. Errors: std::runtime_error with a sentence.
std::string Fetch(server::HttpClient& client, const server::ClientUrl& url,
                  const server::HeaderList& headers, double timeout_seconds);

}  // namespace cli
