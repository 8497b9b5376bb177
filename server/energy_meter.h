#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace server {

// Energy of the processor packages as the hardware counts it: RAPL, by Linux' powercap tree. It is
// that of the whole machine, whoever computes.
//
// Counters wrap, after a quarter of an hour at the soonest: a thread of the meter's own looks often
// enough, whether anybody asks or not.
//
// Threads: any.
class EnergyMeter {
 public:
  struct Options {
    std::string root = "/sys/class/powercap";
    double look_seconds = 30;
  };
  struct Package {
    std::string name;   // "package-0"
    double joules = 0;  // since the meter was made
  };

  explicit EnergyMeter(const Options& options);
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  // At least one package can be read.
  bool readable() const { return !zones_.empty(); }
  // A sentence when none can: there is no counter, or we may not read it.
  const std::string& problem() const { return problem_; }
  // In the order of their names.
  std::vector<Package> Read();
  // How often the counters have been read.
  uint64_t looks();

 private:
  struct Zone {
    std::string name;
    std::string counter;  // path of energy_uj
    uint64_t range = 0;   // the counter wraps after this, microjoules
    uint64_t last = 0;
    uint64_t sum = 0;
  };

  void FindZones(const std::string& root);
  void Look();
  void KeepLooking(double seconds);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Zone> zones_;
  std::string problem_;
  uint64_t looks_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace server
