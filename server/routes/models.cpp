#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

Json ModelJson(const ServedModel& model) {
  return {{"id", model.name()},
          {"object", "model"},
          {"created", model.created()},
          {"owned_by", "tern"},
          {"max_model_len", model.context_length()}};
}

asio::awaitable<void> List(RouteContext& context, const HttpRequest&, HttpExchange& exchange) {
  Json data = Json::array();
  for (const auto& model : context.models.Ready()) data.push_back(ModelJson(*model));
  Json list;
  list["object"] = "list";
  list["data"] = std::move(data);
  const HttpResponse response = JsonResponse(list);
  co_await exchange.Reply(response);
}

// llama-server's shape, with the name that a request's `lora` may use instead of the id.
asio::awaitable<void> ListAdapters(RouteContext& context, const HttpRequest&,
                                   HttpExchange& exchange) {
  const auto model = context.models.Get("");
  Json list = Json::array();
  for (const engine::LoraAdapter& adapter : model->adapters()) {
    list.push_back({{"id", list.size()},
                    {"name", adapter.name},
                    {"path", adapter.path},
                    {"scale", adapter.scale},
                    {"task_name", adapter.task_name},
                    {"prompt_prefix", adapter.prompt_prefix}});
  }
  const HttpResponse response = JsonResponse(list);
  co_await exchange.Reply(response);
}

asio::awaitable<void> Show(RouteContext& context, const HttpRequest& http, HttpExchange& exchange) {
  // Names may contain slashes.
  constexpr std::string_view kMarker = "/models/";
  const std::string name = http.path.substr(http.path.find(kMarker) + kMarker.size());
  const auto model = context.models.Get(name);
  const HttpResponse response = JsonResponse(ModelJson(*model));
  co_await exchange.Reply(response);
}

}  // namespace

void AddModelRoutes(RouteContext& context, Router& router) {
  router.Add({.method = "GET",
              .path = "/lora-adapters",
              .handler = [&context](const HttpRequest& http, HttpExchange& exchange) {
                return ListAdapters(context, http, exchange);
              }});
  for (const std::string prefix : {"/v1/models", "/models"}) {
    router.Add({.method = "GET",
                .path = prefix,
                .handler = [&context](const HttpRequest& http, HttpExchange& exchange) {
                  return List(context, http, exchange);
                }});
    router.Add({.method = "GET",
                .path = prefix + "/*",
                .handler = [&context](const HttpRequest& http, HttpExchange& exchange) {
                  return Show(context, http, exchange);
                }});
  }
}

}  // namespace server
