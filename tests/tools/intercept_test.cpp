// Property: programs that know nothing of it give the same results with libtfmbs_intercept.so
// preloaded: memory byte for byte, products within their bounds; and its comparison with the
// program's own BLAS notices when they are not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace intercept {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string log;
};

std::string Program(const std::string& name) { return TERN_INTERCEPT_PROGRAMS "/" + name; }

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Outcome RunShell(const std::string& command, const std::string& log) {
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  char bytes[4096];
  for (size_t got = 0; (got = std::fread(bytes, 1, sizeof bytes, pipe)) > 0;) {
    outcome.out.append(bytes, got);
  }
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (!log.empty()) outcome.log = ReadAll(log);
  return outcome;
}

Outcome Plain(const std::string& program, const std::string& arguments = "") {
  return RunShell(Program(program) + " " + arguments, "");
}

Outcome Preloaded(const std::string& program, const std::string& environment,
                  const std::string& arguments = "") {
  const std::string log = ::testing::TempDir() + "intercept." + std::to_string(getpid()) + ".log";
  std::remove(log.c_str());
  const Outcome outcome =
      RunShell("TFMBS_LOG=" + log + " " + environment + " LD_PRELOAD=" TERN_INTERCEPT_LIBRARY " " +
                   Program(program) + " " + arguments,
               log);
  std::remove(log.c_str());
  return outcome;
}

class Intercept : public ::testing::Test {};

// The number before or after some words of the log.
uint64_t Count(const std::string& log, const std::string& before, const std::string& after) {
  const size_t end = log.rfind(after);
  if (end == std::string::npos) return ~uint64_t{0};
  const size_t begin = log.rfind(before, end);
  if (begin == std::string::npos) return ~uint64_t{0};
  return std::strtoull(log.c_str() + begin + before.size(), nullptr, 10);
}

class PatternFile {
 public:
  PatternFile() : path_(::testing::TempDir() + "intercept." + std::to_string(getpid()) + ".bytes") {
    std::ofstream file(path_, std::ios::binary);
    for (int i = 0; i < 300000; ++i) file.put(static_cast<char>(i % 251));
  }
  ~PatternFile() { std::remove(path_.c_str()); }
  PatternFile(const PatternFile&) = delete;
  PatternFile& operator=(const PatternFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_F(Intercept, MemoryOfAnUnmodifiedProgramIsItsOwn) {
  const PatternFile file;
  ASSERT_EQ(Plain("intercepted_memory", file.path()).out, "ok\n");
  const Outcome outcome = Preloaded("intercepted_memory", "", file.path());
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, "ok\n");
  EXPECT_GT(Count(outcome.log, "memory: ", " blocks"), 100U) << outcome.log;
  EXPECT_EQ(Count(outcome.log, "and ", " files"), 2U);
  EXPECT_GE(Count(outcome.log, "copies: ", " of "), 151U);
  EXPECT_EQ(Count(outcome.log, "row scans: ", "\n"), 2U) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("rows of 4096 bytes, 5000 apart"));
}

// Small blocks too, and little room: what does not fit is the C library's.
TEST_F(Intercept, AFullFabricSpillsToTheSystem) {
  const PatternFile file;
  const Outcome outcome =
      Preloaded("intercepted_memory", "TFMBS_THRESHOLD=1 TFMBS_POOL=1M", file.path());
  EXPECT_EQ(outcome.out, "ok\n");
  EXPECT_GT(Count(outcome.log, "Fabric, ", " did not fit"), 0U) << outcome.log;
}

TEST_F(Intercept, BadSettingsAreToldAndReplaced) {
  const PatternFile file;
  const Outcome outcome =
      Preloaded("intercepted_memory", "TFMBS_THRESHOLD=many TFMBS_POOL=9X", file.path());
  EXPECT_EQ(outcome.out, "ok\n");
  EXPECT_THAT(outcome.log, HasSubstr("TFMBS_THRESHOLD is a number of bytes such as 64K or 1G"));
  EXPECT_THAT(outcome.log, HasSubstr("TFMBS_POOL"));
}

struct Result {
  std::string kind;
  double value = 0;
  double magnitude = 0;
};

std::vector<Result> Results(const std::string& out) {
  std::vector<Result> results;
  std::istringstream lines(out);
  for (Result r; lines >> r.kind >> r.value >> r.magnitude;) results.push_back(r);
  return results;
}

class BlasProgram : public Intercept, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    if (access(Program(GetParam()).c_str(), X_OK) != 0) {
      GTEST_SKIP() << "libblas-dev was not installed when the tests were built";
    }
  }
};

