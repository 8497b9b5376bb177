#include "server/routes/routes.h"

namespace server {
namespace {

boost::asio::awaitable<void> Scrape(RouteContext& context, HttpExchange& exchange) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = context.metrics.Render(context.snapshot());
  co_await exchange.Reply(response);
}

}  // namespace

void AddMetricsRoutes(RouteContext& context, Router& router) {
  router.Add({.method = "GET",
              .path = "/metrics",
              .access = Router::Access::kOpen,
              .handler = [&context](const HttpRequest&, HttpExchange& exchange) {
                return Scrape(context, exchange);
              }});
}

}  // namespace server
