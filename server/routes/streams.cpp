#include "server/routes/streams.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "server/routes/respond.h"

namespace server {
namespace {

namespace asio = boost::asio;

// Events that the client has: the query parameter `after`.
uint64_t ReadAfter(const HttpRequest& http) {
  std::string text;
  const bool decoded = PercentDecode(QueryParameter(http.query, "after"), &text);
  if (decoded && text.empty()) return 0;
  uint64_t after = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), after);
  if (!decoded || error != std::errc() || end != text.data() + text.size()) {
    throw InvalidValue("after",
                       "Invalid value for 'after': expected the number of events that you have.");
  }
  return after;
}

std::shared_ptr<ResumableStream> FindStream(const RouteContext& context, const HttpRequest& http) {
  const std::string id = http.path.substr(http.path.rfind('/') + 1);
  return context.streams.Find(id, http.key_name);
}

asio::awaitable<void> Resume(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  const std::shared_ptr<ResumableStream> stream = FindStream(context, http);
  HttpResponse head = StreamHead();
  head.headers.emplace_back(kStreamIdHeader, stream->id());
  ResumableStream::Reader reader(stream, ReadAfter(http));
  co_await Follow(reader, head, context.options.ping_seconds, exchange);
}

asio::awaitable<void> Delete(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  const std::shared_ptr<ResumableStream> stream = FindStream(context, http);
  context.streams.Remove(stream->id());
  stream->Cancel();
  Json json;
  json["id"] = stream->id();
  json["object"] = "stream";
  json["deleted"] = true;
  const HttpResponse response = JsonResponse(json);
  co_await exchange.Reply(response);
}

}  // namespace

asio::awaitable<void> Follow(ResumableStream::Reader& reader, const HttpResponse& head,
                             double ping_seconds, HttpExchange& exchange) {
  for (;;) {
    const auto wake = co_await exchange.WaitFor(reader, ping_seconds);
    if (wake == HttpExchange::Wake::kGone) co_return;
    ResumableStream::Reader::Piece piece;
    if (wake == HttpExchange::Wake::kReady) piece = reader.Take();
    if (wake == HttpExchange::Wake::kTimeout) piece.text = ": ping\n\n";
    if (piece.refused && !exchange.streaming()) throw ApiError(*piece.refused);
    if (!exchange.streaming() && !co_await exchange.StartStream(head)) co_return;
    if (!co_await exchange.Write(piece.text)) co_return;
    if (piece.ended) break;
  }
  co_await exchange.FinishStream();
}

void AddStreamRoutes(RouteContext& context, Router& router) {
  using Work = asio::awaitable<void> (*)(RouteContext&, const HttpRequest&, HttpExchange&);
  const std::vector<std::pair<std::string, Work>> works = {{"GET", Resume}, {"DELETE", Delete}};
  for (const auto& [method, work] : works) {
    router.Add(
        {.method = method,
         .path = "/v1/streams/*",
         .handler = [&context, work = work](const HttpRequest& http, HttpExchange& exchange) {
           return work(context, http, exchange);
         }});
  }
}

}  // namespace server
