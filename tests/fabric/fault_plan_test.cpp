// A list of faults is read as it is written, and anything else is refused with what was expected.

#include "fabric/fault_plan.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace fabric {
namespace {

TEST(FaultPlan, ReadsWhatItWrites) {
  EXPECT_EQ(ParseFaultPlan(""), FaultPlan{});
  EXPECT_EQ(FaultPlanText({}), "");
  const FaultPlan plan{.timeout = 0.25, .corrupt = 1, .flip = 1e-5, .disconnect = 7, .seed = 99};
  EXPECT_EQ(FaultPlanText(plan), "timeout=0.25,corrupt=1,flip=1e-05,disconnect=7,seed=99");
  EXPECT_EQ(ParseFaultPlan(FaultPlanText(plan)), plan);
}

TEST(FaultPlan, RefusesWhatIsNoFault) {
  for (const char* text :
       {"timeout", "timeout=", "timeout=1.5", "timeout=-0.1", "timeout=nan", "fire=1", "busy=0.1,",
        ",busy=0.1", "disconnect=1.5", "disconnect=-1", "seed=x", "busy=0.1;flip=0.1", "=1"}) {
    EXPECT_THROW(ParseFaultPlan(text), std::invalid_argument) << text;
  }
}

}  // namespace
}  // namespace fabric
