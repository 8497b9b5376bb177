#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace server {

// One API key. The name appears in logs and metrics, the key never does.
struct ApiKey {
  std::string name;
  std::string key;
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;          // 0 = any free port (printed, and App::port())
  int threads = 0;               // HTTP threads; 0 = 2, fewer on a one-core machine
  std::vector<ApiKey> api_keys;  // empty = open
  std::string cors_origin;       // Access-Control-Allow-Origin; empty = none
  bool strict_params = false;    // refuse parameters that are unknown or have no effect
  bool metrics_aliases = true;   // vllm:* names beside tern_*

  uint64_t max_body_bytes = 16u << 20;
  uint32_t max_header_bytes = 32u << 10;
  uint32_t max_header_lines = 100;
  uint32_t max_uri_bytes = 8u << 10;
  uint32_t max_json_depth = 128;
  uint32_t max_connections = 1024;
  double header_timeout_seconds = 10;
  double body_timeout_seconds = 30;
  double idle_timeout_seconds = 75;   // keep-alive
  double write_timeout_seconds = 60;  // a reader that takes nothing for so long is gone
  double ping_seconds = 15;           // SSE comment while no token comes
  double drain_timeout_seconds = 60;
  double heartbeat_limit_seconds = 30;  // /health fails when the engine thread is silent longer
  bool log_requests = true;             // one line per request on stderr
};

}  // namespace server
