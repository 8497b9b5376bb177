// Property: a forced instruction set is the active one, and one that can't be had is an error that
// names the choices.

#include "fabric/cpu/isa.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "fabric/kernels/kernel_table.h"

namespace fabric {
namespace {

constexpr Isa kAll[] = {Isa::kAvx512Vbmi, Isa::kAvx512Vnni, Isa::kAvxVnni, Isa::kAvx2,
                        Isa::kScalar};

TEST(Isa, SelectTakesTheBestOrTheForcedOne) {
  EXPECT_EQ(SelectIsa(nullptr, kAll), Isa::kAvx512Vbmi);
  EXPECT_EQ(SelectIsa("", kAll), Isa::kAvx512Vbmi);
  for (const Isa isa : kAll) EXPECT_EQ(SelectIsa(IsaName(isa).data(), kAll), isa);
}

TEST(Isa, UnknownAndUnsupportedNamesAreErrors) {
  const Isa only_scalar[] = {Isa::kScalar};
  EXPECT_THROW(SelectIsa("AVX2", kAll), std::runtime_error);
  EXPECT_THROW(SelectIsa("sse", kAll), std::runtime_error);
  try {
    SelectIsa("avx2", only_scalar);
    FAIL() << "accepted";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("supports scalar"), std::string::npos);
  }
}

TEST(Isa, ScalarIsAlwaysSupportedAndLast) {
  EXPECT_EQ(SupportedIsas().back(), Isa::kScalar);
  EXPECT_EQ(kernels::SupportedKernels().size(), SupportedIsas().size());
  for (size_t i = 0; i < SupportedIsas().size(); ++i) {
    EXPECT_EQ(kernels::SupportedKernels()[i].isa, SupportedIsas()[i]);
  }
}

// Runs this program again, with only PrintsActive, so that the choice is made afresh.
int ExitOfChildForcing(const char* name) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("TERN_FORCE_ISA", name, 1);
    setenv("TERN_ISA_TEST_CHILD", "1", 1);
    execl("/proc/self/exe", "isa_test", "--gtest_filter=Isa.ChildReportsItsActiveKernels",
          "--gtest_brief=1", nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

constexpr int kReportBase = 40;
constexpr int kReportRefused = 39;

TEST(Isa, ChildReportsItsActiveKernels) {
  if (std::getenv("TERN_ISA_TEST_CHILD") == nullptr) {
    EXPECT_EQ(kernels::ActiveKernels().isa, ActiveIsa());
    return;
  }
  try {
    _exit(kReportBase + static_cast<int>(kernels::ActiveKernels().isa));
  } catch (const std::runtime_error&) {
    _exit(kReportRefused);
  }
}

TEST(Isa, TheEnvironmentForcesTheActiveKernels) {
  for (const Isa isa : SupportedIsas()) {
    EXPECT_EQ(ExitOfChildForcing(IsaName(isa).data()), kReportBase + static_cast<int>(isa));
  }
  EXPECT_EQ(ExitOfChildForcing("mmx"), kReportRefused);
}

}  // namespace
}  // namespace fabric
