#include "server/api_error.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace server {
namespace {

constexpr char kInvalidRequest[] = "invalid_request_error";
constexpr char kUnavailable[] = "service_unavailable_error";

// What the client sent, short enough for a message.
std::string Quoted(std::string_view text) {
  constexpr size_t kMaxShown = 200;
  if (text.size() <= kMaxShown) return "'" + std::string(text) + "'";
  return "'" + std::string(text.substr(0, kMaxShown)) + "...'";
}

}  // namespace

ApiError InvalidType(std::string_view param, std::string_view expected, std::string_view found) {
  return ApiError(400, kInvalidRequest, "invalid_type",
                  "Invalid type for " + Quoted(param) + ": expected " + std::string(expected) +
                      ", but got " + std::string(found) + " instead.")
      .WithParam(param);
}

ApiError InvalidValue(std::string_view param, const std::string& message) {
  return ApiError(400, kInvalidRequest, "invalid_value", message).WithParam(param);
}

ApiError MissingParameter(std::string_view param) {
  return ApiError(400, kInvalidRequest, "missing_required_parameter",
                  "Missing required parameter: " + Quoted(param) + ".")
      .WithParam(param);
}

ApiError UnsupportedParameter(std::string_view param, const std::string& message) {
  return ApiError(400, kInvalidRequest, "unsupported_parameter", message).WithParam(param);
}

ApiError NotSupported(std::string_view param) {
  return UnsupportedParameter(param, "Unsupported parameter: '" + std::string(param) +
                                         "' is not supported by this server.");
}

ApiError BadRequest(const std::string& message) {
  return ApiError(400, kInvalidRequest, "", message);
}

ApiError ContextLengthExceeded(std::string_view param, uint64_t prompt_tokens,
                               uint64_t context_length, bool at_least) {
  ApiError error(400, kInvalidRequest, "context_length_exceeded",
                 "This model's maximum context length is " + std::to_string(context_length) +
                     " tokens, but the prompt has " + (at_least ? "at least " : "") +
                     std::to_string(prompt_tokens) +
                     " tokens and at least one must be left for the answer.");
  error.WithParam(param);
  error.context_sizes = ApiError::ContextSizes{prompt_tokens, context_length};
  return error;
}

ApiError InputTooLong(std::string_view param, uint64_t tokens, uint64_t context_length,
                      bool at_least) {
  ApiError error(400, kInvalidRequest, "context_length_exceeded",
                 "This model's maximum context length is " + std::to_string(context_length) +
                     " tokens, but " + Quoted(param) + " has " + (at_least ? "at least " : "") +
                     std::to_string(tokens) + " tokens.");
  error.WithParam(param);
  error.context_sizes = ApiError::ContextSizes{tokens, context_length};
  return error;
}

ApiError InvalidApiKey() {
  return ApiError(401, kInvalidRequest, "invalid_api_key",
                  "Missing or incorrect API key. Send it as 'Authorization: Bearer KEY' or "
                  "'x-api-key: KEY'.");
}

ApiError AdminOnly() {
  return ApiError(403, "permission_error", "insufficient_scope",
                  "This API key does not have the scope 'admin'.");
}

ApiError RateLimited(const KeyBudget::Refusal& refusal, std::string_view key_name) {
  const std::string allowed = std::to_string(refusal.allowed);
  const auto limit = [&]() -> std::string {
    switch (refusal.limit) {
      case KeyBudget::Limit::kRequests:
        return allowed + " requests per minute";
      case KeyBudget::Limit::kTokens:
        return allowed + " tokens per minute";
      default:
        return allowed + " requests at the same time";
    }
  }();
  return ApiError(429, "rate_limit_error", "rate_limit_exceeded",
                  "Rate limit reached for the key " + Quoted(key_name) + ": " + limit + ".")
      .WithRetryAfter(std::max(1, static_cast<int>(std::ceil(refusal.wait_seconds))));
}

ApiError ModelNotFound(std::string_view model) {
  return ApiError(404, kInvalidRequest, "model_not_found",
                  "The model " + Quoted(model) + " does not exist.")
      .WithParam("model");
}

ApiError UnknownUrl(std::string_view method, std::string_view path) {
  return ApiError(404, kInvalidRequest, "",
                  "Unknown request URL: " + Quoted(method) + " " + Quoted(path) + ".");
}

ApiError MethodNotAllowed(std::string_view method, std::string_view path) {
  return ApiError(405, kInvalidRequest, "method_not_supported",
                  "Not allowed to " + Quoted(method) + " on " + Quoted(path) + ".");
}

