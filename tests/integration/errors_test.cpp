// Errors below /v1/messages have Anthropic's shape wherever they arise, before the handler
// included; elsewhere they have OpenAI's.
#include <gmock/gmock.h>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;

struct Case {
  std::string name;
  std::string request;  // without the path: METHOD, then what follows it
  int status;
  std::string type;  // Anthropic's
};

class ErrorShapes : public ::testing::Test {
 protected:
  static TestAppOptions Options() {
    TestAppOptions options;
    options.server.api_keys = {
        {.name = "user", .key = "sk-user"},
        {.name = "rare", .key = "sk-rare", .limits = {.requests_per_minute = 1}}};
    options.server.max_body_bytes = 2000;
    options.server.max_header_bytes = 4096;
    options.server.max_uri_bytes = 200;
    return options;
  }
  RawClient::Response Send(const std::string& text) const {
    RawClient client = app_.Connect();
    client.Send(text);
    return client.ReadResponse();
  }
  TestApp app_{Options()};
};

const std::string kHost = " HTTP/1.1\r\nHost: x\r\n";
const std::string kKey = "x-api-key: sk-user\r\n";
const std::string kJson = "Content-Type: application/json\r\n";

std::vector<Case> Cases() {
  const std::string empty = "Content-Length: 2\r\n\r\n{}";
  return {
      {"no key", "POST|" + kHost + kJson + empty, 401, "authentication_error"},
      {"wrong method", "GET|" + kHost + kKey + "\r\n", 405, "invalid_request_error"},
      {"no JSON", "POST|" + kHost + kKey + empty, 415, "invalid_request_error"},
      {"encoded", "POST|" + kHost + kKey + kJson + "Content-Encoding: gzip\r\n" + empty, 415,
       "invalid_request_error"},
      {"large body", "POST|" + kHost + kKey + kJson + "Content-Length: 3000\r\n\r\n", 413,
       "request_too_large"},
      {"large header", "POST|" + kHost + kKey + "x: " + std::string(5000, 'x') + "\r\n\r\n", 431,
       "invalid_request_error"},
      {"long path", "POST|?" + std::string(300, 'x') + kHost + kKey + kJson + empty, 414,
       "invalid_request_error"},
      {"two lengths", "POST|" + kHost + kKey + kJson + "Transfer-Encoding: chunked\r\n" + empty,
       400, "invalid_request_error"},
      {"bad JSON", "POST|" + kHost + kKey + kJson + "Content-Length: 1\r\n\r\n{", 400,
       "invalid_request_error"},
      {"expectation",
       "POST|" + kHost + kKey + kJson + "Expect: wonders\r\nContent-Length: 9\r\n\r\n", 417,
       "invalid_request_error"},
  };
}

std::string WithPath(const std::string& request, const std::string& path) {
  const size_t bar = request.find('|');
  return request.substr(0, bar) + " " + path + request.substr(bar + 1);
}

TEST_F(ErrorShapes, BelowMessagesAreAnthropics) {
  for (const Case& c : Cases()) {
    const auto response = Send(WithPath(c.request, "/v1/messages"));
    ASSERT_EQ(response.status, c.status) << c.name << ": " << response.body;
    const json body = json::parse(response.body);
    EXPECT_EQ(body.size(), 3U) << response.body;
    EXPECT_EQ(body["type"], "error");
    EXPECT_EQ(body["error"]["type"], c.type) << c.name;
    EXPECT_TRUE(body["error"]["message"].is_string());
    EXPECT_EQ(body["request_id"], response.Header("x-request-id"));
  }
  const auto unknown = Send("GET /v1/messages/nothing" + kHost + kKey + "\r\n");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(json::parse(unknown.body)["error"]["type"], "not_found_error");
  EXPECT_EQ(Send("GET /v1/messages" + kHost + kKey + "\r\n").Header("Allow"), "POST, OPTIONS");
}

TEST_F(ErrorShapes, ElsewhereAreOpenAis) {
  for (const Case& c : Cases()) {
    for (const char* path : {"/v1/chat/completions", "/v1/responses", "/v1/messagesandmore"}) {
      const auto response = Send(WithPath(c.request, path));
      if (std::string_view(path) != "/v1/messagesandmore") {
        EXPECT_EQ(response.status, c.status) << c.name << ": " << response.body;
      }
      const json body = json::parse(response.body);
      EXPECT_FALSE(body.contains("type")) << response.body;
      EXPECT_TRUE(body["error"].contains("code")) << response.body;
    }
  }
}

TEST(ErrorShapesOfSlowBodies, AreThoseOfTheirPaths) {
  TestAppOptions options;
  options.server.body_timeout_seconds = 0.3;
  const TestApp app(options);
  for (const char* path : {"/v1/messages", "/v1/responses"}) {
    RawClient client = app.Connect();
    client.Send("POST " + std::string(path) + kHost + kJson + "Content-Length: 50\r\n\r\n{");
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, 408) << response.body;
    const json body = json::parse(response.body);
    EXPECT_EQ(body["error"]["type"], "invalid_request_error");
    EXPECT_EQ(body.contains("request_id"), std::string_view(path) == "/v1/messages");
  }
}

TEST_F(ErrorShapes, LimitsOfAKeyAreTold) {
  const std::string request =
      "POST /v1/messages" + kHost + kJson + "x-api-key: sk-rare\r\nContent-Length: 2\r\n\r\n{}";
  EXPECT_EQ(Send(request).status, 400);
  const auto limited = Send(request);
  EXPECT_EQ(limited.status, 429);
  EXPECT_EQ(json::parse(limited.body)["error"]["type"], "rate_limit_error");
  EXPECT_NE(limited.Header("Retry-After"), "");
  EXPECT_EQ(limited.Header("x-should-retry"), "true");
}

TEST_F(ErrorShapes, ShuttingDownIsTold) {
  app_.app().BeginShutdown();
  const auto response =
      Send("POST /v1/messages" + kHost + kKey + kJson + "Content-Length: 2\r\n\r\n{}");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(json::parse(response.body)["error"]["type"], "overloaded_error");
}

}  // namespace
}  // namespace server
