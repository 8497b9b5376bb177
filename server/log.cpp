#include "server/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

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

std::string Printable(std::string_view text) {
  constexpr size_t kMaxLength = 200;
  std::string shown;
  for (const char c : text.substr(0, kMaxLength)) {
    const bool plain = c > ' ' && c < 0x7F && c != '"' && c != '\\';
    shown += plain ? std::string(1, c)
                   : fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return shown.empty() ? "-" : shown;
}

}  // namespace

void LogInfo(const std::string& message) { Logger().info("{}", message); }
void LogWarning(const std::string& message) { Logger().warn("{}", message); }
void LogError(const std::string& message) { Logger().error("{}", message); }

void LogRequest(const RequestLogLine& line) {
  Logger().info("request id={} client={} key={} \"{} {}\" status={} ms={:.1f}{}",
                Printable(line.request_id), Printable(line.client), Printable(line.key_name),
                Printable(line.method), Printable(line.path), line.status, line.seconds * 1e3,
                line.client_gone ? " gone" : "");
}

}  // namespace server
