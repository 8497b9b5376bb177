#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cli {

// What the kernel says about this machine and about what this process may use of it. Absent or
// empty: the kernel does not say.
struct MachineFacts {
  std::string cpu;                    // model name
  std::vector<std::string> features;  // those that kernels are written for
  bool hypervisor = false;            // a virtual machine
  int online_cpus = 0;
  int allowed_cpus = 0;                   // by affinity
  std::optional<bool> smt;                // two threads per core
  std::optional<double> cgroup_cpus;      // the tightest cpu.max on the way up
  std::optional<uint64_t> cgroup_memory;  // the tightest memory.max, bytes
  std::vector<std::string> governors;     // of the CPUs, each once, sorted
  std::string huge_pages;                 // always | madvise | never
  int numa_nodes = 0;
  uint64_t memory_total = 0;            // bytes
  uint64_t memory_available = 0;        // of the machine
  std::optional<uint64_t> cgroup_left;  // of the tightest memory.max, bytes
  uint64_t swap_used = 0;               // bytes
  std::optional<double> load;           // of one minute
  std::optional<uint64_t> open_files_soft;
  std::optional<uint64_t> open_files_hard;
  std::string kernel;

  // What is free for a model.
  uint64_t memory_free() const;
  // CPUs that compute threads may really use.
  double usable_cpus() const;
};

// Reads /proc and /sys below `root` ("" = this machine's).
MachineFacts ReadMachineFacts(const std::string& root);

// "0-3,8" -> 5; nullopt for what is no list of CPUs.
std::optional<int> CountCpuList(const std::string& list);

}  // namespace cli
