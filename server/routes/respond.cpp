#include "server/routes/respond.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/routes/streams.h"

namespace server {
namespace {

namespace asio = boost::asio;

// Writes the updates that have come. An error before the head went out is thrown, for a status of
// its own; a later one ends the stream. True when the stream has ended.
bool WriteUpdates(Generation& generation, bool head_sent, AnswerWriter& writer) {
  try {
    for (const Generation::Update& update : generation.Take()) writer.Write(update);
  } catch (const ApiError& error) {
    if (!head_sent) throw;
    writer.Fail(error);
    return true;
  }
  if (!generation.finished()) return false;
  writer.End(generation.usage());
  return true;
}

// The head goes out with the first token, or with the first ping when that takes long: until then
// an error still gets its own status.
asio::awaitable<void> Stream(Generation& generation, AnswerWriter& writer, double ping_seconds,
                             HttpExchange& exchange) {
  HttpResponse head = StreamHead();
  AddIgnoredHeader(generation.job().params.ignored, &head);
  for (bool ended = false; !ended;) {
    const auto wake = co_await exchange.WaitFor(generation.queue(), ping_seconds);
    if (wake == HttpExchange::Wake::kGone) co_return;
    if (wake == HttpExchange::Wake::kTimeout) {
      writer.Ping();
    } else {
      ended = WriteUpdates(generation, exchange.streaming(), writer);
    }
    if (!exchange.streaming() && !co_await exchange.StartStream(head)) co_return;
    const std::string text = writer.Take();
    if (!co_await exchange.Write(text)) co_return;
  }
  co_await exchange.FinishStream();
}

// The stream is the store's; this connection is its first reader.
asio::awaitable<void> StreamResumably(RouteContext& context, std::unique_ptr<Generation> generation,
                                      std::unique_ptr<AnswerWriter> writer,
                                      HttpExchange& exchange) {
  HttpResponse head = StreamHead();
  AddIgnoredHeader(generation->job().params.ignored, &head);
  const std::string owner = generation->job().tenant;
  const auto executor = co_await asio::this_coro::executor;
  const auto stream =
      context.streams.Add(owner, std::move(generation), std::move(writer), executor);
  head.headers.emplace_back(kStreamIdHeader, stream->id());
  ResumableStream::Reader reader(stream, 0);
  stream->Start();
  co_await Follow(reader, head, context.options.ping_seconds, exchange);
}

asio::awaitable<void> Collect(Generation& generation, AnswerWriter& writer,
                              HttpExchange& exchange) {
  const uint32_t count = generation.job().choice_count();
  std::vector<FinishedChoice> choices(count);
  while (!generation.finished()) {
    constexpr double kLong = 3600;
    const auto wake = co_await exchange.WaitFor(generation.queue(), kLong);
    if (wake == HttpExchange::Wake::kGone) co_return;
    for (Generation::Update& update : generation.Take()) {
      FinishedChoice& choice = choices[update.choice];
      for (AnswerPart& part : update.parts) choice.Add(std::move(part));
      std::move(update.delta.tokens.begin(), update.delta.tokens.end(),
                std::back_inserter(choice.tokens));
      if (!update.finish) continue;
      choice.reason = *update.finish;
      choice.stop_string = std::move(update.stop_string);
    }
  }
  std::vector<const EchoedPrompt*> echoes;
  for (uint32_t i = 0; i < count && generation.job().echo(); ++i) {
    echoes.push_back(generation.echo(i));
  }
  const HttpResponse response = JsonResponse(writer.Whole(choices, generation.usage(), echoes),
                                             generation.job().params.ignored);
  co_await exchange.Reply(response);
}

// A client that misspells it would lose its stream with its connection.
void CheckResumable(const HttpRequest& http) {
  const std::string_view value = http.Header(kResumableHeader);
  if (value.empty() || value == "true" || value == "false") return;
  const std::string name = kResumableHeader;
  throw InvalidValue(name, "Invalid value for the header '" + name +
                               "': expected 'true' or 'false', but got '" + std::string(value) +
                               "'.");
}

void AddPost(RouteContext& context, std::initializer_list<const char*> paths, JsonEndpoint endpoint,
             bool streams, Router& router) {
  for (const char* path : paths) {
    router.Add(
        {.method = "POST",
         .path = path,
         .access = Router::Access::kKey,
         .json = true,
         .streams = streams,
         .handler = [&context, endpoint, streams](const HttpRequest& http, HttpExchange& exchange) {
           if (streams) CheckResumable(http);
           return endpoint(context, http, exchange);
         }});
  }
}

}  // namespace

void AddIgnoredHeader(const std::vector<std::string>& names, HttpResponse* response) {
  constexpr size_t kMaxListed = 1024;
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-' || c == '.' || c == '[' || c == ']';
  };
  std::string list;
  for (const std::string& name : names) {
    if (name.empty() || !std::all_of(name.begin(), name.end(), plain)) continue;
    if (list.size() + name.size() > kMaxListed) break;
    list += (list.empty() ? "" : ", ") + name;
  }
  if (!list.empty()) response->headers.emplace_back("x-tern-ignored-parameters", list);
}

HttpResponse JsonResponse(const Json& json, const std::vector<std::string>& ignored) {
  HttpResponse response;
  response.body = Dump(json);
  AddIgnoredHeader(ignored, &response);
  return response;
}

HttpResponse StreamHead() {
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  return head;
}

void AddEndpoint(RouteContext& context, std::initializer_list<const char*> paths,
                 JsonEndpoint endpoint, Router& router) {
  AddPost(context, paths, endpoint, false, router);
}

void AddStreamingEndpoint(RouteContext& context, std::initializer_list<const char*> paths,
                          JsonEndpoint endpoint, Router& router) {
  AddPost(context, paths, endpoint, true, router);
}

asio::awaitable<void> Respond(RouteContext& context, GenerationJob job,
                              std::unique_ptr<AnswerWriter> writer, HttpExchange& exchange) {
  ModelMetrics* const metrics = context.metrics.ForModel(job.model->name());
  if (job.params.stream) job.backlog_bytes = context.options.stream_backlog_bytes;
  auto generation = std::make_unique<Generation>(std::move(job));
  generation->Submit(metrics);
  if (generation->job().resumable) {
    co_await StreamResumably(context, std::move(generation), std::move(writer), exchange);
  } else if (generation->job().params.stream) {
    co_await Stream(*generation, *writer, context.options.ping_seconds, exchange);
  } else {
    co_await Collect(*generation, *writer, exchange);
  }
}

}  // namespace server
