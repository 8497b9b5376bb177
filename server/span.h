#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/trace_context.h"

namespace server {

using SpanValue = std::variant<std::string, int64_t, double, bool, std::vector<std::string>>;

// One finished operation of a trace, as OTLP's Span.
struct Span {
  enum class Kind : uint8_t { kInternal = 1, kServer = 2 };  // OTLP's numbers

  std::string name;
  Kind kind = Kind::kInternal;
  TraceContext context;
  SpanId parent{};       // all zero: the trace begins here
  int64_t start_ns = 0;  // Unix time
  int64_t end_ns = 0;
  std::vector<std::pair<std::string, SpanValue>> attributes;
  bool failed = false;
  std::string failure;  // a sentence, when it failed
};

}  // namespace server
