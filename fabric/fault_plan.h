#pragma once

#include <cstdint>
#include <string>

namespace fabric {

// Which faults the mock driver makes up. All rates are shares of 1; the choices follow from the
// seed and the order of the submissions.
struct FaultPlan {
  double timeout = 0;       // of submissions: accepted and never finished
  double busy = 0;          // of submissions: refused as by a full queue
  double corrupt = 0;       // of submissions: one bit of one result changes on its way back
  double flip = 0;          // of trits: each becomes one of the other two values when it is loaded
  uint64_t disconnect = 0;  // after so many submissions the device is gone; 0 = never
  uint64_t seed = 0;

  bool operator==(const FaultPlan&) const = default;
};

// "timeout=0.01,corrupt=0.05,disconnect=1000"; "" is no fault. Throws std::invalid_argument with a
// clause that begins with "must be".
FaultPlan ParseFaultPlan(const std::string& text);
// What ParseFaultPlan() reads back as the same plan.
std::string FaultPlanText(const FaultPlan& plan);

}  // namespace fabric
