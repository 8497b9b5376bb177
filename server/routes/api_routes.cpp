#include "server/routes/props.h"
#include "server/routes/routes.h"

namespace server {

void AddApiRoutes(RouteContext& context, Router& router) {
  AddChatCompletionRoutes(context, router);
  AddCompletionRoutes(context, router);
  AddResponsesRoutes(context, router);
  AddMessagesRoutes(context, router);
  AddModelRoutes(context, router);
  AddTokenizeRoutes(context, router);
  AddHealthRoutes(context, router);
  AddMetricsRoutes(context, router);
  AddPropsRoutes(context, router);
}

}  // namespace server
