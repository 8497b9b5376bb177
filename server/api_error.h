#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "server/http_types.h"
#include "server/key_budget.h"

namespace server {

// A request that ends with an error. Thrown anywhere while a request is handled, turned into a
// response in one place (http_session), or into an error frame when a stream has already begun.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, std::string type, std::string code, const std::string& message)
      : std::runtime_error(message),
        status_(status),
        type_(std::move(type)),
        code_(std::move(code)) {}

  ApiError& WithParam(std::string_view param) {
    param_ = param;
    return *this;
  }
  // Seconds for Retry-After; also says x-should-retry: true.
  ApiError& WithRetryAfter(int seconds) {
    retry_after_ = seconds;
    return *this;
  }

  int status() const { return status_; }
  const std::string& type() const { return type_; }
  const std::string& code() const { return code_; }    // empty = null
  const std::string& param() const { return param_; }  // empty = null
  std::optional<int> retry_after() const { return retry_after_; }

  // Only with context_length_exceeded; clients of other servers parse these two.
  struct ContextSizes {
    uint64_t prompt_tokens = 0;
    uint64_t context_length = 0;
  };
  std::optional<ContextSizes> context_sizes;
  std::string allow;  // methods, with 405

 private:
  int status_;
  std::string type_;
  std::string code_;
  std::string param_;
  std::optional<int> retry_after_;
};

// 400 with type invalid_request_error. An empty param stands for null.
ApiError InvalidType(std::string_view param, std::string_view expected, std::string_view found);
ApiError InvalidValue(std::string_view param, const std::string& message);
ApiError MissingParameter(std::string_view param);
ApiError UnsupportedParameter(std::string_view param, const std::string& message);
// With the message for a parameter that has no way to be honoured.
ApiError NotSupported(std::string_view param);
ApiError BadRequest(const std::string& message);
// at_least: the prompt was too long to be worth counting.
ApiError ContextLengthExceeded(std::string_view param, uint64_t prompt_tokens,
                               uint64_t context_length, bool at_least = false);

// An input of which nothing is to be generated.
ApiError InputTooLong(std::string_view param, uint64_t tokens, uint64_t context_length,
                      bool at_least = false);

ApiError InvalidApiKey();
ApiError AdminOnly();
// 429 with Retry-After.
ApiError RateLimited(const KeyBudget::Refusal& refusal, std::string_view key_name);
ApiError ModelNotFound(std::string_view model);
ApiError UnknownUrl(std::string_view method, std::string_view path);
ApiError MethodNotAllowed(std::string_view method, std::string_view path);
ApiError RequestTimeout();
ApiError RequestTooLarge(uint64_t limit_bytes);
ApiError UriTooLong(uint32_t limit_bytes);
ApiError HeadersTooLarge(const std::string& message);
ApiError UnsupportedMediaType(std::string_view found);
ApiError UnsupportedEncoding(std::string_view found);

ApiError StreamNotFound(std::string_view stream);
ApiError StreamCancelled();
// 410: events up to and with this number are kept no more.
ApiError StreamPositionGone(uint64_t first);

ApiError InternalError(const std::string& message);
// retry_after: seconds.
ApiError Overloaded(const std::string& message, int retry_after = 1);
ApiError RateLimited(const std::string& message, int retry_after = 1);
ApiError OutOfMemory();
ApiError SlowReader();
// retry_after: seconds.
ApiError ModelLoading(std::string_view model, double fraction, int retry_after = 1);
ApiError ModelLoadFailed(std::string_view model, const std::string& reason, int retry_after);
ApiError ShuttingDown();

// {"error":{"message","type","param","code"}}; no newline.
std::string ErrorBody(const ApiError& error);

// Status, body and the headers that go with it (Retry-After, x-should-retry, WWW-Authenticate).
HttpResponse ErrorResponse(const ApiError& error);

}  // namespace server
