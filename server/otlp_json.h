#pragma once

#include <span>
#include <string>

#include "server/span.h"

namespace server {

// The body of an OTLP/HTTP request for traces (ExportTraceServiceRequest, JSON encoding: ids in
// hexadecimal, 64-bit numbers as strings, enums as numbers).
std::string EncodeSpans(std::span<const Span> spans, const std::string& service_name);

}  // namespace server
