#include "server/renamed_error.h"

#include <string>

namespace server {
namespace {

std::string Renamed(std::string text, std::span<const RenamedParam> names) {
  for (const auto& [from, to] : names) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
      text.replace(at, from.size(), to);
      at += to.size();
    }
  }
  return text;
}

// Quoted, as in messages: a name must match as a whole, not as a part of another.
std::string RenamedParamOf(const std::string& param, std::span<const RenamedParam> names) {
  const std::string quoted = Renamed("'" + param + "'", names);
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

ApiError RenamedError(const ApiError& error, std::span<const RenamedParam> names) {
  ApiError renamed(error.status(), error.type(), error.code(), Renamed(error.what(), names));
  renamed.WithParam(RenamedParamOf(error.param(), names));
  if (error.retry_after()) renamed.WithRetryAfter(*error.retry_after());
  renamed.context_sizes = error.context_sizes;
  renamed.allow = error.allow;
  return renamed;
}

void RenameParams(std::span<const RenamedParam> names, std::span<std::string> params) {
  for (std::string& param : params) param = RenamedParamOf(param, names);
}

}  // namespace server
