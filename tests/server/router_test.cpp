// Method and path find their route; a known path with another method knows what is allowed.
#include "server/router.h"

#include <gmock/gmock.h>

namespace server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Router MakeRouter() {
  Router router;
  router.Add({.method = "GET", .path = "/v1/models", .handler = {}});
  router.Add({.method = "GET", .path = "/v1/models/*", .handler = {}});
  router.Add({.method = "POST", .path = "/v1/models/load", .handler = {}});
  router.Add({.method = "POST", .path = "/v1/completions", .handler = {}});
  return router;
}

TEST(Router, MatchesExactPathsAndPrefixes) {
  const Router router = MakeRouter();
  EXPECT_EQ(router.Find("GET", "/v1/models").route->path, "/v1/models");
  EXPECT_EQ(router.Find("HEAD", "/v1/models").route->path, "/v1/models");
  EXPECT_EQ(router.Find("GET", "/v1/models/org/name").route->path, "/v1/models/*");
  EXPECT_EQ(router.Find("GET", "/v1/models/").route, nullptr);
  EXPECT_EQ(router.Find("GET", "/v1/model").route, nullptr);
}

TEST(Router, PathsOfTheirOwnAreNoneOfAPrefix) {
  const Router router = MakeRouter();
  EXPECT_EQ(router.Find("POST", "/v1/models/load").route->path, "/v1/models/load");
  const auto match = router.Find("GET", "/v1/models/load");
  EXPECT_EQ(match.route, nullptr);
  EXPECT_THAT(match.allowed, ElementsAre("POST", "OPTIONS"));
  EXPECT_EQ(router.Find("GET", "/v1/models/loaded").route->path, "/v1/models/*");
}

TEST(Router, OtherMethodsAreListed) {
  const Router router = MakeRouter();
  const auto match = router.Find("GET", "/v1/completions");
  EXPECT_EQ(match.route, nullptr);
  EXPECT_THAT(match.allowed, ElementsAre("POST", "OPTIONS"));
  EXPECT_THAT(router.Find("PUT", "/v1/models").allowed, ElementsAre("GET", "HEAD", "OPTIONS"));
  EXPECT_THAT(router.Find("GET", "/nothing").allowed, IsEmpty());
}

TEST(Router, PercentDecoding) {
  std::string out;
  EXPECT_TRUE(PercentDecode("/v1/models/a%2Fb%20c", &out));
  EXPECT_EQ(out, "/v1/models/a/b c");
  for (const char* bad : {"%", "%2", "%zz", "a%0", "%00"}) EXPECT_FALSE(PercentDecode(bad, &out));
}

}  // namespace
}  // namespace server
