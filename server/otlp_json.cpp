#include "server/otlp_json.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "server/json.h"

namespace server {
namespace {

Json Encode(const SpanValue& value) {
  Json json;
  if (const auto* text = std::get_if<std::string>(&value)) {
    json["stringValue"] = *text;
  } else if (const auto* integer = std::get_if<int64_t>(&value)) {
    json["intValue"] = std::to_string(*integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    json["doubleValue"] = *real;
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    json["boolValue"] = *flag;
  } else {
    Json values = Json::array();
    for (const std::string& text : std::get<std::vector<std::string>>(value)) {
      values.push_back(Encode(text));
    }
    json["arrayValue"]["values"] = std::move(values);
  }
  return json;
}

Json Attribute(const std::string& key, const SpanValue& value) {
  Json json;
  json["key"] = key;
  json["value"] = Encode(value);
  return json;
}

Json Encode(const Span& span) {
  Json json;
  json["traceId"] = Hex(span.context.trace_id);
  json["spanId"] = Hex(span.context.span_id);
  if (!span.context.state.empty()) json["traceState"] = span.context.state;
  if (!IsZero(span.parent)) json["parentSpanId"] = Hex(span.parent);
  json["flags"] = (span.context.sampled ? 1 : 0) | (span.context.random ? 2 : 0);
  json["name"] = span.name;
  json["kind"] = static_cast<int>(span.kind);
  json["startTimeUnixNano"] = std::to_string(span.start_ns);
  json["endTimeUnixNano"] = std::to_string(span.end_ns);
  Json attributes = Json::array();
  for (const auto& [key, value] : span.attributes) attributes.push_back(Attribute(key, value));
  json["attributes"] = std::move(attributes);
  constexpr int kStatusError = 2;
  json["status"] = Json::object();
  if (span.failed) {
    json["status"]["code"] = kStatusError;
    json["status"]["message"] = span.failure;
  }
  return json;
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

}  // namespace

std::string EncodeSpans(std::span<const Span> spans, const std::string& service_name) {
  Json list = Json::array();
  for (const Span& span : spans) list.push_back(Encode(span));
  Json scope;
  scope["scope"]["name"] = "tern";
  scope["spans"] = std::move(list);
  Json resource;
  resource["resource"]["attributes"] = Json::array({
      Attribute("service.name", service_name),
      Attribute("host.name", HostName()),
      Attribute("process.pid", int64_t{getpid()}),
  });
  resource["scopeSpans"] = Json::array({std::move(scope)});
  Json body;
  body["resourceSpans"] = Json::array({std::move(resource)});
  return Dump(body);
}

}  // namespace server
