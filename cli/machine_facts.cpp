#include "cli/machine_facts.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

namespace cli {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string FirstLine(const std::string& path) {
  const std::string text = ReadFile(path);
  return text.substr(0, text.find('\n'));
}

std::optional<uint64_t> ToNumber(const std::string& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

// What follows "NAME:" in a file of such lines; empty when it is not there.
std::string Field(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    if (line.find_first_not_of(" \t", name.size()) != colon) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// x86 says "flags", Arm "Features".
void ReadCpu(const std::string& root, MachineFacts* facts) {
  const std::string text = ReadFile(root + "/proc/cpuinfo");
  facts->cpu = Field(text, "model name");
  std::istringstream flags(Field(text, "flags") + " " + Field(text, "Features"));
  const std::set<std::string> have{std::istream_iterator<std::string>(flags), {}};
  for (const char* known : {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni",
                            "avx512_vbmi", "amx_int8", "asimd", "asimddp", "sve"}) {
    if (have.contains(known)) facts->features.emplace_back(known);
  }
  facts->hypervisor = have.contains("hypervisor");
  facts->online_cpus = CountCpuList(FirstLine(root + "/sys/devices/system/cpu/online")).value_or(0);
  const std::string status = ReadFile(root + "/proc/self/status");
  facts->allowed_cpus =
      CountCpuList(Field(status, "Cpus_allowed_list")).value_or(facts->online_cpus);
  const std::string smt = FirstLine(root + "/sys/devices/system/cpu/smt/active");
  if (!smt.empty()) facts->smt = smt == "1";
  std::set<std::string> governors;
  std::error_code error;
  for (fs::directory_iterator entry(root + "/sys/devices/system/cpu", error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string governor = FirstLine(entry->path().string() + "/cpufreq/scaling_governor");
    if (!governor.empty()) governors.insert(governor);
  }
  facts->governors.assign(governors.begin(), governors.end());
}

// This process's cgroup (version 2) and each above it.
std::vector<std::string> CgroupFolders(const std::string& root) {
  std::vector<std::string> folders;
  std::istringstream lines(ReadFile(root + "/proc/self/cgroup"));
  std::string path = "/";
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("0::/")) path = line.substr(3);
  }
  for (;;) {
    folders.push_back(root + "/sys/fs/cgroup" + (path == "/" ? "" : path));
    if (path == "/" || path.empty()) return folders;
    path.resize(std::max<size_t>(path.rfind('/'), 1));
  }
}

void ReadCgroup(const std::string& root, MachineFacts* facts) {
  for (const std::string& folder : CgroupFolders(root)) {
    std::istringstream quota(FirstLine(folder + "/cpu.max"));
    double granted = 0;
    double period = 0;
    if (quota >> granted >> period && period > 0) {
      const double cpus = granted / period;
      facts->cgroup_cpus = std::min(facts->cgroup_cpus.value_or(cpus), cpus);
    }
    const auto limit = ToNumber(FirstLine(folder + "/memory.max"));
    if (!limit) continue;
    facts->cgroup_memory = std::min(facts->cgroup_memory.value_or(*limit), *limit);
    const uint64_t used = ToNumber(FirstLine(folder + "/memory.current")).value_or(0);
    const uint64_t left = *limit - std::min(*limit, used);
    facts->cgroup_left = std::min(facts->cgroup_left.value_or(left), left);
  }
}

void ReadMemory(const std::string& root, MachineFacts* facts) {
  const std::string text = ReadFile(root + "/proc/meminfo");
  const auto bytes = [&](const char* name) {
    return ToNumber(Field(text, name)).value_or(0) * 1024;
  };
  facts->memory_total = bytes("MemTotal");
  facts->memory_available = bytes("MemAvailable");
  facts->swap_used = bytes("SwapTotal") - std::min(bytes("SwapTotal"), bytes("SwapFree"));
  // "always [madvise] never"
  const std::string pages = FirstLine(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t open = pages.find('[');
  const size_t close = pages.find(']');
  if (open != std::string::npos && close != std::string::npos) {
    facts->huge_pages = pages.substr(open + 1, close - open - 1);
  }
  facts->numa_nodes = CountCpuList(FirstLine(root + "/sys/devices/system/node/online")).value_or(0);
}

// "Max open files            1024                 1048576              files"
void ReadLimits(const std::string& root, MachineFacts* facts) {
  std::istringstream lines(ReadFile(root + "/proc/self/limits"));
  constexpr std::string_view kOpenFiles = "Max open files";
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(kOpenFiles)) continue;
    std::istringstream fields(line.substr(kOpenFiles.size()));
    std::string soft;
    std::string hard;
    fields >> soft >> hard;
    facts->open_files_soft = ToNumber(soft);
    facts->open_files_hard = ToNumber(hard);
  }
}

}  // namespace

std::optional<int> CountCpuList(const std::string& list) {
  int count = 0;
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto first = ToNumber(part);
    const size_t dash = part.find('-');
    const auto last = dash == std::string::npos ? first : ToNumber(part.substr(dash + 1));
    if (!first || !last || *last < *first) return std::nullopt;
    count += static_cast<int>(*last - *first + 1);
  }
  return count == 0 ? std::nullopt : std::optional(count);
}

uint64_t MachineFacts::memory_free() const {
  return std::min(memory_available, cgroup_left.value_or(memory_available));
}

double MachineFacts::usable_cpus() const {
  const double cpus = allowed_cpus > 0 ? allowed_cpus : online_cpus;
  return std::min(cpus, cgroup_cpus.value_or(cpus));
}

MachineFacts ReadMachineFacts(const std::string& root) {
  MachineFacts facts;
  ReadCpu(root, &facts);
  ReadCgroup(root, &facts);
  ReadMemory(root, &facts);
  ReadLimits(root, &facts);
  const std::string load = FirstLine(root + "/proc/loadavg");
  double average = 0;
  if (std::istringstream(load) >> average) facts.load = average;
  facts.kernel = FirstLine(root + "/proc/sys/kernel/osrelease");
  return facts;
}

}  // namespace cli
