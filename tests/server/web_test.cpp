// The page's files come with their type, a strict policy and validators; compressed for who accepts
// it; and a server without a page says why in one sentence.
#include <gmock/gmock.h>

#include "server/http_server.h"
#include "server/routes/routes.h"
#include "server/web_files.h"
#include "tests/server/raw_client.h"

namespace server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Web : public ::testing::Test {
 protected:
  Web() : server_(Options(), Routes(), {}) { server_.Start(); }

  RawClient::Response Get(std::string_view path, std::string_view headers = "") {
    return Ask(GetText(path, headers), false);
  }
  RawClient::Response Ask(const std::string& text, bool head_only) {
    RawClient client(server_.port());
    client.Send(text);
    return client.ReadResponse(head_only);
  }

 private:
  static ServerOptions Options() {
    ServerOptions options;
    options.port = 0;
    options.log_requests = false;
    options.api_keys = {{"alice", "sk-1"}};  // the page is open all the same
    return options;
  }
  static Router Routes() {
    Router router;
    AddWebRoutes(router);
    return router;
  }
  HttpServer server_;
};

TEST_F(Web, EveryFileIsServedAsItIs) {
  for (const WebFile& file : WebFiles()) {
    const auto response = Get(file.path);
    EXPECT_EQ(response.status, 200) << file.path;
    EXPECT_EQ(response.body, file.identity) << file.path;
    EXPECT_EQ(response.Header("Content-Type"), file.content_type);
    EXPECT_EQ(response.Header("Content-Encoding"), "");
    EXPECT_EQ(response.Header("Vary"), "Accept-Encoding");
    EXPECT_EQ(response.Header("X-Content-Type-Options"), "nosniff");
  }
}

TEST_F(Web, ThePageHasAStrictPolicy) {
  if (WebFiles().empty()) {
    const auto response = Get("/");
    EXPECT_EQ(response.status, 404);
    EXPECT_THAT(response.body, StartsWith("This server has no web page because "));
    EXPECT_THAT(response.body, EndsWith(".\n"));
    return;
  }
  const auto response = Get("/");
  EXPECT_THAT(response.Header("Content-Type"), StartsWith("text/html"));
  EXPECT_EQ(response.Header("Cache-Control"), "no-cache");
  const std::string policy = response.Header("Content-Security-Policy");
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, HasSubstr("script-src 'self';"));
  EXPECT_THAT(policy, HasSubstr("require-trusted-types-for 'script'"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  // So nothing inline may be in the page.
  EXPECT_THAT(response.body, Not(HasSubstr("<style")));
  EXPECT_THAT(response.body, Not(HasSubstr(" style=")));
}

TEST_F(Web, NamedByTheirContentsFilesAreKeptForEver) {
  bool any = WebFiles().empty();
  for (const WebFile& file : WebFiles()) {
    const std::string caching = Get(file.path).Header("Cache-Control");
    EXPECT_EQ(caching, file.immutable ? "public, max-age=31536000, immutable" : "no-cache");
    any = any || file.immutable;
  }
  EXPECT_TRUE(any);
}

TEST_F(Web, GzipForWhoAcceptsIt) {
  for (const WebFile& file : WebFiles()) {
    for (const char* accept : {"gzip", "br, gzip;q=0.5", "deflate , GZIP", "*", "x-gzip"}) {
      const auto response = Get(file.path, std::string("Accept-Encoding: ") + accept + "\r\n");
      EXPECT_EQ(response.Header("Content-Encoding"), "gzip") << accept;
      EXPECT_EQ(response.body, file.gzip);
      EXPECT_THAT(response.body, StartsWith("\x1f\x8b"));
    }
    for (const char* accept : {"br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "identity"}) {
      const auto response = Get(file.path, std::string("Accept-Encoding: ") + accept + "\r\n");
      EXPECT_EQ(response.Header("Content-Encoding"), "") << accept;
      EXPECT_EQ(response.body, file.identity);
    }
  }
}

TEST_F(Web, UnchangedFilesAreNotSentAgain) {
  for (const WebFile& file : WebFiles()) {
    const std::string etag = Get(file.path).Header("ETag");
    const std::string packed_etag = Get(file.path, "Accept-Encoding: gzip\r\n").Header("ETag");
    EXPECT_NE(etag, packed_etag);
    for (const std::string& known : {etag, "W/" + etag, "\"other\", " + etag, std::string("*")}) {
      const auto response = Ask(GetText(file.path, "If-None-Match: " + known + "\r\n"), true);
      EXPECT_EQ(response.status, 304) << known;
      EXPECT_EQ(response.Header("ETag"), etag);
      EXPECT_EQ(response.Header("Content-Length"), "");
    }
    EXPECT_EQ(Get(file.path, "If-None-Match: \"other\"\r\n").status, 200);
    EXPECT_EQ(Get(file.path, "If-None-Match: " + packed_etag + "\r\n").status, 200);
  }
}

TEST_F(Web, HeadHasTheLengthAndNoBody) {
  for (const WebFile& file : WebFiles()) {
    const std::string path(file.path);
    const auto response =
        Ask("HEAD " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.Header("Content-Length"), std::to_string(file.identity.size()));
  }
}

TEST_F(Web, TheFirstVisitIsSmall) {
  size_t bytes = 0;
  for (const WebFile& file : WebFiles()) bytes += file.gzip.size();
  EXPECT_LE(bytes, 200'000U);
}

}  // namespace
}  // namespace server