ApiError RequestTimeout() {
  return ApiError(408, kInvalidRequest, "request_timeout",
                  "The request was not received completely within the time limit.");
}

ApiError RequestTooLarge(uint64_t limit_bytes) {
  return ApiError(
      413, kInvalidRequest, "request_too_large",
      "The request body is larger than the limit of " + std::to_string(limit_bytes) + " bytes.");
}

ApiError UriTooLong(uint32_t limit_bytes) {
  return ApiError(
      414, kInvalidRequest, "uri_too_long",
      "The request URL is longer than the limit of " + std::to_string(limit_bytes) + " bytes.");
}

ApiError HeadersTooLarge(const std::string& message) {
  return ApiError(431, kInvalidRequest, "headers_too_large", message);
}

ApiError UnsupportedMediaType(std::string_view found) {
  return ApiError(415, kInvalidRequest, "unsupported_media_type",
                  "Expected the header 'Content-Type: application/json', but got " +
                      (found.empty() ? std::string("none") : Quoted(found)) + ".");
}

ApiError UnsupportedEncoding(std::string_view found) {
  return ApiError(415, kInvalidRequest, "unsupported_media_type",
                  "Expected a body without 'Content-Encoding', but got " + Quoted(found) + ".");
}

ApiError InternalError(const std::string& message) {
  return ApiError(500, "server_error", "internal_error", message);
}

ApiError Overloaded(const std::string& message, int retry_after) {
  return ApiError(503, kUnavailable, "server_is_overloaded", message).WithRetryAfter(retry_after);
}

ApiError RateLimited(const std::string& message, int retry_after) {
  return ApiError(429, "rate_limit_error", "rate_limit_exceeded", message)
      .WithRetryAfter(retry_after);
}

ApiError OutOfMemory() {
  return Overloaded("The server has no memory left for this request. Try again soon.");
}

ApiError SlowReader() {
  return ApiError(503, kUnavailable, "slow_reader",
                  "The request was cancelled because its client reads too slowly.");
}

ApiError StreamNotFound(std::string_view stream) {
  return ApiError(404, kInvalidRequest, "stream_not_found",
                  "The stream " + Quoted(stream) +
                      " does not exist: it was never resumable, is another key's, or was kept for "
                      "long enough.");
}

ApiError StreamCancelled() {
  return ApiError(410, kInvalidRequest, "stream_cancelled", "The stream was cancelled.");
}

ApiError StreamPositionGone(uint64_t first) {
  return ApiError(410, kInvalidRequest, "stream_position_gone",
                  "The stream's events up to number " + std::to_string(first) +
                      " are not kept any more.")
      .WithParam("after");
}

ApiError ModelLoading(std::string_view model, double fraction, int retry_after) {
  const int percent = static_cast<int>(std::floor(fraction * 100));
  return ApiError(503, kUnavailable, "model_loading",
                  "The model " + Quoted(model) + " is loading (" + std::to_string(percent) + " %).")
      .WithRetryAfter(retry_after);
}

ApiError ModelLoadFailed(std::string_view model, const std::string& reason, int retry_after) {
  return ApiError(503, kUnavailable, "model_load_failed",
                  "The model " + Quoted(model) + " could not be loaded: " + reason)
      .WithRetryAfter(retry_after);
}

ApiError ShuttingDown() {
  return ApiError(503, kUnavailable, "shutting_down", "The server is shutting down.")
      .WithRetryAfter(5);
}

std::string ErrorBody(const ApiError& error) {
  using nlohmann::ordered_json;
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? ordered_json(nullptr) : ordered_json(text);
  };
  ordered_json inner;
  inner["message"] = error.what();
  inner["type"] = error.type();
  inner["param"] = text_or_null(error.param());
  inner["code"] = text_or_null(error.code());
  if (error.context_sizes) {
    inner["n_prompt_tokens"] = error.context_sizes->prompt_tokens;
    inner["n_ctx"] = error.context_sizes->context_length;
  }
  // Messages may quote what the client sent, which need not be valid UTF-8.
  return ordered_json{{"error", inner}}.dump(-1, ' ', false,
                                             ordered_json::error_handler_t::replace);
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.status();
  response.body = ErrorBody(error);
  if (error.retry_after()) {
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after()));
    response.headers.emplace_back("x-should-retry", "true");
  }
  if (!error.allow.empty()) response.headers.emplace_back("Allow", error.allow);
  if (error.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

std::string_view StatusText(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 410:
      return "Gone";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Unknown";
  }
}

}  // namespace server
