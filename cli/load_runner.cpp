#include "cli/load_runner.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <stdexcept>
#include <utility>

namespace cli {
namespace {

using server::ClientFailure;
using server::Clock;
using server::Json;

double Since(Clock::time_point begin, Clock::time_point now) {
  return std::chrono::duration<double>(now - begin).count();
}

std::string KindOf(const ClientFailure& failure) {
  switch (failure.kind) {
    case ClientFailure::Kind::kConnect:
      return "connect";
    case ClientFailure::Kind::kTls:
      return "tls";
    case ClientFailure::Kind::kTimeout:
      return "timeout";
    case ClientFailure::Kind::kClosed:
      return "closed";
    case ClientFailure::Kind::kProtocol:
      return "protocol";
  }
  return "connect";
}

// Some of the answer, whatever it is called: text, a thought, a call of a function.
bool HasContent(const Json& choice) {
  const auto filled = [](const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end()) return false;
    return found->is_string() ? !found->get_ref<const std::string&>().empty()
                              : found->is_array() && !found->empty();
  };
  if (filled(choice, "text")) return true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  return filled(*delta, "content") || filled(*delta, "reasoning_content") ||
         filled(*delta, "reasoning") || filled(*delta, "tool_calls");
}

// What an error's body says: {"error": {"message": ...}}, {"error": ...}, or all of it.
std::string MessageIn(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("error")) return std::string(body);
  const Json& error = json["error"];
  if (error.is_string()) return error;
  if (error.is_object() && error.contains("message") && error["message"].is_string()) {
    return error["message"];
  }
  return std::string(body);
}

// One streamed answer. Calls back with its sample at the end.
class Stream : public server::ClientEvents {
 public:
  Stream(LoadSample sample, Clock::time_point sent, std::function<void(LoadSample)> done)
      : sample_(std::move(sample)), sent_(sent), done_(std::move(done)) {}

  void OnHead(int status, const server::HeaderList&) override { status_ = status; }

  void OnBody(std::string_view piece) override {
    const auto now = Clock::now();
    if (status_ != 200) {
      constexpr size_t kMost = 16u << 10;
      text_.append(piece.substr(0, kMost - std::min(kMost, text_.size())));
      return;
    }
    text_.append(piece);
    size_t begin = 0;
    for (size_t end; (end = text_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line(text_.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      Read(line, now);
    }
    text_.erase(0, begin);
  }

  void OnEnd(const ClientFailure* failure) override {
    if (failure != nullptr) {
      sample_.error = KindOf(*failure);
      sample_.message = OneLine(failure->message);
    } else if (status_ != 200) {
      sample_.error = "http_" + std::to_string(status_);
      sample_.message = OneLine(MessageIn(text_));
    } else if (sample_.error.empty() && pieces_ == 0) {
      sample_.error = "no_tokens";
    }
    if (!sample_.error.empty()) sample_.last = Since(sent_, Clock::now());
    // Where the server does not count, a piece is a token.
    if (sample_.output_tokens == 0) sample_.output_tokens = pieces_;
    done_(std::move(sample_));
  }

 private:
  void Read(std::string_view line, Clock::time_point now) {
    constexpr std::string_view kData = "data:";
    if (!line.starts_with(kData)) return;
    line.remove_prefix(kData.size());
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) return;  // [DONE] too
    if (const auto error = json.find("error"); error != json.end() && !error->is_null()) {
      sample_.error = "stream_error";
      sample_.message = OneLine(MessageIn(line));
      return;
    }
    if (const auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
      sample_.prompt_tokens = usage->value("prompt_tokens", 0U);
      sample_.output_tokens = usage->value("completion_tokens", 0U);
    }
    const auto choices = json.find("choices");
    if (choices == json.end() || !choices->is_array()) return;
    if (!std::any_of(choices->begin(), choices->end(), HasContent)) return;
    const double since = Since(sent_, now);
    if (pieces_++ == 0) {
      sample_.first = since;
    } else {
      sample_.gaps.push_back(since - sample_.last);
    }
    sample_.last = since;
  }

  LoadSample sample_;
  Clock::time_point sent_;
  std::function<void(LoadSample)> done_;
  std::string text_;  // an unfinished line; of a refusal the body
  int status_ = 0;
  uint32_t pieces_ = 0;
};

// Everything of one run; lives on the thread of the client.
class LoadRun {
 public:
  LoadRun(server::HttpClient& client, const LoadPlan& plan,
          const std::function<void(size_t, double)>& on_progress, const std::function<bool()>& stop)
      : client_(client),
        plan_(plan),
        on_progress_(on_progress),
        stop_(stop),
        begin_(Clock::now()),
        random_(plan.seed) {}

  std::vector<LoadSample> Go() {
    if (plan_.rate > 0) {
      ScheduleNext(0);
    } else {
      for (uint32_t i = 0; i < plan_.concurrency && !Enough(); ++i) Send(0);
    }
    WatchForStop();
    client_.Run();
    return std::move(samples_);
  }

 private:
  bool Enough() const {
    const bool counted = plan_.requests > 0 && sent_ >= plan_.requests;
    const bool timed = plan_.duration > 0 && Since(begin_, Clock::now()) >= plan_.duration;
    return counted || timed || stop_();
  }

