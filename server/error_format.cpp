#include "server/error_format.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "server/json.h"
#include "server/messages_api.h"
#include "server/sse_writer.h"

namespace server {
namespace {

bool IsBelow(std::string_view path, std::string_view root) {
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

bool SpeaksMessages(const HttpRequest& request) {
  return IsBelow(request.path, "/v1/messages") || IsBelow(request.path, "/messages");
}

bool SpeaksResponses(const HttpRequest& request) {
  return IsBelow(request.path, "/v1/responses") || IsBelow(request.path, "/responses");
}

}  // namespace

HttpResponse ErrorResponseTo(const HttpRequest& request, const ApiError& error) {
  return SpeaksMessages(request) ? MessagesErrorResponse(error, request.request_id)
                                 : ErrorResponse(error);
}

std::string ErrorFrames(const HttpRequest& request, const ApiError& error) {
  SseWriter sse;
  if (SpeaksMessages(request)) {
    sse.Event("error", MessagesErrorResponse(error, request.request_id).body);
  } else if (SpeaksResponses(request)) {
    Json event;
    event["type"] = "error";
    event["sequence_number"] = 0;
    event["code"] = error.code().empty() ? Json(nullptr) : Json(error.code());
    event["message"] = error.what();
    event["param"] = error.param().empty() ? Json(nullptr) : Json(error.param());
    sse.Event("error", Dump(event));
  } else {
    sse.Data(ErrorBody(error));
    sse.Done();
  }
  return sse.Take();
}

}  // namespace server
