// Property: nothing that comes through the driver interface is believed. Whatever a request says,
// the driver answers with an error or does exactly what it says, and afterwards it still computes
// the right bits.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "fabric/driver/ioctl_device.h"
#include "fabric/driver/mock_driver.h"
#include "tests/fabric/cases.h"

namespace fabric::driver {
namespace {

using testing::Bits;
using testing::Codes;
using testing::Random;
using testing::TernaryCase;

uint64_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// A page that no one may touch.
class ForbiddenPage {
 public:
  ForbiddenPage() : page_(mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~ForbiddenPage() { munmap(page_, kBytes); }
  ForbiddenPage(const ForbiddenPage&) = delete;
  ForbiddenPage& operator=(const ForbiddenPage&) = delete;
  uint64_t address() const { return AddressOf(page_); }

 private:
  static constexpr size_t kBytes = 4096;
  void* page_;
};

// A driver with one frame in its memory, and a product of it.
class Driver : public ::testing::Test {
 protected:
  void SetUp() override { Begin(""); }

  void Begin(const std::string& faults, uint64_t memory_bytes = 1 << 20) {
    FabricOptions options;
    options.faults = ParseFaultPlan(faults);
    driver_ = std::make_unique<MockDriver>(options, memory_bytes, team_);
    const TernaryFrame frame = ToFrame(
        TernaryCase::Make(kRows, kCols, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, 1).matrix,
        kPackingPt5);
    frame_bytes_ = frame.bytes;
    descriptor_ = frame.descriptor;
    trits_ = Store(frame.bytes.data(), frame.bytes.size());
    scales_ = Store(frame.scales.data(), frame.scales.size() * sizeof(float));
    descriptor_.base_addr = trits_;
  }

  template <typename T>
  int Call(Request request, T* argument) {
    return driver_->Ioctl(request, argument);
  }

  uint64_t Store(const void* bytes, size_t size) {
    auto alloc = MakeRequest<AllocRequest>();
    alloc.bytes = size;
    EXPECT_EQ(Call(Request::kAlloc, &alloc), 0);
    auto copy = MakeRequest<MemcpyRequest>();
    copy.handle = alloc.handle;
    copy.user_address = AddressOf(bytes);
    copy.bytes = size;
    EXPECT_EQ(Call(Request::kMemcpyTo, &copy), 0);
    return alloc.handle;
  }

  GemvRequest Gemv() {
    auto gemv = MakeRequest<GemvRequest>();
    gemv.frame = descriptor_;
    gemv.scales_handle = scales_;
    gemv.scale_kind = 1;
    gemv.activation = 1;
    gemv.tokens = kTokens;
    gemv.codes_address = AddressOf(x_.codes.data());
    gemv.code_stride = x_.view.code_stride;
    gemv.x_scales_address = AddressOf(x_.scales.data());
    gemv.x_scale_stride = 1;
    gemv.y_address = AddressOf(y_.data());
    gemv.y_stride = kRows;
    return gemv;
  }

  int Wait(uint64_t ticket, uint32_t timeout_ms = 60'000) {
    auto wait = MakeRequest<WaitRequest>();
    wait.ticket = ticket;
    wait.timeout_ms = timeout_ms;
    return Call(Request::kWait, &wait);
  }

  void ExpectRightBits() {
    std::fill(y_.begin(), y_.end(), -1.0F);
    GemvRequest gemv = Gemv();
    ASSERT_EQ(Call(Request::kSubmitGemv, &gemv), 0);
    ASSERT_EQ(Wait(gemv.ticket), 0);
    EXPECT_EQ(Bits(y_), Expected());
  }

  std::vector<uint32_t> Expected() {
    FabricOptions options;
    options.device = "reference";
    const auto reference = CreateDevice(options, team_);
    MatrixId id;
    EXPECT_EQ(reference->Upload(
                  TernaryCase::Make(kRows, kCols, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, 1)
                      .matrix,
                  &id),
              Status::kOk);
    std::vector<float> y(size_t{kTokens} * kRows);
    const ProjectionOp op{.matrix = id, .x = &x_.view, .y = y.data(), .y_stride = kRows};
    EXPECT_EQ(Execute(*reference, {&op, 1}), Status::kOk);
    return Bits(y);
  }

