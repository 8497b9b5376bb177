#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/http_types.h"
#include "server/key_budget.h"
#include "server/live_value.h"

namespace server {

// One API key. The name appears in logs and metrics, the key never does.
struct ApiKey {
  std::string name;
  std::string key;
  bool admin = true;  // may use the routes of operators, such as /props
  KeyLimits limits = {};
};

// How one model is kept in memory.
struct ModelPolicy {
  bool lazy = false;        // loaded by the first request for it, not at the start
  bool pinned = false;      // once loaded, only an operator unloads it
  double idle_seconds = 0;  // unloaded when no request has used it for so long; 0 = never
};

// What is a LiveValue can be changed while the server runs (App::Reload); the rest holds from the
// start on.
struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;                   // 0 = any free port (printed, and App::port())
  int threads = 0;                        // HTTP threads; 0 = 2, fewer on a one-core machine
  std::vector<ApiKey> api_keys;           // empty = open
  std::string api_key_file;               // where they came from; read again by App::Reload()
  std::string cors_origin;                // Access-Control-Allow-Origin; empty = none
  LiveValue<bool> strict_params = false;  // refuse parameters that are unknown or have no effect
  bool metrics_aliases = true;            // vllm:* names beside tern_*
  bool metrics_keys = false;              // series for each API key, with its name
  std::string tool_parser = "auto";       // how models write calls; as ChatSyntaxOptions
  std::string reasoning_parser = "auto";  // or "none": thoughts are content

  std::string tls_certificate_file;  // PEM chain; empty = plain HTTP
  std::string tls_key_file;          // PEM

  uint64_t model_memory_bytes = 0;   // of loaded models together; 0 = no limit
  double model_wait_seconds = 300;   // that a request waits for its model to be loaded
  uint32_t max_model_waiting = 128;  // requests that wait for one model

  uint64_t max_body_bytes = 16u << 20;
  uint64_t max_body_memory_bytes = 512u << 20;  // of all requests together; beyond: 503
  uint32_t max_header_bytes = 32u << 10;
  uint32_t max_header_lines = 100;
  uint32_t max_uri_bytes = 8u << 10;
  uint32_t max_json_depth = 128;
  uint32_t max_connections = 1024;
  LiveValue<double> header_timeout_seconds = 10;
  LiveValue<double> body_timeout_seconds = 30;
  LiveValue<double> idle_timeout_seconds = 75;   // keep-alive
  LiveValue<double> write_timeout_seconds = 60;  // a reader that takes nothing for so long is gone
  LiveValue<double> ping_seconds = 15;           // SSE comment while no token comes
  uint64_t stream_backlog_bytes = 4u << 20;  // events that wait for a slow reader; more: it is cut
  uint64_t stream_buffer_bytes = 1u << 20;   // events of one resumable stream
  double stream_ttl_seconds = 120;           // that one is kept after its last reader has left
  uint32_t max_streams = 256;                // resumable ones at the same time
  LiveValue<double> drain_timeout_seconds = 60;
  LiveValue<double> heartbeat_limit_seconds =
      30;  // /health fails when the engine thread is silent longer
  std::string powercap_root = "/sys/class/powercap";  // where EnergyMeter looks
  LiveValue<bool> log_requests = true;                // one line per request on stderr
  bool log_json = false;                              // every line of the log is a JSON object

  std::string otlp_endpoint;  // of a trace collector, as SpanExporter takes it; empty = none
  HeaderList otlp_headers;    // for the collector
  std::string trace_service = "tern";  // service.name
  bool trace_follows_caller = true;    // Tracer::Sampler::kParent
  double trace_ratio = 1;              // 0 to 1, of the requests that are not decided otherwise

  void TakeLiveValues(const ServerOptions& from) {
    strict_params = from.strict_params;
    log_requests = from.log_requests;
    header_timeout_seconds = from.header_timeout_seconds;
    body_timeout_seconds = from.body_timeout_seconds;
    idle_timeout_seconds = from.idle_timeout_seconds;
    write_timeout_seconds = from.write_timeout_seconds;
    ping_seconds = from.ping_seconds;
    drain_timeout_seconds = from.drain_timeout_seconds;
    heartbeat_limit_seconds = from.heartbeat_limit_seconds;
  }
};

}  // namespace server
