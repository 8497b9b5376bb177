#include "server/routes/await_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "fabric/seconds_since.h"
#include "server/error_format.h"
#include "server/json.h"
#include "server/routes/respond.h"
#include "server/sse_writer.h"

namespace server {
namespace {

namespace asio = boost::asio;

bool AsksForStream(const RouteContext& context, const HttpRequest& http) {
  try {
    const Json body = ParseJson(http.body, context.options.max_json_depth);
    return body.is_object() && body.contains("stream") && body["stream"] == true;
  } catch (const ApiError&) {
    return false;
  }
}

// ": loading 42 %", for the client's eyes and against proxies that close silent connections.
std::string ProgressComment(const ModelRegistry::Status& status) {
  const int percent = static_cast<int>(std::floor(status.progress * 100));
  SseWriter sse;
  sse.Comment("loading " + std::to_string(percent) + " %");
  return sse.Take();
}

// One request that waits. `streams` is found out when there is something to tell.
class Waiting {
 public:
  Waiting(RouteContext& context, bool can_stream, const HttpRequest& http, HttpExchange& exchange)
      : context_(context), http_(http), exchange_(exchange) {
    // The head of a resumable stream names it, and there is none yet.
    if (!can_stream || http.Header(kResumableHeader) == "true") streams_ = false;
  }

  // False when the client has gone. Throws ApiError when the time is up or the load failed.
  asio::awaitable<bool> For(const ModelNotLoaded& missing) {
    const std::shared_ptr<ModelWait> wait = missing.wait();
    const std::string model = missing.model();
    while (!wait->ready()) {
      const double left = SecondsLeft();
      const ModelRegistry::Status status = context_.models.StatusOf(model);
      if (left <= 0) throw ModelLoading(model, status.progress, 5);
      const double seconds = std::min<double>(left, context_.options.ping_seconds);
      const auto wake = co_await exchange_.WaitFor(*wait, seconds);
      if (wake == HttpExchange::Wake::kGone) co_return false;
      if (wake == HttpExchange::Wake::kReady) break;
      if (seconds < left && !co_await Tell(status)) co_return false;
    }
    wait->Check();
    co_return true;
  }

 private:
  double SecondsLeft() const {
    const double waited = fabric::SecondsSince(http_.arrival);
    return context_.options.model_wait_seconds - waited;
  }

  asio::awaitable<bool> Tell(const ModelRegistry::Status& status) {
    if (!streams_) {
      streams_ =
          co_await OnWorker(context_.workers, [this] { return AsksForStream(context_, http_); });
    }
    if (!*streams_) co_return true;
    const HttpResponse head = StreamHead();
    if (!exchange_.streaming() && !co_await exchange_.StartStream(head)) co_return false;
    const std::string text = ProgressComment(status);
    co_return co_await exchange_.Write(text);
  }

  RouteContext& context_;
  const HttpRequest& http_;
  HttpExchange& exchange_;
  std::optional<bool> streams_;
};

// Runs the handler until its model is there.
asio::awaitable<void> Serve(RouteContext& context, bool can_stream, const Handler& handler,
                            const HttpRequest& http, HttpExchange& exchange) {
  Waiting waiting(context, can_stream, http, exchange);
  // While it is held the model stays.
  std::optional<ModelNotLoaded> missing;
  for (;;) {
    std::optional<ModelNotLoaded> still;
    try {
      co_await handler(http, exchange);
      co_return;
    } catch (const ModelNotLoaded& thrown) {
      still = thrown;
    }
    missing = std::move(still);
    if (!co_await waiting.For(*missing)) co_return;
  }
}

// An error after the stream has begun is told inside it.
asio::awaitable<void> ServeAndTell(RouteContext& context, bool can_stream, const Handler& handler,
                                   const HttpRequest& http, HttpExchange& exchange) {
  std::optional<ApiError> error;
  try {
    co_await Serve(context, can_stream, handler, http, exchange);
  } catch (const ApiError& thrown) {
    if (!exchange.streaming()) throw;
    error = thrown;
  }
  if (!error) co_return;
  const std::string text = ErrorFrames(http, *error);
  if (co_await exchange.Write(text)) co_await exchange.FinishStream();
}

}  // namespace

Handler WhenLoaded(RouteContext& context, bool streams, Handler handler) {
  return [&context, streams, handler = std::move(handler)](const HttpRequest& http,
                                                           HttpExchange& exchange) {
    return ServeAndTell(context, streams, handler, http, exchange);
  };
}

}  // namespace server
