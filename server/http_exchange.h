#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <string>
#include <string_view>

#include "server/http_types.h"
#include "server/wake_source.h"

namespace server {

// What a handler does with its connection: answer once, or stream, and meanwhile learn that the
// client has gone.
//
// Threads:  the strand of the connection, where handlers run.
// Lifetime: arguments are borrowed until the call is over. Pass named objects: GCC 12 destroys a
//           temporary in an awaited call's arguments twice.
class HttpExchange {
 public:
  enum class Wake { kReady, kTimeout, kGone };

  virtual ~HttpExchange() = default;

  // The one and only complete answer. False when the client has gone.
  virtual boost::asio::awaitable<bool> Reply(const HttpResponse& response) = 0;

  // Head of an answer of unknown length (chunked; until close for HTTP/1.0), then its pieces, then
  // its end. Each is false when the client has gone or took nothing for the write timeout.
  virtual boost::asio::awaitable<bool> StartStream(const HttpResponse& head) = 0;
  virtual boost::asio::awaitable<bool> Write(std::string_view text) = 0;
  virtual boost::asio::awaitable<bool> FinishStream() = 0;
  // StartStream() was called, so an error can only be told inside the stream.
  virtual bool streaming() const = 0;

  // Waits until the source is ready, `seconds` have passed, or the client has closed its side or
  // vanished. Bytes that the client sends ahead are kept for the next request.
  virtual boost::asio::awaitable<Wake> WaitFor(WakeSource& source, double seconds) = 0;
};

}  // namespace server
