#include <nlohmann/json.hpp>

#include "server/responses_api.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

struct Prepared {
  GenerationJob job;
  std::unique_ptr<AnswerWriter> writer;
};

Prepared Prepare(const RouteContext& context, const HttpRequest& http) {
  const ResponsesRequest request =
      ParseResponsesRequest(ParseJson(http.body, context.options.max_json_depth),
                            {.strict = context.options.strict_params});
  return InWordsOf(kResponsesNames, [&] {
    Prepared prepared;
    const auto model = context.models.Get(request.chat.params.model);
    prepared.job =
        CountingTooLong(context, *model, [&] { return PrepareChat(request.chat, model); });
    prepared.job.SetSource(http);
    // What turned out to have no effect with this model.
    RenameParams(
        kResponsesNames,
        std::span(prepared.job.params.ignored).subspan(request.chat.params.ignored.size()));
    prepared.writer = MakeResponsesWriter(request, prepared.job);
    return prepared;
  });
}

asio::awaitable<void> Answer(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  Prepared prepared =
      co_await OnWorker(context.workers, [&context, &http] { return Prepare(context, http); });
  co_await Respond(context, std::move(prepared.job), std::move(prepared.writer), exchange);
}

}  // namespace

void AddResponsesRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/v1/responses", "/responses"}, Answer, router);
}

}  // namespace server
