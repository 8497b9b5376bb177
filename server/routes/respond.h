#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <initializer_list>

#include "server/answer_writer.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/http_exchange.h"
#include "server/routes/routes.h"

namespace server {

// Runs `work` on a worker and goes on, on the own strand, with its result or its exception.
template <typename Work>
boost::asio::awaitable<std::invoke_result_t<Work>> OnWorker(boost::asio::thread_pool& workers,
                                                            Work work) {
  co_return co_await boost::asio::co_spawn(
      workers,
      [work = std::move(work)]() mutable -> boost::asio::awaitable<std::invoke_result_t<Work>> {
        co_return work();
      },
      boost::asio::use_awaitable);
}

// Runs `prepare`, in which a text that is too long for the model is found out before it is queued,
// and counts that as a request that was not admitted.
template <typename Prepare>
auto CountingTooLong(const RouteContext& context, const ServedModel& model,
                     const Prepare& prepare) {
  try {
    return prepare();
  } catch (const ApiError& error) {
    if (error.context_sizes) context.metrics.ForModel(model.name())->OnRejected("prompt_too_long");
    throw;
  }
}

// What answers a request of a JSON endpoint.
using JsonEndpoint = boost::asio::awaitable<void> (*)(RouteContext& context,
                                                      const HttpRequest& http,
                                                      HttpExchange& exchange);

// POST of JSON to each of the paths, with a key.
void AddEndpoint(RouteContext& context, std::initializer_list<const char*> paths,
                 JsonEndpoint endpoint, Router& router);
// Likewise, of an endpoint that can answer with an event stream.
void AddStreamingEndpoint(RouteContext& context, std::initializer_list<const char*> paths,
                          JsonEndpoint endpoint, Router& router);

// Submits the job and answers with its text: at once, or as an event stream. A client that goes
// away cancels it. Errors before the first byte are thrown as ApiError; later ones become an error
// frame.
boost::asio::awaitable<void> Respond(RouteContext& context, GenerationJob job,
                                     std::unique_ptr<AnswerWriter> writer, HttpExchange& exchange);

// Tells the client which of its parameters had no effect. Names come from the request: what could
// not stand in a header is left out.
void AddIgnoredHeader(const std::vector<std::string>& names, HttpResponse* response);

// ignored: as AddIgnoredHeader().
HttpResponse JsonResponse(const Json& json, const std::vector<std::string>& ignored = {});
// Of an event stream.
HttpResponse StreamHead();

}  // namespace server
