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
  const ChatRequest request = Parse(context, http, false);
  return InWordsOf(kMessagesNames, [&] {
    const auto model = context.models.Get(request.params.model);
    GenerationJob job =
        CountingTooLong(context, *model, [&] { return PrepareChat(request, model); });
    job.SetSource(http);
    // What turned out to have no effect with this model.
    RenameParams(kMessagesNames,
                 std::span(job.params.ignored).subspan(request.params.ignored.size()));
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

HttpResponse CountTokens(const RouteContext& context, const HttpRequest& http) {
  const ChatRequest request = Parse(context, http, true);
  return InWordsOf(kMessagesNames, [&] {
    const auto model = context.models.Get(request.params.model);
    Json json;
    json["input_tokens"] =
        EncodeChat(RenderChat(request.prompt, *model), model->tokenizer()).size();
    return JsonResponse(json, request.params.ignored);
  });
}

asio::awaitable<void> Count(RouteContext& context, const HttpRequest& http,
                            HttpExchange& exchange) {
  const HttpResponse response =
      co_await OnWorker(context.workers, [&context, &http] { return CountTokens(context, http); });
  co_await exchange.Reply(response);
}

}  // namespace

void AddMessagesRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/v1/messages", "/messages"}, Answer, router);
  AddEndpoint(context, {"/v1/messages/count_tokens", "/messages/count_tokens"}, Count, router);
}

}  // namespace server
