#pragma once

#include <boost/asio/thread_pool.hpp>
#include <ctime>

#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/router.h"
#include "server/server_options.h"
#include "server/stream_store.h"

namespace server {

// What the routes share. Outlives the HTTP server.
struct RouteContext {
  const ServerOptions& options;
  ModelRegistry& models;
  StreamStore& streams;
  Metrics& metrics;
  // Parsing, templates and tokenizing, which may take long, happen here: the HTTP threads stay
  // free.
  boost::asio::thread_pool& workers;
  std::function<double()> heartbeat_age;  // of the engine thread, seconds
  std::function<MetricsSnapshot()> snapshot;
  std::function<bool()> draining;
  int64_t created = std::time(nullptr);  // of the server, Unix seconds
};

// All of the following but the web page: what docs/openapi.json describes.
void AddApiRoutes(RouteContext& context, Router& router);

void AddCompletionRoutes(RouteContext& context, Router& router);
void AddResponsesRoutes(RouteContext& context, Router& router);
void AddMessagesRoutes(RouteContext& context, Router& router);
void AddEmbeddingRoutes(RouteContext& context, Router& router);
void AddInfillRoutes(RouteContext& context, Router& router);
void AddModelRoutes(RouteContext& context, Router& router);
// GET and DELETE /v1/streams/{id}.
void AddStreamRoutes(RouteContext& context, Router& router);
void AddTokenizeRoutes(RouteContext& context, Router& router);
void AddHealthRoutes(RouteContext& context, Router& router);
void AddMetricsRoutes(RouteContext& context, Router& router);
// The web page at / and its files.
void AddWebRoutes(Router& router);

}  // namespace server
