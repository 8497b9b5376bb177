#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace server {

struct TraceContext;

// One line on stderr per call, with time and level. Threads: any.
void LogInfo(const std::string& message);
void LogWarning(const std::string& message);
void LogError(const std::string& message);

// What the line about a finished request says.
struct RequestLogLine {
  std::string_view request_id;
  std::string_view method;
  std::string_view path;
  std::string_view key_name;
  std::string_view client;
  int status = 0;
  double seconds = 0;
  bool client_gone = false;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  const TraceContext* trace = nullptr;  // nullptr: the request has none
};

// Every later line is a JSON object with "time", "level" and "message" or the fields of a request.
void UseJsonLog();

// Paths are escaped: a client cannot forge lines.
void LogRequest(const RequestLogLine& line);

}  // namespace server
