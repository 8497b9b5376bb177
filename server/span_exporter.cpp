#include "server/span_exporter.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "server/json.h"
#include "server/log.h"
#include "server/otlp_json.h"

namespace server {
namespace {

// A collector that asks for longer is asked again after this.
constexpr double kMaxRetryAfter = 300;

// One answer of the collector. Only its beginning is kept.
class Answer : public ClientEvents {
 public:
  void OnHead(int status, const HeaderList& headers) override {
    status_ = status;
    for (const auto& [name, value] : headers) {
      double seconds = 0;
      const char* end = value.data() + value.size();
      if (name != "retry-after") continue;
      const auto [stop, error] = std::from_chars(value.data(), end, seconds);
      if (error == std::errc() && stop == end && seconds >= 0) retry_after_ = seconds;
    }
  }
  void OnBody(std::string_view piece) override {
    constexpr size_t kKept = 4096;
    body_.append(piece.substr(0, kKept - std::min(kKept, body_.size())));
  }
  void OnEnd(const ClientFailure* failure) override {
    if (failure != nullptr) failure_ = *failure;
    ended_ = true;
  }

  int status() const { return status_; }
  std::optional<double> retry_after() const { return retry_after_; }
  const std::optional<ClientFailure>& failure() const { return failure_; }
  bool ended() const { return ended_; }
  // partialSuccess.rejectedSpans, a number or a text.
  uint64_t rejected() const {
    const Json json = Json::parse(body_, nullptr, false);
    if (!json.is_object() || !json.contains("partialSuccess")) return 0;
    const Json& partial = json["partialSuccess"];
    if (!partial.is_object() || !partial.contains("rejectedSpans")) return 0;
    const Json& count = partial["rejectedSpans"];
    if (count.is_number_unsigned()) return count.get<uint64_t>();
    uint64_t number = 0;
    if (count.is_string()) {
      const auto& text = count.get_ref<const std::string&>();
      std::from_chars(text.data(), text.data() + text.size(), number);
    }
    return number;
  }

 private:
  int status_ = 0;
  std::optional<double> retry_after_;
  std::optional<ClientFailure> failure_;
  std::string body_;
  bool ended_ = false;
};

}  // namespace

struct SpanExporter::Outcome {
  bool delivered = false;
  bool again = false;
  std::optional<double> pause;  // as the collector wants it
  uint64_t rejected = 0;
  std::string problem;
};

SpanExporter::SpanExporter(Options options)
    : options_(std::move(options)), client_(HttpClient::Options{}), thread_([this] { Run(); }) {}

SpanExporter::~SpanExporter() {
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    last_moment_ = Clock::now() + Seconds(options_.farewell_seconds);
    changed_.notify_all();
    changed_.wait_until(lock, last_moment_, [this] { return ended_; });
  }
  client_.Stop();  // a request that began earlier may have longer to go
  thread_.join();
}

void SpanExporter::Add(Span span) noexcept {
  bool full_batch = false;
  {
    const std::lock_guard lock(mutex_);
    try {
      if (queue_.size() >= options_.queue_spans) {
        ++stats_.dropped;
        return;
      }
      queue_.push_back(std::move(span));
    } catch (const std::bad_alloc&) {
      ++stats_.dropped;
      return;
    }
    full_batch = queue_.size() >= options_.batch_spans;
  }
  if (full_batch) changed_.notify_one();
}

SpanExporter::Stats SpanExporter::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void SpanExporter::Run() {
  for (;;) {
    const std::vector<Span> batch = NextBatch();
    if (batch.empty()) break;
    Deliver(batch);
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

// Empty when the exporter ends and nothing is left.
std::vector<Span> SpanExporter::NextBatch() {
  std::unique_lock lock(mutex_);
  const auto tick = Seconds(options_.batch_seconds);
  do {
    changed_.wait_for(lock, tick,
                      [&] { return stopping_ || queue_.size() >= options_.batch_spans; });
  } while (queue_.empty() && !stopping_);
  const size_t count = std::min(queue_.size(), options_.batch_spans);
  const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(count);
  std::vector<Span> batch(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
  queue_.erase(queue_.begin(), end);
  return batch;
}

void SpanExporter::Deliver(const std::vector<Span>& batch) {
  const std::string body = EncodeSpans(batch, options_.service_name);
  double pause = options_.retry_seconds;
  Outcome outcome;
  for (int attempt = 1; attempt <= options_.max_attempts; ++attempt) {
    std::unique_lock lock(mutex_);
    // The last attempt may not hold up the end of the server.
    const double timeout = stopping_
                               ? std::chrono::duration<double>(last_moment_ - Clock::now()).count()
                               : options_.timeout_seconds;
    lock.unlock();
    if (timeout <= 0) break;
    outcome = Post(body, timeout);
    Report(outcome);
    if (outcome.delivered || !outcome.again) break;
    lock.lock();
    const double wait = std::min(outcome.pause.value_or(pause), kMaxRetryAfter);
    if (changed_.wait_for(lock, Seconds(wait), [&] { return stopping_; })) {
      // Nobody waits out a pause at the end.
      if (attempt > 1 || outcome.pause) break;
    }
    pause = std::min(2 * pause, options_.max_retry_seconds);
  }
  Count(batch, outcome);
}

SpanExporter::Outcome SpanExporter::Post(const std::string& body, double timeout_seconds) {
  ClientRequest request;
  request.url = options_.url;
  request.headers = options_.headers;
  request.headers.emplace_back("Content-Type", "application/json");
  request.headers.emplace_back("User-Agent", "tern");
  request.body = body;
  request.timeout_seconds = timeout_seconds;
  const auto answer = std::make_shared<Answer>();
  client_.Start(std::move(request), answer);
  client_.Run();
  Outcome outcome;
  if (answer->failure() || !answer->ended()) {
    outcome.again = true;
    outcome.problem = answer->failure() ? answer->failure()->message : "the request was cut";
    return outcome;
  }
  const int status = answer->status();
  outcome.delivered = status >= 200 && status < 300;
  if (outcome.delivered) {
    outcome.rejected = answer->rejected();
    return outcome;
  }
  outcome.problem = options_.url.Authority() + " answered with status " + std::to_string(status);
  outcome.again = status == 429 || status == 502 || status == 503 || status == 504;
  outcome.pause = answer->retry_after();
  return outcome;
}

void SpanExporter::Count(const std::vector<Span>& batch, const Outcome& outcome) {
  const std::lock_guard lock(mutex_);
  const uint64_t failed =
      outcome.delivered ? std::min<uint64_t>(outcome.rejected, batch.size()) : batch.size();
  stats_.failed += failed;
  stats_.sent += batch.size() - failed;
}

// One line when it begins to fail, one when it works again.
void SpanExporter::Report(const Outcome& outcome) {
  if (!outcome.delivered && !complained_) {
    LogWarning("traces cannot be exported: " + outcome.problem + "; up to " +
               std::to_string(options_.queue_spans) + " spans are kept, more are dropped");
  }
  if (outcome.delivered && complained_) {
    LogInfo("traces are exported again; " + std::to_string(stats().dropped) +
            " spans were dropped so far");
  }
  complained_ = !outcome.delivered;
}

}  // namespace server
