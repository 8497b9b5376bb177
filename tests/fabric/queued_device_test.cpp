// Property: a device behind a queue gives the bits of the device itself; Submit() returns while the
// device works, in order, up to the bound of the queue; what fails is told by its own ticket alone;
// several devices behind queues work at the same time.

#include "fabric/queued_device.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "fabric/kernels/kernel_table.h"
#include "fabric/multi_device.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using testing::Bits;
using testing::Codes;
using testing::TernaryCase;

constexpr uint32_t kRows = 64;
constexpr uint32_t kCols = 320;

// Opens once, and tells how many wait before it.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void AwaitArrivals(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = false;
};

// A device that stops at a gate before each submission, and fails the one with this number.
class GatedDevice : public Device {
 public:
  explicit GatedDevice(Gate* gate, int failing = 0)
      : gate_(gate), failing_(failing), device_("sim", {}, kernels::ActiveKernels(), nullptr) {}
  std::string_view name() const override { return "gated"; }
  Status Upload(Matrix matrix, MatrixId* id) override {
    return device_.Upload(std::move(matrix), id);
  }
  Status Free(MatrixId id) noexcept override { return device_.Free(id); }
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override {
    gate_->Pass();
    return ++submissions_ == failing_ ? Status::kErrTimeout : device_.Submit(ops, ticket);
  }
  Status Wait(Ticket ticket) noexcept override { return device_.Wait(ticket); }
  DeviceCounters Counters() const noexcept override { return device_.Counters(); }
  size_t resident_bytes() const noexcept override { return device_.resident_bytes(); }

 private:
  Gate* gate_;
  int failing_;
  int submissions_ = 0;
  sim::SimDevice device_;
};

TernaryMatrix MatrixOf(uint32_t seed) {
  return TernaryCase::Make(kRows, kCols, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, seed)
      .matrix;
}

// A matrix on a device, an input, and room for the results of several submissions.
struct Work {
  explicit Work(Device& device, uint32_t seed = 1) {
    EXPECT_EQ(device.Upload(MatrixOf(seed), &id), Status::kOk);
  }
  ProjectionOp Op(size_t place, Epilogue epilogue = Epilogue::kStore) {
    return {.matrix = id,
            .x = &x.view,
            .y = y.data() + place * kRows,
            .y_stride = kRows,
            .epilogue = epilogue};
  }
  MatrixId id;
  Codes x = Codes::Make(ActivationKind::kInt8Token, 1, kCols, 3);
  std::vector<float> y = std::vector<float>(8 * kRows, 1.0F);
};

std::vector<float> Expected(uint32_t seed = 1) {
  sim::SimDevice device("sim", {}, kernels::ActiveKernels(), nullptr);
  Work work(device, seed);
  const ProjectionOp op = work.Op(0);
  EXPECT_EQ(Execute(device, {&op, 1}), Status::kOk);
  work.y.resize(kRows);
  return work.y;
}

std::vector<float> Place(const std::vector<float>& y, size_t place) {
  return {y.begin() + static_cast<ptrdiff_t>(place * kRows),
          y.begin() + static_cast<ptrdiff_t>((place + 1) * kRows)};
}

TEST(QueuedDevice, SubmitReturnsWhileTheDeviceWorksUpToTheBoundOfTheQueue) {
  Gate gate;
  QueuedDevice device(std::make_unique<GatedDevice>(&gate), 2);
  Work work(device);
  Ticket tickets[3];
  const auto start = std::chrono::steady_clock::now();
  const ProjectionOp first = work.Op(0);
  ASSERT_EQ(device.Submit({&first, 1}, &tickets[0]), Status::kOk);
  gate.AwaitArrivals(1);  // it is being worked on, and two more may wait
  for (size_t i = 1; i < 3; ++i) {
    const ProjectionOp op = work.Op(i);
    ASSERT_EQ(device.Submit({&op, 1}, &tickets[i]), Status::kOk);
  }
  const ProjectionOp refused = work.Op(3);
  Ticket none = 0;
  EXPECT_EQ(device.Submit({&refused, 1}, &none), Status::kErrBusy);
  EXPECT_EQ(device.Counters().faults[static_cast<size_t>(FaultKind::kBusy)], 1U);
  EXPECT_EQ(device.Counters().projections, 0U);
  const std::chrono::duration<double> beside = std::chrono::steady_clock::now() - start;
  gate.Open();
  // Ends may be asked for in any order.
  for (const size_t i : {2U, 0U, 1U}) EXPECT_EQ(device.Wait(tickets[i]), Status::kOk);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(Place(work.y, i), Expected());
  EXPECT_EQ(Place(work.y, 3), std::vector<float>(kRows, 1.0F)) << "what was refused did not run";
  EXPECT_EQ(device.Wait(tickets[0]), Status::kErrAddr) << "told once";
  EXPECT_EQ(device.Wait(99), Status::kErrAddr);
  const DeviceCounters counters = device.Counters();
  EXPECT_EQ(counters.projections, 3U);
  EXPECT_GT(counters.queue_busy_seconds, 0);
  EXPECT_GT(counters.queue_wait_seconds, 0);
  EXPECT_GT(beside.count(), 0);
}

