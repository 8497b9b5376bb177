#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/raw_client.h"

namespace server {

// A trace collector for tests: takes OTLP/HTTP in JSON, holds every request to the letter of the
// encoding, and keeps the spans. What is wrong with a request is a line of `complaints`.
class TraceReceiver {
 public:
  // What the n-th request (from 0) is answered with: everything after "HTTP/1.1 ". Empty: nothing,
  // the connection is left open.
  using Script = std::function<std::string(int)>;
  static std::string Ok() {
    return "200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
  }

  explicit TraceReceiver(Script script = [](int) { return Ok(); }) : script_(std::move(script)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      throw std::runtime_error("cannot listen");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Accept(); });
  }
  ~TraceReceiver() {
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }

  uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int requests() const { return requests_; }
  std::vector<nlohmann::json> spans() const {
    const std::lock_guard lock(mutex_);
    return spans_;
  }
  std::vector<std::string> complaints() const {
    const std::lock_guard lock(mutex_);
    return complaints_;
  }
  std::string last_head() const {
    const std::lock_guard lock(mutex_);
    return last_head_;
  }
  std::string service() const {
    const std::lock_guard lock(mutex_);
    return service_;
  }
  // The one span with that name; null when there is none or more than one.
  nlohmann::json Find(const std::string& name) const {
    nlohmann::json found;
    for (const auto& span : spans()) {
      if (span.at("name") != name) continue;
      if (!found.is_null()) return nullptr;
      found = span;
    }
    return found;
  }

 private:
  void Accept() {
    std::vector<int> silent;
    for (;;) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) break;
      Serve(fd, &silent);
    }
    for (const int fd : silent) ::close(fd);
  }

  // Requests of one connection until it ends, one connection at a time.
  void Serve(int fd, std::vector<int>* silent) {
    std::string buffer;
    while (!stopping_) {
      if (!ReadInto(fd, &buffer)) break;
      const std::string answer = script_(requests_++);
      if (answer.empty()) {
        silent->push_back(fd);
        return;
      }
      const std::string text = "HTTP/1.1 " + answer;
      if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) < 0) break;
    }
    ::close(fd);
  }

  // One request; false at the end of the connection.
  bool ReadInto(int fd, std::string* buffer) {
    size_t head = 0;
    while ((head = buffer->find("\r\n\r\n")) == std::string::npos) {
      if (!Fill(fd, buffer)) return false;
    }
    const std::string top = buffer->substr(0, head + 2);
    size_t wanted = 0;
    if (const size_t at = top.find("Content-Length: "); at != std::string::npos) {
      wanted = std::stoul(top.substr(at + 16));
    }
    while (buffer->size() < head + 4 + wanted) {
      if (!Fill(fd, buffer)) return false;
    }
    const std::string body = buffer->substr(head + 4, wanted);
    buffer->erase(0, head + 4 + wanted);
    const std::lock_guard lock(mutex_);
    last_head_ = top;
    Check(top.starts_with("POST /v1/traces HTTP/1.1\r\n"), "request line: " + top);
    Check(top.find("\r\nContent-Type: application/json\r\n") != std::string::npos, "content type");
    Check(top.find("\r\nHost: 127.0.0.1:") != std::string::npos, "host");
    const auto json = nlohmann::json::parse(body, nullptr, false);
    Check(!json.is_discarded(), "no JSON");
    if (!json.is_discarded()) CheckRequest(json);
    return true;
  }

  bool Fill(int fd, std::string* buffer) {
    while (!stopping_) {
      pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
      if (::poll(&poll_fd, 1, 20) <= 0) continue;
      char bytes[8192];
      const ssize_t count = ::recv(fd, bytes, sizeof bytes, 0);
      if (count <= 0) return false;
      buffer->append(bytes, static_cast<size_t>(count));
      return true;
    }
    return false;
  }

  void Check(bool good, const std::string& what) {
    if (!good) complaints_.push_back(what);
  }
  void Keys(const nlohmann::json& json, const std::set<std::string>& allowed,
            const std::string& where) {
    Check(json.is_object(), where + " is no object");
    if (!json.is_object()) return;
    for (const auto& [key, value] : json.items()) {
      Check(allowed.contains(key), where + " has the unknown field " + key);
    }
  }
  static bool IsHex(const nlohmann::json& id, size_t digits) {
    return id.is_string() && id.get_ref<const std::string&>().size() == digits &&
           id.get_ref<const std::string&>().find_first_not_of("0123456789abcdef") ==
               std::string::npos &&
           id.get_ref<const std::string&>().find_first_not_of('0') != std::string::npos;
  }
  static bool IsNumberText(const nlohmann::json& value) {
    return value.is_string() && !value.get_ref<const std::string&>().empty() &&
           value.get_ref<const std::string&>().find_first_not_of("0123456789") == std::string::npos;
  }

  void CheckAttributes(const nlohmann::json& attributes) {
    std::set<std::string> keys;
    for (const auto& attribute : attributes) {
      Keys(attribute, {"key", "value"}, "attribute");
      const std::string key = attribute.at("key");
      Check(keys.insert(key).second, "attribute twice: " + key);
      const auto& value = attribute.at("value");
      Check(value.size() == 1, "one value of " + key);
      Keys(value, {"stringValue", "intValue", "doubleValue", "boolValue", "arrayValue"}, key);
      if (value.contains("stringValue")) Check(value["stringValue"].is_string(), key);
      if (value.contains("intValue")) Check(IsNumberText(value["intValue"]), key);
      if (value.contains("doubleValue")) Check(value["doubleValue"].is_number(), key);
      if (value.contains("boolValue")) Check(value["boolValue"].is_boolean(), key);
      if (value.contains("arrayValue")) Check(value["arrayValue"].at("values").is_array(), key);
    }
  }

  void CheckRequest(const nlohmann::json& json) {
    Keys(json, {"resourceSpans"}, "request");
    for (const auto& resource : json.at("resourceSpans")) {
      Keys(resource, {"resource", "scopeSpans", "schemaUrl"}, "resourceSpans");
      CheckAttributes(resource.at("resource").at("attributes"));
      for (const auto& attribute : resource["resource"]["attributes"]) {
        if (attribute["key"] == "service.name") service_ = attribute["value"]["stringValue"];
      }
      for (const auto& scope : resource.at("scopeSpans")) {
        Keys(scope, {"scope", "spans", "schemaUrl"}, "scopeSpans");
        Check(!scope.at("spans").empty(), "no spans");
        for (const auto& span : scope.at("spans")) CheckSpan(span);
      }
    }
  }

  void CheckSpan(const nlohmann::json& span) {
    Keys(span,
         {"traceId", "spanId", "traceState", "parentSpanId", "flags", "name", "kind",
          "startTimeUnixNano", "endTimeUnixNano", "attributes", "status"},
         "span");
    Check(IsHex(span.at("traceId"), 32), "traceId");
    Check(IsHex(span.at("spanId"), 16), "spanId");
    if (span.contains("parentSpanId")) Check(IsHex(span["parentSpanId"], 16), "parentSpanId");
    Check(span.at("kind").is_number_integer() && span["kind"] >= 1 && span["kind"] <= 5, "kind");
    Check(!span.at("name").get<std::string>().empty(), "name");
    Check(IsNumberText(span.at("startTimeUnixNano")), "start");
    Check(IsNumberText(span.at("endTimeUnixNano")), "end");
    CheckAttributes(span.at("attributes"));
    Keys(span.at("status"), {"code", "message"}, "status");
    if (span["status"].contains("code")) Check(span["status"]["code"].is_number_integer(), "code");
    spans_.push_back(span);
  }

  Script script_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> requests_ = 0;
  mutable std::mutex mutex_;
  std::vector<nlohmann::json> spans_;
  std::vector<std::string> complaints_;
  std::string last_head_;
  std::string service_;
  std::thread thread_;
};

// An attribute's value, whatever its type; null when absent.
inline nlohmann::json AttributeOf(const nlohmann::json& span, const std::string& key) {
  for (const auto& attribute : span.at("attributes")) {
    if (attribute["key"] != key) continue;
    return attribute["value"].begin().value();
  }
  return nullptr;
}

}  // namespace server
