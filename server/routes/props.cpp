#include "server/routes/props.h"

#include <nlohmann/json.hpp>

#include "server/routes/respond.h"

namespace server {
namespace {

namespace asio = boost::asio;

Json TokenOrNull(const std::optional<engine::TokenId>& token) {
  return token ? Json(*token) : Json(nullptr);
}

Json ModelJson(const ServedModel& model, const MetricsSnapshot::Model& state) {
  const engine::text::Tokenizer& tokenizer = model.tokenizer();
  const scheduler::SchedulerStats& stats = state.stats.scheduler;
  Json json;
  json["id"] = model.name();
  json["context_length"] = model.context_length();
  json["vocabulary"] = tokenizer.size();
  json["bos_token_id"] = TokenOrNull(tokenizer.bos());
  json["eos_token_id"] = TokenOrNull(tokenizer.eos());
  json["stop_token_ids"] = Json::array();
  for (const engine::TokenId token : tokenizer.stop_tokens()) {
    json["stop_token_ids"].push_back(token);
  }
  json["has_chat_template"] = model.chat_template() != nullptr;
  json["max_sequences"] = state.max_sequences;
  json["running"] = stats.running;
  json["waiting"] = stats.waiting;
  json["kv_blocks"] = stats.kv_blocks_total;
  json["kv_blocks_used"] = stats.kv_blocks_used;
  json["kv_block_size"] = state.block_size;
  return json;
}

Json Props(const RouteContext& context) {
  const MetricsSnapshot snapshot = context.snapshot();
  Json models = Json::array();
  for (const auto& model : context.models.Ready()) {
    for (const MetricsSnapshot::Model& state : snapshot.models) {
      if (state.name == model->name()) models.push_back(ModelJson(*model, state));
    }
  }
  const ServerOptions& options = context.options;
  Json json;
  json["models"] = std::move(models);
  json["draining"] = snapshot.draining;
  json["connections"] = snapshot.http_connections;
  json["active_requests"] = snapshot.http_active_requests;
  json["strict_params"] = static_cast<bool>(options.strict_params);
  json["limits"] = {{"max_body_bytes", options.max_body_bytes},
                    {"max_body_memory_bytes", options.max_body_memory_bytes},
                    {"max_json_depth", options.max_json_depth},
                    {"max_connections", options.max_connections}};
  return json;
}

asio::awaitable<void> Answer(RouteContext& context, HttpExchange& exchange) {
  const HttpResponse response = JsonResponse(Props(context));
  co_await exchange.Reply(response);
}

}  // namespace

void AddPropsRoutes(RouteContext& context, Router& router) {
  router.Add({.method = "GET",
              .path = "/props",
              .access = Router::Access::kAdmin,
              .handler = [&context](const HttpRequest&, HttpExchange& exchange) {
                return Answer(context, exchange);
              }});
}

}  // namespace server