// Ternary weights: what int8 and float rounding cost. Others: what eight planes at most leave.
TEST_P(BlasProgram, ProductsOfAnUnmodifiedProgramAreWithinTheirBounds) {
  const std::vector<Result> plain = Results(Plain(GetParam()).out);
  const Outcome outcome = Preloaded(GetParam(), "");
  const std::vector<Result> fabric = Results(outcome.out);
  ASSERT_EQ(plain.size(), 2U * 3 * (2 * 300 + 5 * 300 + 5 * 500));
  ASSERT_EQ(fabric.size(), plain.size());
  const std::map<std::string, double> bounds = {{"ternary", 5e-5}, {"other", 0.01}};
  std::map<std::string, double> worst;
  size_t different = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double error = std::fabs(fabric[i].value - plain[i].value);
    different += error > 0 ? 1 : 0;
    ASSERT_LE(error, bounds.at(plain[i].kind) * plain[i].magnitude) << i;
    double& share = worst[plain[i].kind];
    share = std::max(share, error / plain[i].magnitude);
  }
  std::printf("largest error, as a share of sum |w| times max |x|: ternary %.2g, other %.2g\n",
              worst["ternary"], worst["other"]);
  // All 24 calls but the first of each matrix and direction. (A matrix may have its predecessor's
  // address, and is then no stranger.)
  EXPECT_GE(Count(outcome.log, "products: ", " on the Fabric"), 20U) << outcome.log;
  EXPECT_GT(different, 0U);
}

TEST_P(BlasProgram, ValidationComparesEveryResultAndGivesTheProgramsOwn) {
  const std::string plain = Plain(GetParam()).out;
  const Outcome outcome = Preloaded(GetParam(), "TFMBS_VALIDATE=1");
  EXPECT_EQ(outcome.out, plain);
  EXPECT_GT(Count(outcome.log, "ternarised; ", " results compared"), 10000U) << outcome.log;
  EXPECT_EQ(Count(outcome.log, "compared, ", " beyond"), 0U) << outcome.log;
}

TEST_P(BlasProgram, WeightsThatAreNotNearEnoughStayOnTheHost) {
  const Outcome outcome = Preloaded(GetParam(), "TFMBS_MAX_ERROR=0 TFMBS_VERBOSE=1");
  EXPECT_THAT(outcome.log, HasSubstr("not near enough to ternary"));
  const std::vector<Result> plain = Results(Plain(GetParam()).out);
  const std::vector<Result> fabric = Results(outcome.out);
  ASSERT_EQ(fabric.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i].kind == "other") {
      ASSERT_EQ(fabric[i].value, plain[i].value);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(With, BlasProgram,
                         ::testing::Values("intercepted_plain_blas", "intercepted_system_blas"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name == "intercepted_plain_blas" ? "PlainLoops" : "SystemBlas";
                         });

TEST_F(Intercept, CooperatingProgramsRegisterWeightsAndRunWithoutTheLibraryToo) {
  const std::string plain = Plain("intercepted_cooperating").out;
  EXPECT_THAT(plain, HasSubstr("registered -2"));
  const std::string out = Preloaded("intercepted_cooperating", "").out;
  EXPECT_THAT(out, HasSubstr("registered 0"));
  double on_host[2];
  double on_fabric[2];
  ASSERT_EQ(std::sscanf(plain.c_str(), "registered -2 y %lf %lf", &on_host[0], &on_host[1]), 2);
  ASSERT_EQ(std::sscanf(out.c_str(), "registered 0 y %lf %lf", &on_fabric[0], &on_fabric[1]), 2);
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(on_fabric[i], on_host[i], 1.5e-4 * 96 * 0.5 * 5);
  EXPECT_THAT(out, HasSubstr("unregistered 0 -1 fabric 1 beyond 0"));
}

TEST_F(Intercept, ValidationNoticesAPromiseThatWasBroken) {
  const std::string plain = Plain("intercepted_cooperating", "break").out;
  const Outcome outcome = Preloaded("intercepted_cooperating", "TFMBS_VALIDATE=1", "break");
  EXPECT_THAT(outcome.out, HasSubstr("fabric 1 beyond 1"));
  const auto line_of = [](const std::string& out) {
    return out.substr(out.find(" y "), out.find('\n') - out.find(" y "));
  };
  EXPECT_EQ(line_of(outcome.out), line_of(plain));
}

}  // namespace
}  // namespace intercept
