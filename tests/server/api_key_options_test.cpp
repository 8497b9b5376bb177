// A key file says who may do what; a line that cannot be understood is named, never its secret.
#include "server/api_key_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace server {
namespace {

using testing::HasSubstr;
using testing::Not;

class KeyFile {
 public:
  explicit KeyFile(const std::string& text)
      : path_(testing::TempDir() + "keys-" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::ofstream(path_) << text;
  }
  ~KeyFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string ErrorOf(const std::string& text) {
  const KeyFile file(text);
  try {
    ReadApiKeyFile(file.path());
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST(ApiKeyFile, LinesHaveNamesScopesAndLimits) {
  const KeyFile file(
      "# who\n\nsk-1\nbob sk-2\nops sk-3 scope=admin rpm=60 tpm=20000 concurrent=4\n");
  const auto keys = ReadApiKeyFile(file.path());
  ASSERT_EQ(keys.size(), 3U);
  EXPECT_EQ(keys[0].name, "key-1");
  EXPECT_EQ(keys[0].key, "sk-1");
  EXPECT_FALSE(keys[1].admin);
  EXPECT_EQ(keys[1].limits.requests_per_minute, 0U);
  EXPECT_TRUE(keys[2].admin);
  EXPECT_EQ(keys[2].limits.requests_per_minute, 60U);
  EXPECT_EQ(keys[2].limits.tokens_per_minute, 20000U);
  EXPECT_EQ(keys[2].limits.concurrent, 4U);
}

TEST(ApiKeyFile, ErrorsNameTheLineAndNeverAWord) {
  EXPECT_THAT(ErrorOf("a sk-1\nb sk-2 rpm=x\n"), HasSubstr("line 2"));
  EXPECT_THAT(ErrorOf("a sk-1 rpm=0\n"), HasSubstr("rpm=0"));
  EXPECT_THAT(ErrorOf("a sk-1 rpm=-1\n"), HasSubstr("no positive integer"));
  EXPECT_THAT(ErrorOf("a sk-1 sk-secret\n"), HasSubstr("scope=admin"));
  EXPECT_THAT(ErrorOf("a sk-1 sk-secret\n"), Not(HasSubstr("secret")));
  EXPECT_THAT(ErrorOf("a sk-1 scope=root\n"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("a sk-1\na sk-2\n"), HasSubstr("earlier line"));
  EXPECT_THAT(ErrorOf("# nothing\n"), HasSubstr("has none"));
}

}  // namespace
}  // namespace server
