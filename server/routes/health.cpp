#include <nlohmann/json.hpp>

#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

// What keeps the server from taking work; "ready" when nothing does.
std::string_view Readiness(const RouteContext& context) {
  if (context.draining()) return "draining";
  if (!context.models.started()) return "loading";
  for (const ModelRegistry::Status& model : context.models.Statuses()) {
    if (!model.device_in_service) return "device_out_of_service";
  }
  return "ready";
}

asio::awaitable<void> Live(RouteContext&, const HttpRequest&, HttpExchange& exchange) {
  Json json;
  json["status"] = "live";
  const HttpResponse response = JsonResponse(json);
  co_await exchange.Reply(response);
}

HttpResponse StatusResponse(const RouteContext& context, std::string_view status) {
  Json json;
  json["status"] = status;
  json["models"] = Json::array();
  for (const ModelRegistry::Status& model : context.models.Statuses()) {
    Json entry;
    entry["id"] = model.name;
    const bool ready = model.state == ModelRegistry::State::kReady;
    entry["status"] = ready ? "ready" : StateName(model.state);
    entry["progress"] = model.progress;
    if (!model.error.empty()) entry["error"] = model.error;
    if (!model.device_in_service) entry["device"] = "out_of_service";
    json["models"].push_back(std::move(entry));
  }
  json["heartbeat_age_seconds"] = context.heartbeat_age();
  HttpResponse response = JsonResponse(json);
  const bool good = status == "ready" || status == "ok";
  if (!good) {
    response.status = 503;
    response.headers.emplace_back("Retry-After", "1");
  }
  return response;
}

asio::awaitable<void> Ready(RouteContext& context, const HttpRequest&, HttpExchange& exchange) {
  const HttpResponse response = StatusResponse(context, Readiness(context));
  co_await exchange.Reply(response);
}

// Ready, and the engine thread is alive: a step that hangs shows here.
asio::awaitable<void> Health(RouteContext& context, const HttpRequest&, HttpExchange& exchange) {
  std::string_view status = Readiness(context);
  if (status == "ready") status = "ok";
  if (context.heartbeat_age() > context.options.heartbeat_limit_seconds) status = "stalled";
  const HttpResponse response = StatusResponse(context, status);
  co_await exchange.Reply(response);
}

}  // namespace

void AddHealthRoutes(RouteContext& context, Router& router) {
  using Probe = asio::awaitable<void> (*)(RouteContext&, const HttpRequest&, HttpExchange&);
  const std::vector<std::pair<std::string, Probe>> probes = {
      {"/live", Live}, {"/ready", Ready}, {"/health", Health}};
  for (const auto& [path, probe] : probes) {
    router.Add(
        {.method = "GET",
         .path = path,
         .access = Router::Access::kOpen,
         .handler = [&context, probe = probe](const HttpRequest& http, HttpExchange& exchange) {
           return probe(context, http, exchange);
         }});
  }
}

}  // namespace server
