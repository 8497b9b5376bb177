#include "server/routes/await_model.h"
#include "server/routes/props.h"
#include "server/routes/routes.h"

namespace server {

void AddApiRoutes(RouteContext& context, Router& router) {
  Router routes;
  AddCompletionRoutes(context, routes);
  AddResponsesRoutes(context, routes);
  AddMessagesRoutes(context, routes);
  AddEmbeddingRoutes(context, routes);
  AddInfillRoutes(context, routes);
  AddModelRoutes(context, routes);
  AddStreamRoutes(context, routes);
  AddTokenizeRoutes(context, routes);
  AddHealthRoutes(context, routes);
  AddMetricsRoutes(context, routes);
  AddPropsRoutes(context, routes);
  for (Router::Route route : routes.routes()) {
    route.handler = WhenLoaded(context, route.streams, std::move(route.handler));
    router.Add(std::move(route));
  }
}

}  // namespace server
