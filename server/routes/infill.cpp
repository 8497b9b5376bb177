#include "server/infill.h"

#include <nlohmann/json.hpp>

#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

asio::awaitable<void> Fill(RouteContext& context, const HttpRequest& http, HttpExchange& exchange) {
  InfillJob infill = co_await OnWorker(context.workers, [&context, &http] {
    const InfillRequest request =
        ParseInfillRequest(ParseJson(http.body, context.options.max_json_depth),
                           {.strict = context.options.strict_params});
    const auto model = context.models.Get(request.params.model);
    InfillJob prepared =
        CountingTooLong(context, *model, [&] { return PrepareInfill(request, model); });
    prepared.job.SetSource(http);
    return prepared;
  });
  auto writer = MakeInfillWriter(infill);
  co_await Respond(context, std::move(infill.job), std::move(writer), exchange);
}

}  // namespace

void AddInfillRoutes(RouteContext& context, Router& router) {
  AddStreamingEndpoint(context, {"/infill", "/v1/infill"}, Fill, router);
}

}  // namespace server
