// Property: `tern serve` becomes ready, prints how to reach it, answers its own health check, and
// SIGTERM ends it with 0.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>

#include "tests/cli/process.h"

namespace cli {
namespace {

using testing::HasSubstr;

constexpr double kPatience = 120;

std::string UrlIn(const std::string& text) {
  const size_t ready = text.find("ready at ");
  if (ready == std::string::npos) return "";
  const size_t begin = text.find("http://", ready);
  return text.substr(begin, text.find_first_of(" \n", begin) - begin);
}

TEST(Serve, StartsAnswersAndDrains) {
  const ScratchFile model("gguf");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", model.path()}).exit_code, 0);
  BackgroundTern server({"serve", "--model", model.path(), "--served-model-name", "little",
                         "--port", "0", "--kv-bytes", "16MiB"});
  ASSERT_TRUE(server.WaitFor("curl http://127.0.0.1:", kPatience)) << server.Errors();
  EXPECT_THAT(server.Errors(), HasSubstr("\"model\": \"little\""));
  EXPECT_THAT(server.Errors(), testing::Not(HasSubstr("warning")));
  const std::string url = UrlIn(server.Errors());
  const ProcessResult health = RunTern({"health", "--url", url + "/health"});
  EXPECT_EQ(health.exit_code, 0) << health.err;
  EXPECT_THAT(health.out, HasSubstr(" 200 "));
  EXPECT_EQ(RunTern({"health", "--url", url + "/no-such-page"}).exit_code, 1);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
  EXPECT_THAT(server.Errors(), HasSubstr("draining"));
}

TEST(Serve, HangUpReadsTheKeysAgainAndWithoutAnyEndsTheServer) {
  const ScratchFile model("gguf");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", model.path()}).exit_code, 0);
  const ScratchFile keys("keys", "alice sk-1\n");
  BackgroundTern reloading({"serve", "--model", model.path(), "--port", "0", "--kv-bytes", "16MiB",
                            "--api-key-file", keys.path(), "--log-format", "json"});
  ASSERT_TRUE(reloading.WaitFor("curl http://127.0.0.1:", kPatience)) << reloading.Errors();
  reloading.Signal(SIGHUP);
  EXPECT_TRUE(reloading.WaitFor("\"message\":\"reloaded 1 API keys", kPatience));
  reloading.Signal(SIGTERM);
  EXPECT_EQ(reloading.Wait(), 0) << reloading.Errors();
  BackgroundTern plain({"serve", "--model", model.path(), "--port", "0", "--kv-bytes", "16MiB"});
  ASSERT_TRUE(plain.WaitFor("curl http://127.0.0.1:", kPatience)) << plain.Errors();
  plain.Signal(SIGHUP);
  EXPECT_EQ(plain.Wait(), 0) << plain.Errors();
}

TEST(Serve, HangUpReloadsTheSafePartOfTheConfiguration) {
  const ScratchFile model("gguf", "");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", model.path()}).exit_code, 0);
  const ScratchFile config("toml", "[server]\nping = 5.0\nport = 0\n");
  BackgroundTern server(
      {"serve", "--model", model.path(), "--kv-bytes", "16MiB", "--config", config.path()});
  ASSERT_TRUE(server.WaitFor("curl http://127.0.0.1:", kPatience)) << server.Errors();
  std::ofstream(config.path()) << "[server]\nping = 6.0\nport = 1\nstrict_params = true\n";
  server.Signal(SIGHUP);
  EXPECT_TRUE(server.WaitFor("reloaded server.ping = 6.0", kPatience)) << server.Errors();
  EXPECT_TRUE(server.WaitFor("reloaded server.strict_params = true", kPatience));
  EXPECT_TRUE(server.WaitFor("server.port has changed, which needs a restart", kPatience));
  // A file with an error changes nothing.
  std::ofstream(config.path()) << "[server]\nping = \"often\"\n";
  server.Signal(SIGHUP);
  EXPECT_TRUE(server.WaitFor("the configuration is kept as it was: ", kPatience));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

TEST(Serve, ModelThatDoesNotLoadEndsWithItsSentence) {
  const ScratchFile model("gguf", "not a model");
  const ProcessResult result = RunTern({"serve", "--model", model.path(), "--port", "0"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("GGUF"));
}

TEST(Serve, ModelThatIsNotThereIsToldBeforeAnythingListens) {
  const ProcessResult result = RunTern({"serve", "--model", "/nowhere/m.gguf", "--port", "0"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "tern: cannot open the model /nowhere/m.gguf: No such file or directory\n");
}

TEST(Serve, PoolThatCannotBeAllocatedIsOneSentence) {
  const ProcessResult result = RunTern({"serve", "--port", "0", "--kv-bytes", "900000GiB"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("not enough memory"));
  EXPECT_THAT(result.err, testing::Not(HasSubstr("bad_alloc")));
}

TEST(Serve, BundledModelCanHaveAnotherName) {
  const ProcessResult result = RunTern({"serve", "--served-model-name", "mine", "--print-config"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("id = \"mine\""));
  EXPECT_THAT(result.out, HasSubstr(".gguf"));
}

TEST(Serve, EmptySecretDoesNotOpenTheServer) {
  const ProcessResult result = RunTern({"serve", "--print-config"}, "", {"TERN_SERVER_API_KEYS="});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("TERN_SERVER_API_KEYS must be a key"));
}

TEST(Serve, PrintConfigShowsOriginsAndStartsNothing) {
  const ScratchFile file("toml", "[server]\nport = 1234\n");
  const ProcessResult result =
      RunTern({"serve", "--model", "x.gguf", "--config", file.path(), "--print-config"}, "",
              {"TERN_SERVER_HOST=::1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("port = 1234  # " + file.path() + ":2"));
  EXPECT_THAT(result.out, HasSubstr("host = \"::1\"  # TERN_SERVER_HOST"));
}

TEST(Serve, BadOptionIsBadUsage) {
  EXPECT_EQ(RunTern({"serve", "--port", "70000"}).exit_code, 2);
  EXPECT_EQ(RunTern({"serve", "--kv-block-size", "17"}).exit_code, 2);
}

TEST(Serve, MisspeltOptionIsNamedWithItsNeighbour) {
  const ProcessResult result = RunTern({"serve", "--prot", "9000"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err,
            "tern serve has no option --prot. Did you mean --port?\nTry `tern serve --help`.\n");
  EXPECT_THAT(RunTern({"serve", "--quux=1"}).err, HasSubstr("has no option --quux.\n"));
  EXPECT_THAT(RunTern({"serve", "m.gguf"}).err,
              HasSubstr("tern serve did not expect \"m.gguf\": every value follows its option.\n"));
  EXPECT_THAT(RunTern({"serve", "---"}).err, HasSubstr("tern serve has no option ---.\n"));
  EXPECT_THAT(RunTern({"serve", "--=x"}).err, HasSubstr("tern serve has no option --.\n"));
}

TEST(Serve, HelpTellsTheDefaults) {
  const std::string help = RunTern({"serve", "--help"}).out;
  EXPECT_THAT(help, HasSubstr("port to listen on; 0 takes a free one (default: 8080)"));
  EXPECT_THAT(help, HasSubstr("(on; --no-log-requests turns it off)"));
  EXPECT_THAT(help, HasSubstr("(default: 127.0.0.1)"));
}

}  // namespace
}  // namespace cli
