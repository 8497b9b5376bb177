#pragma once

#include <string>

#include "server/api_error.h"
#include "server/http_types.h"

namespace server {

// Errors in the words of the protocol that a request's path speaks: Anthropic's below /v1/messages,
// OpenAI's elsewhere.

// Instead of an answer. The path may be empty: the request could not be read so far.
HttpResponse ErrorResponseTo(const HttpRequest& request, const ApiError& error);

// The last frames of an event stream that has begun.
std::string ErrorFrames(const HttpRequest& request, const ApiError& error);

}  // namespace server
