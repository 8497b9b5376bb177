#include <nlohmann/json.hpp>

#include "server/messages_api.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

ChatRequest Parse(const RouteContext& context, const HttpRequest& http, bool counting) {
  return ParseMessagesRequest(ParseJson(http.body, context.options.max_json_depth),
                              {.strict = context.options.strict_params}, counting);
}

GenerationJob Prepare(const RouteContext& context, const HttpRequest& http) {
  return InWordsOf(kMessagesNames, [&] {
    const ChatRequest request = Parse(context, http, false);
    const auto model = context.models.Get(request.params.model);
    GenerationJob job =
        CountingTooLong(context, *model, [&] { return PrepareChat(request, model); });
    job.SetSource(http);
    RenameParams(kMessagesNames, &job.params.ignored);
    return job;
  });
}

asio::awaitable<void> Answer(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  GenerationJob job =
      co_await OnWorker(context.workers, [&context, &http] { return Prepare(context, http); });
  auto writer = MakeMessagesWriter(job);
  co_await Respond(context, std::move(job), std::move(writer), exchange);
}

Json CountTokens(const RouteContext& context, const HttpRequest& http) {
  return InWordsOf(kMessagesNames, [&] {
    const ChatRequest request = Parse(context, http, true);
    const auto model = context.models.Get(request.params.model);
    Json json;
    json["input_tokens"] =
        EncodeChat(RenderChat(request.prompt, *model), model->tokenizer()).size();
    return json;
  });
}

asio::awaitable<void> Count(RouteContext& context, const HttpRequest& http,
                            HttpExchange& exchange) {
  const Json json =
      co_await OnWorker(context.workers, [&context, &http] { return CountTokens(context, http); });
  const HttpResponse response = JsonResponse(json);
  co_await exchange.Reply(response);
}

}  // namespace

void AddMessagesRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/v1/messages", "/messages"}, Answer, router);
  AddEndpoint(context, {"/v1/messages/count_tokens", "/messages/count_tokens"}, Count, router);
}

}  // namespace server