  bool Finished() const { return !scheduled_ && samples_.size() == sent_; }

  // A run that is stopped waits neither for a schedule nor for a server that hangs.
  void WatchForStop() {
    if (Finished()) return;
    constexpr double kInterval = 0.05;
    const auto now = Clock::now();
    if (stop_() && !stopped_) stopped_ = now;
    if (stopped_ && (samples_.size() == sent_ || Since(*stopped_, now) >= plan_.stop_seconds)) {
      GiveUp(now);
      return;
    }
    client_.At(now + server::Seconds(kInterval), [this] { WatchForStop(); });
  }

  void GiveUp(Clock::time_point now) {
    while (samples_.size() < sent_) {
      samples_.push_back({.sent = Since(begin_, now), .error = "interrupted"});
    }
    client_.Stop();
  }

  // An open loop sends at times that do not depend on the answers: gaps are exponential.
  void ScheduleNext(double after) {
    scheduled_ = !Enough();
    if (!scheduled_) return;
    std::exponential_distribution<double> gap(plan_.rate);
    const double when = after + gap(random_);
    const auto time = begin_ + server::Seconds(when);
    client_.At(time, [this, when] {
      scheduled_ = false;
      if (Enough()) return;
      Send(std::max(0.0, Since(begin_, Clock::now()) - when));
      ScheduleNext(when);
    });
  }

  void Send(double late) {
    server::ClientRequest request;
    request.url = plan_.url;
    request.headers = plan_.headers;
    request.body = plan_.bodies[sent_ % plan_.bodies.size()];
    request.timeout_seconds = plan_.timeout_seconds;
    ++sent_;
    const auto now = Clock::now();
    client_.Start(std::move(request), std::make_shared<Stream>(
                                          LoadSample{.sent = Since(begin_, now), .late = late}, now,
                                          [this](LoadSample sample) { End(std::move(sample)); }));
  }

  void End(LoadSample sample) {
    samples_.push_back(std::move(sample));
    double share = 0;
    if (plan_.requests > 0) share = static_cast<double>(samples_.size()) / plan_.requests;
    if (plan_.duration > 0) share = std::max(share, Since(begin_, Clock::now()) / plan_.duration);
    on_progress_(samples_.size(), std::min(share, 1.0));
    if (plan_.rate <= 0 && !Enough()) Send(0);
  }

  server::HttpClient& client_;
  const LoadPlan& plan_;
  const std::function<void(size_t, double)>& on_progress_;
  const std::function<bool()>& stop_;
  Clock::time_point begin_;
  std::mt19937_64 random_;
  uint32_t sent_ = 0;
  bool scheduled_ = false;  // an open loop's next request waits for its time
  std::optional<Clock::time_point> stopped_;
  std::vector<LoadSample> samples_;
};

class Page : public server::ClientEvents {
 public:
  void OnHead(int got, const server::HeaderList&) override { status = got; }
  void OnBody(std::string_view piece) override { body += piece; }
  void OnEnd(const ClientFailure* why) override {
    if (why != nullptr) failure = *why;
  }
  int status = 0;
  std::string body;
  std::optional<ClientFailure> failure;
};

// So end plain requests to a server with TLS.
bool MayBeTls(const server::ClientUrl& url, ClientFailure::Kind kind) {
  return !url.tls &&
         (kind == ClientFailure::Kind::kClosed || kind == ClientFailure::Kind::kProtocol);
}

}  // namespace

std::string OneLine(std::string_view text) {
  constexpr size_t kMost = 200;
  std::string line;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\0' && c < ' ') || c == '\x7F';
    if (!space) line += c;
    if (space && !line.empty() && line.back() != ' ') line += ' ';
    if (line.size() > kMost) break;
  }
  while (line.ends_with(' ')) line.pop_back();
  if (line.size() <= kMost) return line;
  // Not in the middle of a character of UTF-8.
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;
  return line.substr(0, end) + "...";
}

std::vector<LoadSample> RunLoad(server::HttpClient& client, const LoadPlan& plan,
                                const std::function<void(size_t, double)>& on_progress,
                                const std::function<bool()>& stop) {
  return LoadRun(client, plan, on_progress, stop).Go();
}

std::string Fetch(server::HttpClient& client, const server::ClientUrl& url,
                  const server::HeaderList& headers, double timeout_seconds) {
  server::ClientRequest request;
  request.method = "GET";
  request.url = url;
  request.headers = headers;
  request.timeout_seconds = timeout_seconds;
  const auto page = std::make_shared<Page>();
  client.Start(std::move(request), page);
  client.Run();
  if (page->failure) {
    const bool hint = MayBeTls(url, page->failure->kind);
    throw std::runtime_error(page->failure->message +
                             (hint ? "; a server with TLS needs https://." : "."));
  }
  if (page->status != 200) {
    throw std::runtime_error("GET " + url.path + " at " + url.Authority() +
                             " was answered with status " + std::to_string(page->status) + ": " +
                             OneLine(page->body));
  }
  return page->body;
}

}  // namespace cli
