// Property: what the kernels of very different machines say is read as it is, and each thing that
// costs speed or fails is found, with something to do about it.
#include "cli/diagnosis.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace cli {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Verdict = Finding::Verdict;

constexpr uint64_t kGiB = 1u << 30;

// /proc and /sys of some machine, as files.
class Root {
 public:
  Root() : path_(testing::TempDir() + "tern_root_" + std::to_string(getpid())) {
    fs::remove_all(path_);
  }
  ~Root() { fs::remove_all(path_); }
  Root& File(const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(path_ + name).parent_path());
    std::ofstream(path_ + name) << text;
    return *this;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A laptop: two cores of two threads, no cgroup limits, slow governor.
void WriteLaptop(Root& root) {
  root.File("/proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-7500U "
            "CPU @ 2.70GHz\nflags\t\t: fpu sse4_2 avx avx2 fma f16c\nbugs\t\t: x\n")
      .File("/sys/devices/system/cpu/online", "0-3\n")
      .File("/sys/devices/system/cpu/smt/active", "1\n")
      .File("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
      .File("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n")
      .File("/sys/devices/system/node/online", "0\n")
      .File("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
      .File("/proc/self/status", "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n")
      .File("/proc/self/cgroup", "0::/user.slice/user-1000.slice\n")
      .File("/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
      .File("/sys/fs/cgroup/user.slice/memory.max", "max\n")
      .File("/proc/meminfo",
            "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n"
            "SwapTotal: 4194304 kB\nSwapFree: 1048576 kB\n")
      .File("/proc/loadavg", "3.10 1.00 0.50 1/200 1\n")
      .File("/proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n"
            "Max open files            256                  512                  files     \n")
      .File("/proc/sys/kernel/osrelease", "6.1.0\n");
}

// A container on a server with two sockets: a quota and a memory limit on the way up.
void WriteContainer(Root& root) {
  root.File("/proc/cpuinfo",
            "model name\t: AMD EPYC 9B45\nflags\t\t: avx2 fma f16c avx512f avx512bw avx512_vnni "
            "avx512_vbmi hypervisor\n")
      .File("/sys/devices/system/cpu/online", "0-95\n")
      .File("/sys/devices/system/node/online", "0-1\n")
      .File("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
      .File("/proc/self/status", "Cpus_allowed_list:\t0-7,48-55\n")
      .File("/proc/self/cgroup", "0::/kubepods/pod1/c1\n")
      .File("/sys/fs/cgroup/kubepods/cpu.max", "9000000 100000\n")
      .File("/sys/fs/cgroup/kubepods/pod1/cpu.max", "350000 100000\n")
      .File("/sys/fs/cgroup/kubepods/pod1/memory.max", "4294967296\n")
      .File("/sys/fs/cgroup/kubepods/pod1/memory.current", "1073741824\n")
      .File("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n")
      .File("/proc/meminfo", "MemTotal: 201326592 kB\nMemAvailable: 100663296 kB\n")
      .File("/proc/loadavg", "0.20 0.2 0.2 1/9 1\n")
      .File("/proc/self/limits",
            "Max open files            1048576              1048576              files     \n");
}

TEST(MachineFacts, Laptop) {
  Root root;
  WriteLaptop(root);
  const MachineFacts facts = ReadMachineFacts(root.path());
  EXPECT_EQ(facts.cpu, "Intel(R) Core(TM) i7-7500U CPU @ 2.70GHz");
  EXPECT_THAT(facts.features, ElementsAre("avx2", "fma", "f16c"));
  EXPECT_FALSE(facts.hypervisor);
  EXPECT_EQ(facts.online_cpus, 4);
  EXPECT_EQ(facts.allowed_cpus, 4);
  EXPECT_EQ(facts.smt, true);
  EXPECT_FALSE(facts.cgroup_cpus);
  EXPECT_FALSE(facts.cgroup_memory);
  EXPECT_THAT(facts.governors, ElementsAre("powersave"));
  EXPECT_EQ(facts.huge_pages, "never");
  EXPECT_EQ(facts.numa_nodes, 1);
  EXPECT_EQ(facts.memory_free(), 8 * kGiB);
  EXPECT_EQ(facts.swap_used, 3 * kGiB);
  EXPECT_EQ(facts.load, 3.10);
  EXPECT_EQ(facts.open_files_soft, 256U);
  EXPECT_EQ(facts.open_files_hard, 512U);
  EXPECT_EQ(facts.kernel, "6.1.0");
}

TEST(MachineFacts, ContainerHasTheTightestLimitOnTheWayUp) {
  Root root;
  WriteContainer(root);
  const MachineFacts facts = ReadMachineFacts(root.path());
  EXPECT_TRUE(facts.hypervisor);
  EXPECT_EQ(facts.online_cpus, 96);
  EXPECT_EQ(facts.allowed_cpus, 16);
  EXPECT_EQ(facts.cgroup_cpus, 3.5);
  EXPECT_EQ(facts.usable_cpus(), 3.5);
  EXPECT_EQ(facts.cgroup_memory, 4 * kGiB);
  EXPECT_EQ(facts.memory_free(), 3 * kGiB);
  EXPECT_EQ(facts.numa_nodes, 2);
  EXPECT_TRUE(facts.governors.empty());
}

TEST(MachineFacts, NothingToReadIsNoError) {
  const MachineFacts facts = ReadMachineFacts("/nonexistent");
  EXPECT_EQ(facts.cpu, "");
  EXPECT_EQ(facts.memory_free(), 0U);
  EXPECT_FALSE(facts.open_files_hard);
  EXPECT_FALSE(CountCpuList(""));
  EXPECT_FALSE(CountCpuList("3-1"));
  EXPECT_FALSE(CountCpuList("a"));
  EXPECT_EQ(CountCpuList("0-3,8,10-11\n"), 7);
}

Finding Find(const std::vector<Finding>& findings, const std::string& id) {
  const auto found = std::find_if(findings.begin(), findings.end(),
                                  [&](const Finding& finding) { return finding.id == id; });
  EXPECT_NE(found, findings.end()) << id;
  return found == findings.end() ? Finding{} : *found;
}

TEST(Diagnosis, EveryFaultOfTheLaptopIsFoundWithAdvice) {
  Root root;
  WriteLaptop(root);
  const auto findings =
      DiagnoseMachine(ReadMachineFacts(root.path()), {"avx2", "avx2"}, 4, "no counter", 1024);
  EXPECT_EQ(Find(findings, "cpu").verdict, Verdict::kNote);
  EXPECT_EQ(Find(findings, "load").verdict, Verdict::kWarning);
  EXPECT_THAT(Find(findings, "governor").advice, HasSubstr("performance"));
  EXPECT_EQ(Find(findings, "huge_pages").verdict, Verdict::kWarning);
  EXPECT_EQ(Find(findings, "numa").verdict, Verdict::kGood);
  EXPECT_EQ(Find(findings, "open_files").verdict, Verdict::kWarning);
  EXPECT_THAT(Find(findings, "open_files").found, HasSubstr("512"));
  EXPECT_THAT(Find(findings, "cores").advice, HasSubstr("--threads 2"));
  EXPECT_THAT(Find(findings, "memory").advice, HasSubstr("3.0 GiB"));
  EXPECT_THAT(Find(findings, "energy").found, HasSubstr("no counter"));
  for (const Finding& finding : findings) {
    EXPECT_TRUE(finding.found.ends_with('.')) << finding.found;
    EXPECT_EQ(finding.verdict == Verdict::kWarning && finding.advice.empty(), false) << finding.id;
  }
}

TEST(Diagnosis, ContainersQuotaAndSocketsAreFound) {
  Root root;
  WriteContainer(root);
  const MachineFacts facts = ReadMachineFacts(root.path());
  const auto findings = DiagnoseMachine(facts, {"avx512vbmi", "avx512vbmi"}, 16, "", 1024);
  EXPECT_EQ(Find(findings, "cpu").verdict, Verdict::kGood);
  EXPECT_EQ(Find(findings, "cores").verdict, Verdict::kWarning);
  EXPECT_THAT(Find(findings, "cores").advice, HasSubstr("at most 3"));
  EXPECT_EQ(Find(findings, "numa").verdict, Verdict::kWarning);
  EXPECT_THAT(Find(findings, "governor").found, HasSubstr("virtual machine"));
  EXPECT_EQ(Find(findings, "open_files").verdict, Verdict::kGood);
  EXPECT_EQ(Find(findings, "energy").verdict, Verdict::kGood);
  // With as many threads as it has CPUs only the quota's gaps are left.
  EXPECT_EQ(Find(DiagnoseMachine(facts, {"avx2", "avx512"}, 3, "", 1), "cores").verdict,
            Verdict::kNote);
  EXPECT_THAT(Find(DiagnoseMachine(facts, {"avx2", "avx512"}, 3, "", 1), "cpu").advice,
              HasSubstr("TERN_FORCE_ISA"));
}

TEST(Diagnosis, ModelIsSetAgainstTheMemoryThatIsFree) {
  MachineFacts facts;
  facts.memory_available = 4 * kGiB;
  ModelFacts model{.name = "m", .weight_bytes = 1 * kGiB, .kv_bytes = 1 * kGiB, .context = 4096};
  EXPECT_EQ(DiagnoseModel(facts, model)[0].verdict, Verdict::kGood);
  model.kv_bytes = 2 * kGiB + 800'000'000;
  EXPECT_EQ(DiagnoseModel(facts, model)[0].verdict, Verdict::kWarning);
  model.kv_bytes = 4 * kGiB;
  EXPECT_EQ(DiagnoseModel(facts, model)[0].verdict, Verdict::kProblem);
  EXPECT_THAT(DiagnoseModel(facts, model)[0].advice, HasSubstr("--context-length"));
  model.weight_bytes = 5 * kGiB;
  EXPECT_EQ(DiagnoseModel(facts, model)[0].verdict, Verdict::kProblem);
  EXPECT_THAT(DiagnoseModel(facts, model)[0].advice, HasSubstr("smaller model"));
  EXPECT_EQ(DiagnoseModel(facts, {.error = "no GGUF."})[0].verdict, Verdict::kProblem);
}

TEST(Diagnosis, SpeedIsSetAgainstTheLimit) {
  MachineFacts facts;
  facts.memory_available = 4 * kGiB;
  ModelFacts model{.name = "m",
                   .weight_bytes = kGiB,
                   .context = 8,
                   .bytes_per_token = 5e8,
                   .tokens_per_second = 50,
                   .limit_tokens_per_second = 60};
  EXPECT_EQ(Find(DiagnoseModel(facts, model), "model_speed").verdict, Verdict::kGood);
  EXPECT_THAT(Find(DiagnoseModel(facts, model), "model_speed").found, HasSubstr("60.0 tokens/s"));
  model.tokens_per_second = 10;
  EXPECT_EQ(Find(DiagnoseModel(facts, model), "model_speed").verdict, Verdict::kWarning);
  model.bytes_per_token = 1e6;  // from the caches: no warning
  EXPECT_EQ(Find(DiagnoseModel(facts, model), "model_speed").verdict, Verdict::kGood);
  EXPECT_EQ(DiagnoseSpeed(facts, {40e9, 1e12, 2})[0].verdict, Verdict::kGood);
  EXPECT_EQ(DiagnoseSpeed(facts, {5e9, 1e12, 2})[0].verdict, Verdict::kWarning);
}

}  // namespace
}  // namespace cli
