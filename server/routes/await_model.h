#pragma once

#include "server/routes/routes.h"

namespace server {

// The handler for requests whose model may have to be loaded first: when it says so
// (ModelNotLoaded) the request waits, for at most model_wait_seconds, and the handler runs again. A
// stream tells the progress in comments meanwhile, where the route `streams`; a client that goes
// away stops waiting.
Handler WhenLoaded(RouteContext& context, bool streams, Handler handler);

}  // namespace server
