#include "engine/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace engine {
namespace {

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;  // also for "max"
  return number;
}

std::optional<uint64_t> SystemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string name;
    uint64_t kibibytes = 0;
    if (fields >> name >> kibibytes && name == "MemAvailable:") return kibibytes * 1024;
  }
  return std::nullopt;
}

// What the tightest limit on the way from this process's cgroup to the root leaves.
std::optional<uint64_t> CgroupAvailable() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  std::string path;
  while (std::getline(file, line)) {
    if (line.starts_with("0::")) path = line.substr(3);
  }
  std::optional<uint64_t> available;
  while (true) {
    const std::string directory = "/sys/fs/cgroup" + path;
    const std::optional<uint64_t> limit = ReadNumber(directory + "/memory.max");
    const std::optional<uint64_t> used = ReadNumber(directory + "/memory.current");
    if (limit && used) {
      const uint64_t left = *limit - std::min(*limit, *used);
      available = std::min(available.value_or(left), left);
    }
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return available;
    path.resize(slash);
  }
}

}  // namespace

uint64_t AvailableMemoryBytes() {
  const std::optional<uint64_t> system = SystemAvailable();
  const std::optional<uint64_t> cgroup = CgroupAvailable();
  if (system && cgroup) return std::min(*system, *cgroup);
  return system.value_or(cgroup.value_or(0));
}

}  // namespace engine
