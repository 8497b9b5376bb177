#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

#include "server/routes/routes.h"
#include "server/web_files.h"

namespace server {
namespace {

namespace asio = boost::asio;

// Nothing but the page's own files, no inline script or style, no frame around it, and no text that
// becomes markup (Trusted Types): what a model writes can't run, load or send anything.
constexpr char kContentSecurityPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Takes the next element off a comma-separated list.
std::string_view NextElement(std::string_view* list) {
  const std::string_view element = list->substr(0, list->find(','));
  list->remove_prefix(std::min(element.size() + 1, list->size()));
  return Trimmed(element);
}

// "q=0", "q=0.0" and the like: not acceptable (RFC 9110, 12.4.2).
bool IsRefused(std::string_view parameters) {
  parameters = Trimmed(parameters);
  if (!parameters.starts_with("q=") && !parameters.starts_with("Q=")) return false;
  return parameters.find_first_not_of("0.", 2) == std::string_view::npos;
}

bool SameWord(std::string_view text, std::string_view lower_case) {
  return std::equal(
      text.begin(), text.end(), lower_case.begin(), lower_case.end(),
      [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; });
}

bool AcceptsGzip(std::string_view accept_encoding) {
  bool any = false;
  while (!accept_encoding.empty()) {
    const std::string_view element = NextElement(&accept_encoding);
    const size_t semicolon = element.find(';');
    const std::string_view coding = Trimmed(element.substr(0, semicolon));
    const bool accepted =
        semicolon == std::string_view::npos || !IsRefused(element.substr(semicolon + 1));
    if (SameWord(coding, "gzip") || SameWord(coding, "x-gzip")) return accepted;
    if (coding == "*") any = accepted;
  }
  return any;
}

// If-None-Match compares weakly: a W/ does not matter.
bool Matches(std::string_view if_none_match, std::string_view etag) {
  while (!if_none_match.empty()) {
    std::string_view element = NextElement(&if_none_match);
    if (element.starts_with("W/")) element.remove_prefix(2);
    if (element == "*" || element == etag) return true;
  }
  return false;
}

HttpResponse FileResponse(const WebFile& file, const HttpRequest& request) {
  HttpResponse response;
  const bool gzip = AcceptsGzip(request.Header("accept-encoding"));
  const std::string etag = "\"" + std::string(file.hash) + (gzip ? "-gz\"" : "\"");
  response.headers = {
      {"ETag", etag},
      {"Cache-Control", file.immutable ? "public, max-age=31536000, immutable" : "no-cache"},
      {"Vary", "Accept-Encoding"},
      {"Content-Security-Policy", kContentSecurityPolicy},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"}};
  if (Matches(request.Header("if-none-match"), etag)) {
    response.status = 304;
    response.content_type.clear();
    return response;
  }
  response.content_type = file.content_type;
  if (gzip) response.headers.emplace_back("Content-Encoding", "gzip");
  response.body = gzip ? file.gzip : file.identity;
  return response;
}

asio::awaitable<void> Serve(const WebFile& file, const HttpRequest& request,
                            HttpExchange& exchange) {
  const HttpResponse response = FileResponse(file, request);
  co_await exchange.Reply(response);
}

asio::awaitable<void> ExplainAbsence(HttpExchange& exchange) {
  HttpResponse response;
  response.status = 404;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::string(WebPageAbsence()) + "\n";
  co_await exchange.Reply(response);
}

}  // namespace

void AddWebRoutes(Router& router) {
  for (const WebFile& file : WebFiles()) {
    router.Add({.method = "GET",
                .path = std::string(file.path),
                .access = Router::Access::kOpen,
                .handler = [&file](const HttpRequest& request, HttpExchange& exchange) {
                  return Serve(file, request, exchange);
                }});
  }
  if (!WebFiles().empty()) return;
  router.Add({.method = "GET",
              .path = "/",
              .access = Router::Access::kOpen,
              .handler = [](const HttpRequest&, HttpExchange& exchange) {
                return ExplainAbsence(exchange);
              }});
}

}  // namespace server
