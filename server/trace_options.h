#pragma once

#include <string>
#include <utility>

namespace server {

// Both throw std::invalid_argument with the end of a sentence: `must be ...`.

// ServerOptions::otlp_endpoint: empty, or a URL.
void CheckOtlpEndpoint(const std::string& text);

// One of ServerOptions::otlp_headers from "authorization=Bearer%20abc", as in
// OTEL_EXPORTER_OTLP_HEADERS. The message does not show the value, which may be a secret.
std::pair<std::string, std::string> ParseOtlpHeader(const std::string& text);

}  // namespace server
