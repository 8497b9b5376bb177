#include "server/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>

#include "server/json.h"
#include "server/trace_context.h"

namespace server {
namespace {

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made =
        std::make_shared<spdlog::logger>("tern", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *logger;
}

// Of what a client sent.
constexpr size_t kMaxShown = 200;

std::atomic<bool> json_log = false;

void Say(spdlog::level::level_enum level, const std::string& message) {
  if (json_log) {
    Logger().log(level, "\"message\":{}", Dump(Json(message)));
  } else {
    Logger().log(level, "{}", message);
  }
}

std::string Printable(std::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, kMaxShown)) {
    const bool plain = c > ' ' && c < 0x7F && c != '"' && c != '\\';
    shown += plain ? std::string(1, c)
                   : fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return shown.empty() ? "-" : shown;
}

std::string TraceFields(const TraceContext* trace) {
  if (trace == nullptr) return {};
  return " trace_id=" + Hex(trace->trace_id) + " span_id=" + Hex(trace->span_id);
}

}  // namespace

void LogInfo(const std::string& message) { Say(spdlog::level::info, message); }
void LogWarning(const std::string& message) { Say(spdlog::level::warn, message); }
void LogError(const std::string& message) { Say(spdlog::level::err, message); }

void UseJsonLog() {
  json_log = true;
  Logger().set_pattern("{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",\"level\":\"%l\",%v}",
                       spdlog::pattern_time_type::utc);
}

void LogRequest(const RequestLogLine& line) {
  if (!json_log) {
    Logger().info(
        "request id={} client={} key={} \"{} {}\" status={} ms={:.1f} prompt_tokens={} "
        "completion_tokens={}{}{}",
        Printable(line.request_id), Printable(line.client), Printable(line.key_name),
        Printable(line.method), Printable(line.path), line.status, line.seconds * 1e3,
        line.prompt_tokens, line.completion_tokens, TraceFields(line.trace),
        line.client_gone ? " gone" : "");
    return;
  }
  Json fields;
  fields["event"] = "request";
  fields["request_id"] = line.request_id;
  fields["client"] = line.client;
  fields["key"] = line.key_name.empty() ? Json(nullptr) : Json(line.key_name);
  fields["method"] = line.method.substr(0, kMaxShown);
  fields["path"] = line.path.substr(0, kMaxShown);
  fields["status"] = line.status;
  fields["duration_ms"] = line.seconds * 1e3;
  fields["prompt_tokens"] = line.prompt_tokens;
  fields["completion_tokens"] = line.completion_tokens;
  fields["client_gone"] = line.client_gone;
  if (line.trace != nullptr) {
    fields["trace_id"] = Hex(line.trace->trace_id);
    fields["span_id"] = Hex(line.trace->span_id);
  }
  const std::string object = Dump(fields);
  Logger().info("{}", object.substr(1, object.size() - 2));
}

}  // namespace server
