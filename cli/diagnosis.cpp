#include "cli/diagnosis.h"

#include <algorithm>
#include <cstdio>

namespace cli {
namespace {

using Verdict = Finding::Verdict;

// In MiB where that says more.
std::string Gibibytes(uint64_t bytes) {
  char text[32];
  const bool small = bytes < (1u << 30);
  std::snprintf(text, sizeof text, small ? "%.0f MiB" : "%.1f GiB",
                static_cast<double>(bytes) / (small ? 1u << 20 : 1u << 30));
  return text;
}

std::string Number(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

Finding Cpu(const MachineFacts& facts, const IsaFacts& isa) {
  Finding finding{.id = "cpu"};
  finding.found =
      (facts.cpu.empty() ? "The CPU has no name" : facts.cpu) + "; " +
      (facts.features.empty() ? "none of the features that kernels use" : Join(facts.features)) +
      "; kernels " + isa.chosen + ".";
  if (isa.chosen != isa.best) {
    finding.verdict = Verdict::kWarning;
    finding.advice = "TERN_FORCE_ISA chooses " + isa.chosen + "; unset it to use " + isa.best + ".";
  } else if (isa.chosen == "scalar") {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        "Only the plain C++ kernels run here, at a small part of the speed; a CPU with AVX2 (2013 "
        "and later) is needed.";
  } else if (isa.chosen == "avx2" || isa.chosen == "avxvnni") {
    finding.verdict = Verdict::kNote;
    finding.advice = "CPUs with AVX-512 VNNI compute prompts about twice as fast.";
  }
  return finding;
}

Finding Cores(const MachineFacts& facts, int threads) {
  Finding finding{.id = "cores"};
  finding.found = std::to_string(facts.online_cpus) + " CPUs, " +
                  std::to_string(facts.allowed_cpus) + " of them allowed by affinity";
  if (facts.cgroup_cpus) {
    finding.found += ", the cgroup's quota is " + Number(*facts.cgroup_cpus, 1);
  }
  finding.found += "; " + std::to_string(threads) + " compute threads.";
  const double usable = facts.usable_cpus();
  if (threads > usable) {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        "There are more threads than CPUs to run them: the slowest one sets the pace. "
        "Set --threads to at most " +
        std::to_string(std::max(1, static_cast<int>(usable))) + ".";
  } else if (facts.cgroup_cpus && *facts.cgroup_cpus < facts.allowed_cpus) {
    finding.verdict = Verdict::kNote;
    finding.advice =
        "A quota stops all threads for the rest of a period when it is used up; a "
        "cpuset (--cpuset-cpus) of whole CPUs has no such gaps.";
  } else if (facts.smt.value_or(false) && threads > 1 && 2 * threads > facts.allowed_cpus) {
    finding.verdict = Verdict::kNote;
    finding.advice = "CPUs come in pairs that share a core (SMT): try --threads " +
                     std::to_string(std::max(1, facts.allowed_cpus / 2)) +
                     " too; decoding is bound by memory and often no slower.";
  }
  return finding;
}

Finding Load(const MachineFacts& facts) {
  Finding finding{.id = "load"};
  const double load = facts.load.value_or(0);
  finding.found = "Load average " + Number(load, 2) + ".";
  // The doctor itself has only begun.
  constexpr double kQuiet = 0.5;
  if (load > kQuiet * std::max(1, facts.online_cpus)) {
    finding.verdict = Verdict::kWarning;
    finding.advice = "Others use this machine now: what is measured below is less than it can do.";
  }
  return finding;
}

Finding Governor(const MachineFacts& facts) {
  Finding finding{.id = "governor"};
  if (facts.governors.empty()) {
    finding.found = std::string("The kernel shows no frequency governor") +
                    (facts.hypervisor ? "; the host of this virtual machine has it." : ".");
    return finding;
  }
  finding.found = "Frequency governor " + Join(facts.governors) + ".";
  const bool slow =
      std::any_of(facts.governors.begin(), facts.governors.end(), [](const std::string& governor) {
        return governor == "powersave" || governor == "ondemand" || governor == "conservative";
      });
  if (slow) {
    finding.verdict = Verdict::kNote;
    finding.advice =
        "`cpupower frequency-set -g performance` saves the time of raising the clock "
        "at each request.";
  }
  return finding;
}

Finding HugePages(const MachineFacts& facts) {
  Finding finding{.id = "huge_pages"};
  finding.found = facts.huge_pages.empty() ? "The kernel has no transparent huge pages."
                                           : "Transparent huge pages: " + facts.huge_pages + ".";
  if (facts.huge_pages != "always" && facts.huge_pages != "madvise") {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`: with small "
        "pages, reading the weights misses the TLB.";
  }
  return finding;
}

Finding Numa(const MachineFacts& facts) {
  Finding finding{.id = "numa"};
  if (facts.numa_nodes <= 1) {
    finding.found = "One memory node.";
    return finding;
  }
  finding.found = std::to_string(facts.numa_nodes) + " memory nodes.";
  finding.verdict = Verdict::kWarning;
  finding.advice =
      "Weights lie where they were loaded, and the other nodes read them through the "
      "link between: run one server per node (numactl --cpunodebind=N --membind=N).";
  return finding;
}

Finding Memory(const MachineFacts& facts) {
  Finding finding{.id = "memory"};
  finding.found = Gibibytes(facts.memory_free()) + " free of " + Gibibytes(facts.memory_total);
  if (facts.cgroup_memory) {
    finding.found += ", limited to " + Gibibytes(*facts.cgroup_memory) + " by the cgroup";
  }
  finding.found += ".";
  constexpr uint64_t kMuchSwap = 1u << 30;
  if (facts.swap_used > kMuchSwap) {
    finding.verdict = Verdict::kNote;
    finding.advice = Gibibytes(facts.swap_used) +
                     " are swapped out: memory was short before. Weights that are swapped out cost "
                     "seconds per token.";
  }
  return finding;
}

Finding OpenFiles(const MachineFacts& facts, uint32_t max_connections) {
  Finding finding{.id = "open_files"};
  if (!facts.open_files_hard) {
    finding.found = "Files may be opened without limit.";
    return finding;
  }
  finding.found = "At most " + std::to_string(*facts.open_files_hard) +
                  " open files (the server raises the soft limit of " +
                  std::to_string(facts.open_files_soft.value_or(0)) + ").";
  constexpr uint64_t kOthers = 64;  // model, log, listening, event loops
  if (*facts.open_files_hard < max_connections + kOthers) {
    finding.verdict = Verdict::kWarning;
    finding.advice = "That is fewer than server.max_connections (" +
                     std::to_string(max_connections) +
                     ") needs: raise LimitNOFILE= or `ulimit -Hn`, or lower --max-connections.";
  }
  return finding;
}

Finding Energy(const std::string& problem) {
  Finding finding{.id = "energy"};
  if (problem.empty()) {
    finding.found = "The energy counters of the processor (RAPL) can be read.";
    return finding;
  }
  finding.verdict = Verdict::kNote;
  finding.found = "Energy is not measured: " + problem + ".";
  return finding;
}

}  // namespace

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "good";
    case Verdict::kNote:
      return "note";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kProblem:
      return "problem";
  }
  return "";
}

std::vector<Finding> DiagnoseMachine(const MachineFacts& facts, const IsaFacts& isa, int threads,
                                     const std::string& energy_problem, uint32_t max_connections) {
  return {Cpu(facts, isa),       Cores(facts, threads),
          Load(facts),           Governor(facts),
          HugePages(facts),      Numa(facts),
          Memory(facts),         OpenFiles(facts, max_connections),
          Energy(energy_problem)};
}

std::vector<Finding> DiagnoseSpeed(const MachineFacts& facts, const SpeedFacts& speed) {
  Finding finding{.id = "speed"};
  finding.found = "Memory is read at " + Number(speed.read_bytes_per_second / 1e9, 1) +
                  " GB/s, int8 is multiplied at " + Number(speed.int8_macs_per_second / 1e12, 2) +
                  " T MAC/s, both with " + std::to_string(speed.threads) + " threads.";
  // One channel of DDR4-2400 has 19 GB/s.
  constexpr double kOneChannel = 12e9;
  if (speed.read_bytes_per_second < kOneChannel) {
    finding.verdict = Verdict::kWarning;
    finding.advice = facts.load.value_or(0) > 1
                         ? "That is little: measure again when the machine is quiet."
                         : "That is little: are all memory channels populated, and is the clock of "
                           "the memory as it should be?";
  }
  return {finding};
}

std::vector<Finding> DiagnoseModel(const MachineFacts& facts, const ModelFacts& model) {
  Finding fit{.id = "model_memory"};
  if (!model.error.empty()) {
    fit.verdict = Verdict::kProblem;
    fit.found = "The model cannot be loaded: " + model.error;
    fit.advice = "`tern inspect` shows what is in the file.";
    return {fit};
  }
  const uint64_t needed = model.weight_bytes + model.kv_bytes;
  fit.found = model.name + " needs " + Gibibytes(needed) + ": weights " +
              Gibibytes(model.weight_bytes) + ", and " + Gibibytes(model.kv_bytes) +
              " for one context of " + std::to_string(model.context) + " tokens.";
  const uint64_t free = facts.memory_free();
  if (model.weight_bytes > free) {
    fit.verdict = Verdict::kProblem;
    fit.advice = "Only " + Gibibytes(free) + " are free: use a smaller model, or free memory.";
  } else if (needed > free) {
    fit.verdict = Verdict::kProblem;
    fit.advice = "Only " + Gibibytes(free) +
                 " are free: take a smaller --context-length, or "
                 "--kv-type q8.";
  } else if (needed > free - free / 10) {
    fit.verdict = Verdict::kWarning;
    fit.advice =
        "That leaves less than a tenth of what is free for requests that run beside each "
        "other.";
  }
  std::vector<Finding> findings = {fit};
  if (model.limit_tokens_per_second <= 0) return findings;
  Finding speed{.id = "model_speed"};
  speed.found = "Expect up to " + Number(model.limit_tokens_per_second, 1) +
                " tokens/s for one conversation (" + Number(model.bytes_per_token / 1e6, 1) +
                " MB per token)";
  if (model.tokens_per_second > 0) {
    const double share = model.tokens_per_second / model.limit_tokens_per_second;
    speed.found += "; measured now: " + Number(model.tokens_per_second, 1) + " tokens/s, " +
                   Number(100 * share, 0) + " % of that";
    constexpr double kPoor = 0.4;
    // A small model does not read its weights from DRAM, and its steps are all overhead.
    constexpr double kSmall = 64e6;
    if (share < kPoor && model.bytes_per_token > kSmall) {
      speed.verdict = Verdict::kWarning;
      speed.advice =
          "Something takes the rest: other processes, a quota, a low clock, or too many "
          "threads. `tern bench` measures in depth.";
    }
  }
  speed.found += ".";
  findings.push_back(speed);
  return findings;
}

}  // namespace cli