TEST(QueuedDevice, SubmissionsRunInOrderOnWhatEarlierOnesWrote) {
  Gate gate;
  gate.Open();
  QueuedDevice device(std::make_unique<GatedDevice>(&gate), 16);
  Work work(device);
  std::vector<Ticket> tickets(8);
  // y = v, then y += v seven times: exact, for sums of powers of two of one number are.
  for (size_t i = 0; i < tickets.size(); ++i) {
    const ProjectionOp op = work.Op(0, i == 0 ? Epilogue::kStore : Epilogue::kAdd);
    ASSERT_EQ(device.Submit({&op, 1}, &tickets[i]), Status::kOk);
  }
  for (const Ticket ticket : tickets) EXPECT_EQ(device.Wait(ticket), Status::kOk);
  std::vector<float> expected = Expected();
  const std::vector<float> once = expected;
  for (int i = 0; i < 7; ++i) {
    for (uint32_t row = 0; row < kRows; ++row) expected[row] += once[row];
  }
  EXPECT_EQ(Bits(Place(work.y, 0)), Bits(expected));
}

TEST(QueuedDevice, AFailureIsToldByItsTicketAlone) {
  Gate gate;
  gate.Open();
  QueuedDevice device(std::make_unique<GatedDevice>(&gate, 2), 8);
  Work work(device);
  Ticket tickets[3];
  for (size_t i = 0; i < 3; ++i) {
    const ProjectionOp op = work.Op(i);
    ASSERT_EQ(device.Submit({&op, 1}, &tickets[i]), Status::kOk);
  }
  EXPECT_EQ(device.Wait(tickets[0]), Status::kOk);
  EXPECT_EQ(device.Wait(tickets[1]), Status::kErrTimeout);
  EXPECT_EQ(device.Wait(tickets[2]), Status::kOk);
  EXPECT_EQ(Place(work.y, 2), Expected());
}

TEST(QueuedDevice, WrongOpsAreRefusedBeforeTheyAreQueued) {
  Gate gate;
  gate.Open();
  QueuedDevice device(std::make_unique<GatedDevice>(&gate), 2);
  Work work(device);
  ProjectionOp op = work.Op(0);
  Ticket ticket = 0;
  EXPECT_EQ(device.Submit({&op, 1}, nullptr), Status::kErrAddr);
  op.y_stride = kRows - 1;
  EXPECT_EQ(device.Submit({&op, 1}, &ticket), Status::kErrAddr);
  op = work.Op(0);
  // What runs is done before its matrix goes.
  ASSERT_EQ(device.Submit({&op, 1}, &ticket), Status::kOk);
  EXPECT_EQ(device.Free(work.id), Status::kOk);
  EXPECT_EQ(device.Wait(ticket), Status::kOk);
  EXPECT_EQ(Place(work.y, 0), Expected());
  EXPECT_EQ(device.Submit({&op, 1}, &ticket), Status::kErrStale);
  EXPECT_EQ(device.Free(work.id), Status::kErrStale);
}

// Each device stops until both have work: were they given it one after the other, this would hang.
TEST(QueuedDevice, SeveralDevicesWorkAtTheSameTime) {
  Gate gate;
  std::vector<std::unique_ptr<Device>> devices;
  for (int i = 0; i < 2; ++i) {
    devices.push_back(std::make_unique<QueuedDevice>(std::make_unique<GatedDevice>(&gate), 2));
  }
  MultiDevice both(std::move(devices), FabricSplit::kRows, kernels::ActiveKernels());
  Work work(both);
  std::thread opener([&] {
    gate.AwaitArrivals(2);
    gate.Open();
  });
  const ProjectionOp op = work.Op(0);
  EXPECT_EQ(Execute(both, {&op, 1}), Status::kOk);
  opener.join();
  EXPECT_EQ(Place(work.y, 0), Expected());
}

TEST(QueuedDevice, IsMadeByItsOptionOnEveryDevice) {
  WorkerTeam team(2);
  for (const char* name : {"sim", "reference", "stub", "ioctl"}) {
    FabricOptions options;
    options.device = name;
    options.queue_depth = 4;
    options.watchdog_ms = 60'000;
    options.pool_bytes = 1 << 16;
    options.devices = 3;
    const auto device = CreateDevice(options, team);
    for (uint32_t seed = 1; seed < 12; ++seed) {
      Work work(*device, seed);
      const ProjectionOp op = work.Op(0);
      ASSERT_EQ(Execute(*device, {&op, 1}), Status::kOk);
      EXPECT_EQ(Place(work.y, 0), Expected(seed)) << name;
    }
    EXPECT_GT(device->Counters().queue_busy_seconds, 0) << name;
    EXPECT_EQ(device->Counters().TotalFaults(), 0U) << name;
  }
}

}  // namespace
}  // namespace fabric
