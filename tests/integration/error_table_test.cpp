// The table of errors that the clients of OpenAI rely on, row by row on a real server: status,
// type, code, param and headers, the same for whole and streamed requests, and never inside an
// answer 200.
#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;

struct Row {
  std::string name;
  std::string request;  // the bytes on the wire
  int status = 400;
  std::string type;
  json code;                // null or a string
  json param;               // null or a string
  std::string header = {};  // that must be there
};

std::string Chat(const json& more, const std::string& headers = "Authorization: Bearer sk-user\r\n",
                 bool stream = false) {
  json body = ChatBody("Hi", 4);
  body["stream"] = stream;
  body.update(more);
  return PostText("/v1/chat/completions", body.dump(), headers);
}

constexpr char kInvalid[] = "invalid_request_error";
constexpr char kUser[] = "Authorization: Bearer sk-user\r\n";

// Rows about parameters, for whole and streamed requests.
std::vector<Row> ParameterRows(bool stream) {
  const auto chat = [&](const json& more) { return Chat(more, kUser, stream); };
  const json long_text = {{{"role", "user"}, {"content", std::string(9000, 'x')}}};
  const json hostile = {{"type", "json_schema"},
                        {"json_schema", {{"name", "a"}, {"schema", {{"not", json::object()}}}}}};
  return {
      {"wrong type", chat({{"temperature", "hot"}}), 400, kInvalid, "invalid_type", "temperature"},
      {"out of range", chat({{"temperature", 9}}), 400, kInvalid, "invalid_value", "temperature"},
      {"missing", chat({{"messages", nullptr}}), 400, kInvalid, "missing_required_parameter",
       "messages"},
      {"not there", chat({{"prediction", {{"type", "content"}}}}), 400, kInvalid,
       "unsupported_parameter", "prediction"},
      {"too long", chat({{"messages", long_text}}), 400, kInvalid, "context_length_exceeded",
       "messages"},
      {"schema that cannot be compiled", chat({{"response_format", hostile}}), 400, kInvalid,
       "invalid_value", "response_format.json_schema.schema"},
      {"unknown model", chat({{"model", "gpt-5"}}), 404, kInvalid, "model_not_found", "model"},
  };
}

std::vector<Row> OtherRows() {
  const std::string body = ChatBody("Hi", 4).dump();
  const std::string key = kUser;
  return {
      {"no JSON", PostText("/v1/chat/completions", "{", key), 400, kInvalid, nullptr, nullptr},
      {"no key", PostText("/v1/chat/completions", body), 401, kInvalid, "invalid_api_key", nullptr,
       "WWW-Authenticate"},
      {"wrong key", PostText("/v1/chat/completions", body, "Authorization: Bearer sk-no\r\n"), 401,
       kInvalid, "invalid_api_key", nullptr, "WWW-Authenticate"},
      {"no scope", GetText("/props", key), 403, "permission_error", "insufficient_scope", nullptr},
      {"unknown path", GetText("/v1/nothing", key), 404, kInvalid, nullptr, nullptr},
      {"wrong method", GetText("/v1/chat/completions", key), 405, kInvalid, "method_not_supported",
       nullptr, "Allow"},
      {"large body", PostText("/v1/chat/completions", std::string(70000, ' '), key), 413, kInvalid,
       "request_too_large", nullptr},
      {"long URL", GetText("/v1/" + std::string(9000, 'a'), key), 414, kInvalid, "uri_too_long",
       nullptr},
      {"no JSON by name",
       "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
       "Content-Length: 2\r\n" +
           key + "\r\n{}",
       415, kInvalid, "unsupported_media_type", nullptr},
      {"large header", GetText("/v1/models", key + "X-A: " + std::string(40000, 'a') + "\r\n"), 431,
       kInvalid, "headers_too_large", nullptr},
  };
}

TestAppOptions Options() {
  TestAppOptions options;
  options.server.max_body_bytes = 65536;
  options.server.api_keys = {{"user", "sk-user", false}, {"slow", "sk-slow", false, {1, 0, 0}}};
  return options;
}

void Check(const TestApp& app, const Row& row) {
  SCOPED_TRACE(row.name);
  RawClient client = app.Connect();
  client.Send(row.request);
  const auto response = client.ReadResponse();
  ASSERT_EQ(response.status, row.status) << response.body;
  EXPECT_EQ(response.Header("Content-Type"), "application/json");
  EXPECT_FALSE(response.Header("x-request-id").empty());
  EXPECT_TRUE(row.header.empty() || !response.Header(row.header).empty()) << row.header;
  const bool retried = row.status == 429 || row.status == 503;
  EXPECT_EQ(response.Header("Retry-After").empty(), !retried);
  EXPECT_EQ(response.Header("x-should-retry") == "true", retried);
  const json error = json::parse(response.body).at("error");
  EXPECT_TRUE(error.at("message").is_string());
  EXPECT_EQ(error.at("type"), row.type);
  EXPECT_EQ(error.at("code"), row.code);
  EXPECT_EQ(error.at("param"), row.param);
}

TEST(ErrorTable, RowsHaveTheirStatusTypeCodeParamAndHeaders) {
  const TestApp app(Options());
  for (const bool stream : {false, true}) {
    for (const Row& row : ParameterRows(stream)) Check(app, row);
  }
  for (const Row& row : OtherRows()) Check(app, row);
}

TEST(ErrorTable, AKeyBeyondItsRate) {
  const TestApp app(Options());
  const std::string request = Chat(json::object(), "Authorization: Bearer sk-slow\r\n");
  RawClient first = app.Connect();
  first.Send(request);
  EXPECT_EQ(first.ReadResponse().status, 200);
  Check(app, {"rate", request, 429, "rate_limit_error", "rate_limit_exceeded", nullptr});
}

TEST(ErrorTable, ABodyThatDoesNotCome) {
  TestAppOptions options = Options();
  options.server.body_timeout_seconds = 0.3;
  Check(TestApp(options),
        {"slow body",
         "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
         "Content-Length: 100\r\n" +
             std::string(kUser) + "\r\n{",
         408, kInvalid, "request_timeout", nullptr});
}

TEST(ErrorTable, AServerThatShutsDown) {
  TestAppOptions options = Options();
  options.scheduler.max_sequences = 1;
  TestApp app(options);
  // A connection that is there before: the listener goes on, but new work is refused.
  RawClient running = app.Connect();
  running.Send(PostText("/v1/chat/completions", LongBody().dump(), kUser));
  ASSERT_FALSE(running.ReadUntil("data: ").empty());
  app.app().BeginShutdown();
  Check(app, {"shutdown", Chat(json::object()), 503, "service_unavailable_error", "shutting_down",
              nullptr});
}

// What other servers answer with 501, the clients would try three times.
TEST(ErrorTable, NothingUnsupportedIsAServerError) {
  const TestApp app(Options());
  for (const char* name : {"functions", "audio", "prediction", "allowed_token_ids", "bad_words",
                           "prompt_logprobs", "logits_processors", "truncate_prompt_tokens"}) {
    Check(app, {name, Chat({{name, {1}}}), 400, kInvalid, "unsupported_parameter", name});
  }
}

}  // namespace
}  // namespace server
