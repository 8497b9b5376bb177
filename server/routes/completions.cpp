#include <nlohmann/json.hpp>

#include "server/openai_schema.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

GenerationJob ChatJob(const RouteContext& context, const Json& body) {
  const ChatRequest request = ParseChatRequest(body, {.strict = context.options.strict_params});
  const auto model = context.models.Get(request.params.model);
  return CountingTooLong(context, *model, [&] { return PrepareChat(request, model); });
}

GenerationJob TextJob(const RouteContext& context, const Json& body) {
  const CompletionRequest request =
      ParseCompletionRequest(body, {.strict = context.options.strict_params});
  const auto model = context.models.Get(request.params.model);
  return CountingTooLong(context, *model, [&] { return PrepareCompletion(request, model); });
}

template <GenerationJob (*kMakeJob)(const RouteContext&, const Json&)>
asio::awaitable<void> Complete(RouteContext& context, const HttpRequest& http,
                               HttpExchange& exchange) {
  GenerationJob job = co_await OnWorker(context.workers, [&context, &http] {
    GenerationJob made = kMakeJob(context, ParseJson(http.body, context.options.max_json_depth));
    made.SetSource(http);
    return made;
  });
  auto writer = MakeCompletionWriter(job);
  co_await Respond(context, std::move(job), std::move(writer), exchange);
}

}  // namespace

void AddCompletionRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/v1/chat/completions", "/chat/completions"}, Complete<ChatJob>,
                       router);
  AddStreamingEndpoint(context, {"/v1/completions", "/completions"}, Complete<TextJob>, router);
}

}  // namespace server
