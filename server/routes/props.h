#pragma once

#include "server/routes/routes.h"

namespace server {

// GET /props: what is served, with what limits and how busy it is. For operators.
void AddPropsRoutes(RouteContext& context, Router& router);

}  // namespace server
