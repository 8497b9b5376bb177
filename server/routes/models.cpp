#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/param_reader.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"
#include "server/sse_writer.h"

namespace server {
namespace {

namespace asio = boost::asio;

Json ModelJson(const RouteContext& context, const ModelRegistry::Status& status) {
  Json json = {{"id", status.name},
               {"object", "model"},
               {"created", context.created},
               {"owned_by", "tern"},
               {"max_model_len", nullptr},
               {"state", StateName(status.state)},
               {"load_progress", status.progress},
               {"pinned", status.policy.pinned}};
  if (!status.error.empty()) json["error"] = status.error;
  if (!status.facts) return json;
  json["max_model_len"] = status.facts->context_length;
  json["meta"] = {{"architecture", status.facts->architecture},
                  {"vocabulary", status.facts->vocabulary},
                  {"parameters", status.facts->parameters},
                  {"memory_bytes", status.facts->memory_bytes}};
  return json;
}

asio::awaitable<void> List(RouteContext& context, const HttpRequest&, HttpExchange& exchange) {
  Json data = Json::array();
  for (const auto& status : context.models.Statuses()) data.push_back(ModelJson(context, status));
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
  const HttpResponse response = JsonResponse(ModelJson(context, context.models.StatusOf(name)));
  co_await exchange.Reply(response);
}

struct ModelOrder {
  std::string model;
  bool stream = false;
};

// {"model": "name"}, and for loading perhaps "stream": true.
ModelOrder ParseOrder(const RouteContext& context, const HttpRequest& http, bool streams) {
  const Json body = ParseJson(http.body, context.options.max_json_depth);
  ParamReader reader(body);
  ModelOrder order;
  order.model = reader.RequiredString("model");
  if (streams) order.stream = reader.Bool("stream").value_or(false);
  if (const auto unknown = reader.Unknown(); !unknown.empty()) {
    throw UnsupportedParameter(unknown.front(), "Unknown parameter: '" + unknown.front() + "'.");
  }
  return order;
}

// Waits for so long as a request would. False when the client has gone.
asio::awaitable<bool> WaitFor(const RouteContext& context, ModelWait& wait,
                              HttpExchange& exchange) {
  const double patience = context.options.model_wait_seconds;
  co_return co_await exchange.WaitFor(wait, patience) != HttpExchange::Wake::kGone;
}

asio::awaitable<void> ReplyWithState(RouteContext& context, const std::string& model,
                                     const ModelWait& wait, HttpExchange& exchange) {
  HttpResponse response = JsonResponse(ModelJson(context, context.models.StatusOf(model)));
  if (!wait.ready()) response.status = 202;  // still under way
  co_await exchange.Reply(response);
}

// One event per step of the progress, then the last state.
asio::awaitable<void> StreamLoad(RouteContext& context, const std::string& model, ModelWait& wait,
                                 HttpExchange& exchange) {
  constexpr double kStepSeconds = 0.25;
  const HttpResponse head = StreamHead();
  if (!co_await exchange.StartStream(head)) co_return;
  SseWriter sse;
  std::string told;
  for (;;) {
    const bool last = wait.ready();
    const std::string state = Dump(ModelJson(context, context.models.StatusOf(model)));
    if (state != told || last) sse.Data(state);
    told = state;
    if (last) sse.Done();
    const std::string text = sse.Take();
    if (!co_await exchange.Write(text)) co_return;
    if (last) break;
    if (co_await exchange.WaitFor(wait, kStepSeconds) == HttpExchange::Wake::kGone) co_return;
  }
  co_await exchange.FinishStream();
}

asio::awaitable<void> Load(RouteContext& context, const HttpRequest& http, HttpExchange& exchange) {
  const ModelOrder order = ParseOrder(context, http, true);
  const auto wait = context.models.Load(order.model);
  if (order.stream) {
    co_await StreamLoad(context, order.model, *wait, exchange);
    co_return;
  }
  if (!co_await WaitFor(context, *wait, exchange)) co_return;
  if (wait->ready()) wait->Check();
  co_await ReplyWithState(context, order.model, *wait, exchange);
}

asio::awaitable<void> Unload(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  const ModelOrder order = ParseOrder(context, http, false);
  const auto wait = context.models.Unload(order.model);
  if (!co_await WaitFor(context, *wait, exchange)) co_return;
  if (wait->ready()) wait->Check();
  co_await ReplyWithState(context, order.model, *wait, exchange);
}

}  // namespace

void AddModelRoutes(RouteContext& context, Router& router) {
  router.Add({.method = "GET",
              .path = "/lora-adapters",
              .handler = [&context](const HttpRequest& http, HttpExchange& exchange) {
                return ListAdapters(context, http, exchange);
              }});
  using Work = asio::awaitable<void> (*)(RouteContext&, const HttpRequest&, HttpExchange&);
  const std::vector<std::pair<std::string, Work>> orders = {{"/load", Load}, {"/unload", Unload}};
  for (const std::string prefix : {"/v1/models", "/models"}) {
    for (const auto& [path, work] : orders) {
      router.Add(
          {.method = "POST",
           .path = prefix + path,
           .access = Router::Access::kAdmin,
           .json = true,
           .handler = [&context, work = work](const HttpRequest& http, HttpExchange& exchange) {
             return work(context, http, exchange);
           }});
    }
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
