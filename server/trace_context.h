#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "server/http_types.h"

namespace server {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

// Where in a trace something happens: W3C Trace Context, levels 1 and 2.
struct TraceContext {
  TraceId trace_id{};
  SpanId span_id{};      // all zero: none
  bool sampled = false;  // the trace is recorded
  bool random = false;   // the last 7 bytes of the trace id are random (level 2)
  std::string state;     // tracestate, checked; empty = none
};

// From the headers `traceparent` and `tracestate`. nullopt when there is no traceparent, or one
// that must be ignored: not exactly one, malformed, or with an id of zeros. A malformed tracestate
// is dropped alone. A later version than 00 is read as far as 00 goes.
std::optional<TraceContext> ReadTraceContext(const HeaderList& headers);

// Of version 00.
std::string FormatTraceparent(const TraceContext& context);

TraceId NewTraceId();
SpanId NewSpanId();
bool IsZero(std::span<const uint8_t> id);
// Lower case.
std::string Hex(std::span<const uint8_t> bytes);

// Whether a trace is in the share `ratio` of all: its last 56 bits, read as a number, are at least
// (1 - ratio) * 2^56 (OpenTelemetry, consistent probability sampling). So services with the same
// ratio choose the same traces.
bool InSample(const TraceId& id, double ratio);

}  // namespace server
