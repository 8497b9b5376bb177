// Only the configured keys open the door, in either header, and which key it was is known by name.
#include "server/auth.h"

#include <gtest/gtest.h>

namespace server {
namespace {

HttpRequest With(const std::string& name, const std::string& value) {
  HttpRequest request;
  request.headers.emplace_back(name, value);
  return request;
}

// The name of who is let in; nullopt: refused.
std::optional<std::string> NameOf(const Authenticator& authenticator, const HttpRequest& request) {
  const auto client = authenticator.Check(request);
  return client ? std::optional(client->name) : std::nullopt;
}

TEST(Authenticator, WithoutKeysEverybodyMayDoEverything) {
  const auto client = Authenticator(std::vector<ApiKey>{}).Check(HttpRequest{});
  ASSERT_TRUE(client);
  EXPECT_EQ(client->name, "");
  EXPECT_TRUE(client->admin);
}

TEST(Authenticator, ReplacedKeysCountFromThenOn) {
  Authenticator authenticator(std::vector<ApiKey>{{"alice", "secret-a"}});
  authenticator.Replace({{"bob", "secret-b", false}});
  EXPECT_FALSE(authenticator.Check(With("x-api-key", "secret-a")));
  EXPECT_EQ(NameOf(authenticator, With("x-api-key", "secret-b")), "bob");
  EXPECT_FALSE(authenticator.Check(With("x-api-key", "secret-b"))->admin);
}

TEST(Authenticator, AcceptsBearerAndApiKeyHeader) {
  const Authenticator authenticator(
      std::vector<ApiKey>{{"alice", "secret-a"}, {"bob", "secret-b"}});
  EXPECT_EQ(NameOf(authenticator, With("authorization", "Bearer secret-a")), "alice");
  EXPECT_EQ(NameOf(authenticator, With("authorization", "bearer  secret-b")), "bob");
  EXPECT_EQ(NameOf(authenticator, With("x-api-key", "secret-b")), "bob");
}

TEST(Authenticator, RefusesEverythingElse) {
  const Authenticator authenticator(std::vector<ApiKey>{{"alice", "secret-a"}});
  EXPECT_FALSE(authenticator.Check(HttpRequest{}));
  for (const char* value : {"Bearer ", "Bearer", "secret-a", "Basic secret-a", "Bearer secret-",
                            "Bearer secret-aa", "Bearer Secret-a"}) {
    EXPECT_FALSE(authenticator.Check(With("authorization", value))) << value;
  }
  EXPECT_FALSE(authenticator.Check(With("x-api-key", "")));
}

}  // namespace
}  // namespace server
