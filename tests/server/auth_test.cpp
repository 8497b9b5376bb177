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

TEST(Authenticator, WithoutKeysEverybodyMayEnter) {
  EXPECT_EQ(Authenticator(std::vector<ApiKey>{}).Check(HttpRequest{}), "");
}

TEST(Authenticator, AcceptsBearerAndApiKeyHeader) {
  const Authenticator authenticator(
      std::vector<ApiKey>{{"alice", "secret-a"}, {"bob", "secret-b"}});
  EXPECT_EQ(authenticator.Check(With("authorization", "Bearer secret-a")), "alice");
  EXPECT_EQ(authenticator.Check(With("authorization", "bearer  secret-b")), "bob");
  EXPECT_EQ(authenticator.Check(With("x-api-key", "secret-b")), "bob");
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
