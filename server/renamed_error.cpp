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

}  // namespace

ApiError RenamedError(const ApiError& error, std::span<const RenamedParam> names) {
  ApiError renamed(error.status(), error.type(), error.code(), Renamed(error.what(), names));
  // Quoted, as in messages: a name must match as a whole, not as a part of another.
  const std::string quoted = Renamed("'" + error.param() + "'", names);
  renamed.WithParam(std::string_view(quoted).substr(1, quoted.size() - 2));
  if (error.retry_after()) renamed.WithRetryAfter(*error.retry_after());
  renamed.context_sizes = error.context_sizes;
  renamed.allow = error.allow;
  return renamed;
}

}  // namespace server
