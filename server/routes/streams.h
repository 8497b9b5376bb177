#pragma once

#include <boost/asio/awaitable.hpp>

#include "server/http_exchange.h"
#include "server/routes/routes.h"
#include "server/stream_store.h"

namespace server {

// Names a resumable stream to its client.
inline constexpr char kStreamIdHeader[] = "x-tern-stream-id";

// Sends a stream's events until its end. The client may go; the stream goes on. Throws ApiError
// when the stream failed before its first event and nothing was sent to this client.
boost::asio::awaitable<void> Follow(ResumableStream::Reader& reader, const HttpResponse& head,
                                    double ping_seconds, HttpExchange& exchange);

}  // namespace server
