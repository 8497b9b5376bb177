#include "server/energy_meter.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

namespace server {
namespace {

namespace fs = std::filesystem;

std::string ReadWord(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

// errno says why not.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  errno = 0;
  std::ifstream file(path);
  uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

}  // namespace

EnergyMeter::EnergyMeter(const Options& options) {
  FindZones(options.root);
  if (readable()) thread_ = std::thread([this, options] { KeepLooking(options.look_seconds); });
}

EnergyMeter::~EnergyMeter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// Zones called package-N. A package may be there twice, by MSR and by MMIO; the former counts.
void EnergyMeter::FindZones(const std::string& root) {
  std::vector<std::string> folders;
  std::error_code error;
  for (fs::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    folders.push_back(entry->path().string());
  }
  const auto is_mmio = [](const std::string& folder) {
    return folder.find("-mmio") != std::string::npos;
  };
  std::sort(folders.begin(), folders.end(), [&](const std::string& a, const std::string& b) {
    return std::pair(is_mmio(a), a) < std::pair(is_mmio(b), b);
  });
  int refused = 0;
  for (const std::string& folder : folders) {
    const std::string name = ReadWord(folder + "/name");
    if (!name.starts_with("package-")) continue;
    const bool known = std::any_of(zones_.begin(), zones_.end(),
                                   [&](const Zone& zone) { return zone.name == name; });
    if (known) continue;
    Zone zone{.name = name, .counter = folder + "/energy_uj"};
    const auto now = ReadNumber(zone.counter);
    if (!now) {
      problem_ = zone.counter + " cannot be read (" +
                 (errno != 0 ? std::strerror(errno) : "it holds no number") +
                 "); most systems allow it to root alone: give the service the group of the file, "
                 "or chmod g+r it at boot";
      ++refused;
      continue;
    }
    zone.range = ReadNumber(folder + "/max_energy_range_uj").value_or(0);
    zone.last = *now;
    zones_.push_back(std::move(zone));
  }
  std::sort(zones_.begin(), zones_.end(),
            [](const Zone& a, const Zone& b) { return a.name < b.name; });
  if (readable()) {
    problem_.clear();
  } else if (refused == 0) {
    problem_ = "there is no package with an energy counter in " + root +
               ", as in most virtual machines and containers";
  }
}

// REQUIRES: mutex_ is held.
void EnergyMeter::Look() {
  ++looks_;
  for (Zone& zone : zones_) {
    const auto now = ReadNumber(zone.counter);
    if (!now) continue;
    // Less than before: it wrapped once.
    if (*now >= zone.last) {
      zone.sum += *now - zone.last;
    } else if (zone.range >= zone.last) {
      zone.sum += zone.range - zone.last + *now;
    }
    zone.last = *now;
  }
}

void EnergyMeter::KeepLooking(double seconds) {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                            [this] { return stopping_; })) {
    Look();
  }
}

uint64_t EnergyMeter::looks() {
  const std::lock_guard lock(mutex_);
  return looks_;
}

std::vector<EnergyMeter::Package> EnergyMeter::Read() {
  const std::lock_guard lock(mutex_);
  Look();
  std::vector<Package> packages;
  for (const Zone& zone : zones_) {
    packages.push_back({zone.name, static_cast<double>(zone.sum) * 1e-6});
  }
  return packages;
}

}  // namespace server
