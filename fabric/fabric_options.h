#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fabric/activations.h"
#include "fabric/fault_plan.h"
#include "fabric/ternary_matrix.h"

namespace fabric {

// The modelled hardware (docs/fabric.md): only the account depends on it, never a result.
struct FabricGeometry {
  uint32_t lanes_per_tile = 15;
  uint32_t tiles = 4;  // 1..8
  double clock_hz = 250e6;
  uint32_t dispatch_cycles = 120;  // per kernel launch
};

// Picojoules per event, for the energy proxy. Sources in docs/fabric.md.
struct EnergyTable {
  double add = 0.1;
  double skip = 0.01;
  double sram_byte = 1.25;
  double dram_byte = 20.0;
  double link_byte = 10.0;
};

// A layout, and why, as a clause: "asked for".
struct LayoutChoice {
  TernaryLayout layout = TernaryLayout::kPanel2Bit;
  std::string reason;
};

// What decides which layout runs a ternary matrix best.
struct TernaryUse {
  // Implicit, for those who know nothing of the matrix.
  TernaryUse(ActivationKind a_activation, ScaleKind a_scales = ScaleKind::kTensor,
             double a_density = 1.0)
      : activation(a_activation), scales(a_scales), density(a_density) {}

  ActivationKind activation;
  ScaleKind scales;
  double density;  // share of weights that are not zero
};

// Which matrices are held as their non-zeros alone (TernaryLayout::kSparse).
enum class SparseChoice : uint8_t {
  kAuto,    // those that have enough zeros to run faster so, by measurement
  kNever,   // none
  kAlways,  // all: for tests
};

// How a matrix is shared out among several devices.
enum class FabricSplit : uint8_t {
  kRows,     // each has some rows; results lie side by side
  kColumns,  // each has some columns; integer sums are added before they are scaled
};

struct FabricOptions {
  std::string device = "sim";           // reference | sim | stub | ioctl
  bool account = true;                  // keep the exact skip/cycle/energy account
  std::optional<TernaryLayout> layout;  // of ternary matrices; empty = what measures faster
  SparseChoice sparse = SparseChoice::kAuto;
  FabricGeometry geometry;
  EnergyTable energy;

  // Bytes that ternary matrices may take on each device at one time; 0 = all of them stay. With a
  // bound the rest waits in memory or, when `store` is a folder, in a file there.
  uint64_t pool_bytes = 0;
  std::string store;
  // Submissions that wait at each device while a thread of its own works on one; 0 = a submission
  // is done when Submit() returns.
  uint32_t queue_depth = 0;

  uint32_t devices = 1;  // 1..16 of them, each as above
  FabricSplit split = FabricSplit::kRows;

  // One in so many products of planes is compared with the exact weights; 0 = none.
  uint32_t shadow_interval = 1000;

  // Of devices that can fail (stub, ioctl).
  double check_rate = 1.0;     // share of their results that the host verifies, 0..1
  uint32_t watchdog_ms = 500;  // a submission that takes longer has failed
  FaultPlan faults;            // that the mock driver of "ioctl" makes up
  std::string trace;           // file that gets a line per projection; empty = none
};

}  // namespace fabric
