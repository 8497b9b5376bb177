#include <nlohmann/json.hpp>

#include "server/openai_schema.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

GenerationJob Prepare(const RouteContext& context, const HttpRequest& http) {
  const CompletionRequest request =
      ParseCompletionRequest(ParseJson(http.body, context.options.max_json_depth),
                             {.strict = context.options.strict_params});
  GenerationJob job = PrepareCompletion(request, context.models.Get(request.params.model));
  job.SetSource(http);
  return job;
}

asio::awaitable<void> Complete(RouteContext& context, const HttpRequest& http,
                               HttpExchange& exchange) {
  GenerationJob job =
      co_await OnWorker(context.workers, [&context, &http] { return Prepare(context, http); });
  auto writer = MakeCompletionWriter(job);
  co_await Respond(context, std::move(job), std::move(writer), exchange);
}

}  // namespace

void AddCompletionRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/v1/completions", "/completions"}, Complete, router);
}

}  // namespace server
