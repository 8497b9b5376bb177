// Every error has the body {"error":{message,type,param,code}} that the OpenAI clients read, with
// strings or null, and the headers that tell them whether to try again.
#include "server/api_error.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace server {
namespace {

using ::testing::Contains;
using ::testing::Not;
using ::testing::Pair;

nlohmann::json Inner(const ApiError& error) {
  return nlohmann::json::parse(ErrorBody(error)).at("error");
}

TEST(ApiError, AbsentParamAndCodeAreNull) {
  const auto inner = Inner(BadRequest("broken"));
  EXPECT_EQ(inner.at("message"), "broken");
  EXPECT_EQ(inner.at("type"), "invalid_request_error");
  EXPECT_TRUE(inner.at("param").is_null());
  EXPECT_TRUE(inner.at("code").is_null());
  EXPECT_EQ(inner.size(), 4U);
}

TEST(ApiError, ContextLengthCarriesBothSizes) {
  const ApiError error = ContextLengthExceeded("messages", 2000, 1024);
  EXPECT_EQ(error.status(), 400);
  const auto inner = Inner(error);
  EXPECT_EQ(inner.at("code"), "context_length_exceeded");
  EXPECT_EQ(inner.at("param"), "messages");
  EXPECT_EQ(inner.at("n_prompt_tokens"), 2000);
  EXPECT_EQ(inner.at("n_ctx"), 1024);
}

TEST(ApiError, StatusTypeAndCodeOfEachKind) {
  struct Case {
    ApiError error;
    int status;
    std::string type;
    nlohmann::json code;
  };
  const std::vector<Case> cases = {
      {InvalidType("n", "an integer", "a string"), 400, "invalid_request_error", "invalid_type"},
      {InvalidValue("n", "m"), 400, "invalid_request_error", "invalid_value"},
      {MissingParameter("messages"), 400, "invalid_request_error", "missing_required_parameter"},
      {UnsupportedParameter("tools", "m"), 400, "invalid_request_error", "unsupported_parameter"},
      {InvalidApiKey(), 401, "invalid_request_error", "invalid_api_key"},
      {ModelNotFound("x"), 404, "invalid_request_error", "model_not_found"},
      {UnknownUrl("GET", "/x"), 404, "invalid_request_error", nullptr},
      {MethodNotAllowed("PUT", "/x"), 405, "invalid_request_error", "method_not_supported"},
      {AdminOnly(), 403, "permission_error", "insufficient_scope"},
      {RateLimited({KeyBudget::Limit::kTokens, 5, 2.5}, "k"), 429, "rate_limit_error",
       "rate_limit_exceeded"},
      {RequestTimeout(), 408, "invalid_request_error", "request_timeout"},
      {RequestTooLarge(1), 413, "invalid_request_error", "request_too_large"},
      {InternalError("m"), 500, "server_error", "internal_error"},
      {Overloaded("m"), 503, "service_unavailable_error", "server_is_overloaded"},
      {RateLimited("m"), 429, "rate_limit_error", "rate_limit_exceeded"},
      {ModelLoading("x", 0.5), 503, "service_unavailable_error", "model_loading"},
      {ShuttingDown(), 503, "service_unavailable_error", "shutting_down"}};
  for (const Case& c : cases) {
    const auto inner = Inner(c.error);
    EXPECT_EQ(c.error.status(), c.status) << inner;
    EXPECT_EQ(inner.at("type"), c.type) << inner;
    EXPECT_EQ(inner.at("code"), c.code) << inner;
  }
}

TEST(ApiError, OverloadTellsClientsToRetryAndAuthenticationTellsHow) {
  EXPECT_THAT(ErrorResponse(Overloaded("m")).headers, Contains(Pair("Retry-After", "1")));
  EXPECT_THAT(ErrorResponse(Overloaded("m")).headers, Contains(Pair("x-should-retry", "true")));
  EXPECT_THAT(ErrorResponse(RateLimited({KeyBudget::Limit::kTokens, 5, 2.5}, "k")).headers,
              Contains(Pair("Retry-After", "3")));
  EXPECT_THAT(ErrorResponse(InvalidApiKey()).headers, Contains(Pair("WWW-Authenticate", "Bearer")));
  EXPECT_THAT(ErrorResponse(BadRequest("m")).headers,
              Not(Contains(Pair("x-should-retry", "true"))));
}

TEST(ApiError, LongNamesAreCutInMessages) {
  const std::string name(100'000, 'x');
  EXPECT_LT(ErrorBody(ModelNotFound(name)).size(), 1000U);
  EXPECT_LT(ErrorBody(UnknownUrl(name, name)).size(), 1000U);
}

TEST(ApiError, MessageWithInvalidUtf8StaysValidJson) {
  EXPECT_EQ(Inner(BadRequest("a\xFF"
                             "b"))
                .at("message"),
            "a\xEF\xBF\xBD"
            "b");
}

}  // namespace
}  // namespace server