  static constexpr uint32_t kRows = 37;
  static constexpr uint32_t kCols = 130;
  static constexpr uint32_t kTokens = 3;

  WorkerTeam team_{2};
  std::unique_ptr<MockDriver> driver_;
  std::vector<uint8_t> frame_bytes_;
  FrameDescriptor descriptor_;
  uint64_t trits_ = 0;
  uint64_t scales_ = 0;
  Codes x_ = Codes::Make(ActivationKind::kInt8Token, kTokens, kCols, 2);
  std::vector<float> y_ = std::vector<float>(size_t{kTokens} * kRows);
};

TEST_F(Driver, ComputesWhatTheReferenceComputes) {
  ExpectRightBits();
  // Several products under one ticket.
  std::vector<float> second(y_.size());
  GemvRequest gemvs[] = {Gemv(), Gemv()};
  gemvs[1].y_address = AddressOf(second.data());
  auto submit = MakeRequest<SubmitRequest>();
  submit.gemvs_address = AddressOf(gemvs);
  submit.count = 2;
  ASSERT_EQ(Call(Request::kSubmit, &submit), 0);
  ASSERT_EQ(Wait(submit.ticket), 0);
  EXPECT_EQ(Bits(second), Expected());
}

TEST_F(Driver, GivesBackTheBytesThatItWasGiven) {
  std::vector<uint8_t> back(frame_bytes_.size());
  auto copy = MakeRequest<MemcpyRequest>();
  copy.handle = trits_;
  copy.user_address = AddressOf(back.data());
  copy.bytes = back.size();
  ASSERT_EQ(Call(Request::kMemcpyFrom, &copy), 0);
  EXPECT_EQ(back, frame_bytes_);
}

TEST_F(Driver, RequestsThatAreNotOfTheInterfaceAreRefused) {
  const ForbiddenPage page;
  EXPECT_EQ(driver_->Ioctl(Request::kAlloc, nullptr), -EFAULT);
  EXPECT_EQ(driver_->Ioctl(Request::kAlloc, reinterpret_cast<void*>(page.address())), -EFAULT);
  auto alloc = MakeRequest<AllocRequest>();
  alloc.bytes = 16;
  EXPECT_EQ(driver_->Ioctl(static_cast<Request>(0), &alloc), -ENOTTY);
  EXPECT_EQ(driver_->Ioctl(static_cast<Request>(99), &alloc), -ENOTTY);
  EXPECT_EQ(driver_->Ioctl(Request::kSubmitDma, &alloc), -ENOTSUP);
  alloc.header.size = sizeof alloc + 8;
  EXPECT_EQ(Call(Request::kAlloc, &alloc), -EINVAL);
  alloc = MakeRequest<AllocRequest>();
  alloc.bytes = 16;
  alloc.header.version = 2;
  EXPECT_EQ(Call(Request::kAlloc, &alloc), -ENOTSUP);
  ExpectRightBits();
}

TEST_F(Driver, MemoryIsBoundedAndHandlesGoStale) {
  auto alloc = MakeRequest<AllocRequest>();
  EXPECT_EQ(Call(Request::kAlloc, &alloc), -EINVAL) << "0 bytes";
  alloc.bytes = UINT64_MAX;
  EXPECT_EQ(Call(Request::kAlloc, &alloc), -ENOMEM);
  alloc.bytes = 1000;
  ASSERT_EQ(Call(Request::kAlloc, &alloc), 0);
  auto handle = MakeRequest<HandleRequest>();
  handle.handle = alloc.handle;
  EXPECT_EQ(Call(Request::kUnpin, &handle), -EINVAL);
  EXPECT_EQ(Call(Request::kPin, &handle), 0);
  EXPECT_EQ(Call(Request::kFree, &handle), -EBUSY);
  EXPECT_EQ(Call(Request::kUnpin, &handle), 0);
  EXPECT_EQ(Call(Request::kFree, &handle), 0);
  EXPECT_EQ(Call(Request::kFree, &handle), -ESTALE);
  EXPECT_EQ(Call(Request::kPin, &handle), -ESTALE);
  const uint64_t freed = alloc.handle;
  ASSERT_EQ(Call(Request::kAlloc, &alloc), 0);
  EXPECT_NE(alloc.handle, freed);
  EXPECT_EQ(Call(Request::kFree, &handle), -ESTALE) << "the old handle of the same buffer";
  handle.handle = UINT64_MAX;
  EXPECT_EQ(Call(Request::kFree, &handle), -ESTALE);

  auto info = MakeRequest<InfoRequest>();
  ASSERT_EQ(Call(Request::kGetInfo, &info), 0);
  EXPECT_EQ(info.memory_used, frame_bytes_.size() + kRows * sizeof(float) + 1000);
  ExpectRightBits();
}

TEST_F(Driver, CopiesStayWithinTheirBuffer) {
  const ForbiddenPage page;
  std::vector<uint8_t> bytes(frame_bytes_.size());
  const auto expect = [&](int result, auto change) {
    auto copy = MakeRequest<MemcpyRequest>();
    copy.handle = trits_;
    copy.user_address = AddressOf(bytes.data());
    copy.bytes = 1;
    change(&copy);
    EXPECT_EQ(Call(Request::kMemcpyFrom, &copy), result);
    if (result != 0) {
      EXPECT_EQ(Call(Request::kMemcpyTo, &copy), result);
    }
  };
  expect(-EINVAL, [&](MemcpyRequest* copy) { copy->bytes = bytes.size() + 1; });
  expect(-EINVAL, [&](MemcpyRequest* copy) { copy->offset = bytes.size(); });
  expect(-EINVAL, [&](MemcpyRequest* copy) { copy->offset = UINT64_MAX; });
  expect(-EINVAL, [&](MemcpyRequest* copy) { copy->bytes = UINT64_MAX; });
  expect(-EFAULT, [&](MemcpyRequest* copy) { copy->user_address = page.address(); });
  expect(-EFAULT, [&](MemcpyRequest* copy) { copy->user_address = 0; });
  expect(-EFAULT, [&](MemcpyRequest* copy) { copy->user_address = UINT64_MAX; });
  expect(-ESTALE, [&](MemcpyRequest* copy) {
    copy->handle ^= 1;
    copy->handle ^= 1ULL << 40;
  });
  expect(0, [&](MemcpyRequest* copy) { copy->offset = bytes.size() - 1; });
}

TEST_F(Driver, ProductsThatDoNotFitAreRefused) {
  const ForbiddenPage page;
  const auto expect = [&](int result, auto change) {
    GemvRequest gemv = Gemv();
    change(&gemv);
    EXPECT_EQ(Call(Request::kSubmitGemv, &gemv), result);
    if (result == 0) {
      EXPECT_EQ(Wait(gemv.ticket), 0);
    }
    auto submit = MakeRequest<SubmitRequest>();
    const GemvRequest both[] = {Gemv(), gemv};
    submit.gemvs_address = AddressOf(both);
    submit.count = 2;
    EXPECT_EQ(Call(Request::kSubmit, &submit), result);
    if (result == 0) {
      EXPECT_EQ(Wait(submit.ticket), 0);
    }
  };
  expect(-EINVAL, [](GemvRequest* g) { g->header.size = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->tokens = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->tokens = kMaxTokensPerGemv + 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->activation = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->activation = 3; });
  expect(-EINVAL, [](GemvRequest* g) { g->scale_kind = 3; });
  expect(-EINVAL, [](GemvRequest* g) { g->scale_kind = 0; });  // a scale per row was stored
  expect(-EINVAL, [](GemvRequest* g) { g->code_stride = kCols - 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->code_stride = UINT64_MAX; });
  expect(-EINVAL, [](GemvRequest* g) { g->x_scale_stride = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->x_scale_stride = UINT64_MAX; });
  expect(-EINVAL, [](GemvRequest* g) { g->y_stride = kRows - 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->y_stride = UINT64_MAX; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.rows = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.cols = 0; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.rows -= 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.frame_len -= 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.frame_len = UINT32_MAX; });
  expect(-EINVAL, [](GemvRequest* g) { g->frame.lane_stride += 1; });
  expect(-EINVAL, [](GemvRequest* g) { g->y_stride = g->frame.rows = UINT32_MAX >> 1; });
  expect(-ENOTSUP, [](GemvRequest* g) { g->frame.packing_fmt = 7; });
  expect(-ENOTSUP, [](GemvRequest* g) { g->frame.version = 9; });
  expect(-ENOTSUP, [](GemvRequest* g) { g->frame.exec_hints = 0x07; });  // another kernel
  expect(-ENOTSUP, [](GemvRequest* g) { g->frame.exec_hints = kHintBias; });
  expect(-ENOTSUP, [](GemvRequest* g) { g->frame.reserved[9] = 1; });
  expect(-ENOTSUP, [](GemvRequest* g) {
    g->frame.flags = kFrameCritical;
    g->frame.exec_hints = 1U << 20;
  });
  expect(0, [](GemvRequest* g) { g->frame.exec_hints = 1U << 20 | kKernelTgemm; });
  expect(-ESTALE, [](GemvRequest* g) { g->frame.base_addr = 0; });
  expect(-ESTALE, [](GemvRequest* g) { g->frame.base_addr = UINT64_MAX; });
  expect(-ESTALE, [](GemvRequest* g) { g->scales_handle += 1; });
  expect(-EFAULT, [&](GemvRequest* g) { g->codes_address = page.address(); });
  expect(-EFAULT, [&](GemvRequest* g) { g->x_scales_address = page.address(); });
  expect(-EFAULT, [](GemvRequest* g) { g->codes_address = 0; });

  auto submit = MakeRequest<SubmitRequest>();
  EXPECT_EQ(Call(Request::kSubmit, &submit), -EINVAL);
  submit.count = kMaxGemvsPerSubmit + 1;
  EXPECT_EQ(Call(Request::kSubmit, &submit), -EINVAL);
  submit.count = 1;
  submit.gemvs_address = page.address();
  EXPECT_EQ(Call(Request::kSubmit, &submit), -EFAULT);
  ExpectRightBits();
}

// The caller's buffer may be gone by the time the result is there.
TEST_F(Driver, AResultWithNowhereToGoIsAnErrorOfTheWait) {
  const ForbiddenPage page;
  GemvRequest gemv = Gemv();
  gemv.y_address = page.address();
  ASSERT_EQ(Call(Request::kSubmitGemv, &gemv), 0);
  EXPECT_EQ(Wait(gemv.ticket), -EFAULT);
  EXPECT_EQ(Wait(gemv.ticket), -EINVAL) << "a ticket can be waited for once";
  EXPECT_EQ(Wait(12345), -EINVAL);
  ExpectRightBits();
}

TEST_F(Driver, ABytesThatIsNoCodeIsAFaultAndNotAZero) {
  ExpectRightBits();
  const uint8_t invalid = 243;
  auto copy = MakeRequest<MemcpyRequest>();
  copy.handle = trits_;
  copy.offset = 5;
  copy.user_address = AddressOf(&invalid);
  copy.bytes = 1;
  ASSERT_EQ(Call(Request::kMemcpyTo, &copy), 0);
  GemvRequest gemv = Gemv();
  EXPECT_EQ(Call(Request::kSubmitGemv, &gemv), -EILSEQ);
  // Writing the old byte again makes the frame what it was.
  copy.user_address = AddressOf(frame_bytes_.data() + 5);
  ASSERT_EQ(Call(Request::kMemcpyTo, &copy), 0);
  ExpectRightBits();
}

TEST_F(Driver, FreeingAFrameUnderAProductEndsTheProduct) {
  Begin("timeout=0");
  ExpectRightBits();
  GemvRequest gemv = Gemv();
  ASSERT_EQ(Call(Request::kSubmitGemv, &gemv), 0);
  auto handle = MakeRequest<HandleRequest>();
  handle.handle = trits_;
  ASSERT_EQ(Call(Request::kFree, &handle), 0);
  const int result = Wait(gemv.ticket);
  // It was done before, or it is stale; it never reads what is freed.
  EXPECT_TRUE(result == 0 || result == -ESTALE) << result;
  GemvRequest again = Gemv();
  EXPECT_EQ(Call(Request::kSubmitGemv, &again), -ESTALE);
}

TEST_F(Driver, AFullQueueIsBusyAndALostTaskTimesOut) {
  Begin("timeout=1");
  std::vector<uint64_t> tickets;
  for (uint32_t i = 0; i < kQueueDepth; ++i) {
    GemvRequest gemv = Gemv();
    ASSERT_EQ(Call(Request::kSubmitGemv, &gemv), 0);
    tickets.push_back(gemv.ticket);
  }
  GemvRequest gemv = Gemv();
  EXPECT_EQ(Call(Request::kSubmitGemv, &gemv), -EBUSY);
  EXPECT_EQ(Wait(tickets[0], 1), -ETIMEDOUT);
  EXPECT_EQ(Wait(tickets[0], 1), -EINVAL) << "given up";
  EXPECT_EQ(Call(Request::kSubmitGemv, &gemv), 0) << "its place is free again";
}

TEST_F(Driver, ResidencyFollowsUse) {
  auto residency = MakeRequest<ResidencyRequest>();
  residency.handle = trits_;
  ASSERT_EQ(Call(Request::kQueryResidency, &residency), 0);
  EXPECT_EQ(residency.hydrated, 0U);
  EXPECT_EQ(residency.bytes, frame_bytes_.size());
  ExpectRightBits();
  ASSERT_EQ(Call(Request::kQueryResidency, &residency), 0);
  EXPECT_EQ(residency.hydrated, 1U);
}

// Random changes of sound requests. Addresses are left alone: what is written to a sound address is
// the caller's own memory.
TEST_F(Driver, RandomRequestsLeaveItWorking) {
  Random random(7);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    GemvRequest gemv = Gemv();
    auto* bytes = reinterpret_cast<uint8_t*>(&gemv);
    const int changes = 1 + static_cast<int>(random() % 3);
    for (int change = 0; change < changes; ++change) {
      const size_t at = random() % offsetof(GemvRequest, y_address);
      const bool address =
          (at >= offsetof(GemvRequest, codes_address) && at < offsetof(GemvRequest, code_stride)) ||
          (at >= offsetof(GemvRequest, x_scales_address) &&
           at < offsetof(GemvRequest, x_scale_stride));
      if (!address) bytes[at] = static_cast<uint8_t>(random());
    }
    // Strides beyond the test's own buffers read what is not mapped or not its business.
    gemv.code_stride = std::min<uint64_t>(gemv.code_stride, x_.view.code_stride);
    gemv.x_scale_stride = std::min<uint64_t>(gemv.x_scale_stride, 1);
    gemv.tokens = std::min(gemv.tokens, kTokens);
    if (Call(Request::kSubmitGemv, &gemv) != 0) continue;
    ++accepted;
    EXPECT_EQ(Wait(gemv.ticket), 0);
  }
  EXPECT_GT(accepted, 100);
  ExpectRightBits();
}

// The host's side does not believe the driver either.
class LyingDriver : public CharacterDevice {
 public:
  int Ioctl(Request request, void* argument) noexcept override {
    if (request == Request::kGetInfo) {
      auto* info = static_cast<InfoRequest*>(argument);
      info->abi_version = version;
      info->max_tokens = info->max_gemvs = info->queue_depth = 4;
    }
    if (request == Request::kAlloc) static_cast<AllocRequest*>(argument)->handle = handle;
    if (request == Request::kWait) {
      static_cast<WaitRequest*>(argument)->state = static_cast<uint32_t>(TaskState::kActive);
    }
    return 0;
  }
  uint32_t version = kAbiVersion;
  uint64_t handle = 1;
};

TEST(IoctlDevice, DoesNotBelieveItsDriver) {
  auto old = std::make_unique<LyingDriver>();
  old->version = 3;
  EXPECT_THROW(IoctlDevice(std::move(old), 10), std::runtime_error);

  auto owned = std::make_unique<LyingDriver>();
  LyingDriver& driver = *owned;
  IoctlDevice device(std::move(owned), 10);
  const auto matrix = [] {
    return TernaryCase::Make(16, 64, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1).matrix;
  };
  MatrixId id;
  driver.handle = 0;
  EXPECT_EQ(device.Upload(matrix(), &id), Status::kErrAddr) << "a handle that is none";
  driver.handle = 1;
  ASSERT_EQ(device.Upload(matrix(), &id), Status::kOk);
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 64, 1);
  std::vector<float> y(16);
  const ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = 16};
  Ticket ticket = 0;
  ASSERT_EQ(device.Submit({&op, 1}, &ticket), Status::kOk);
  EXPECT_EQ(device.Wait(ticket), Status::kErrAddr) << "0, but the task is not complete";
}

}  // namespace
}  // namespace fabric::driver
