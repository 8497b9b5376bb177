// Property: a device whose pool holds only a part of what was uploaded gives the bits of one that
// holds everything, for any sequence of submissions; what was fetched, evicted, fetched ahead and
// used is counted exactly; a handle never reaches memory that has something else in it.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>

#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/residency/copy_engine.h"
#include "fabric/residency/image_store.h"
#include "fabric/residency/pool_space.h"
#include "fabric/residency/resident_device.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"

namespace fabric::residency {
namespace {

using fabric::testing::Bits;
using fabric::testing::Codes;
using fabric::testing::Floats;
using fabric::testing::Random;
using fabric::testing::RandomDense;
using fabric::testing::TernaryCase;

constexpr uint32_t kRows = 80;
constexpr uint32_t kCols = 640;

TernaryMatrix MatrixOf(uint32_t seed, uint32_t rows = kRows, uint32_t cols = kCols) {
  constexpr ScaleKind kKinds[] = {ScaleKind::kTensor, ScaleKind::kRow, ScaleKind::kGroup};
  const TernaryLayout layout = seed % 2 == 0 ? TernaryLayout::kPanel2Bit : TernaryLayout::kPanelPt5;
  return TernaryCase::Make(rows, cols, kKinds[seed % 3], 96, layout, seed).matrix;
}

FabricOptions OptionsOf(const std::string& name, uint64_t pool_bytes) {
  FabricOptions options;
  options.device = name;
  options.watchdog_ms = 60'000;
  options.pool_bytes = pool_bytes;
  return options;
}

bool InPool(const Device& device, MatrixId id) {
  return device.residency(id).place == MatrixPlace::kPool;
}

std::string Folder() { return std::filesystem::temp_directory_path().string(); }

// ------------------------------------------------------------------------------ the pool's space

TEST(PoolSpace, GivesEachByteToOneAndJoinsWhatIsGivenBack) {
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    PoolSpace space(64 * 200 + 17);
    EXPECT_EQ(space.bytes(), 64U * 200);
    std::vector<bool> taken(200);
    std::map<size_t, size_t> held;  // bytes by place
    for (int step = 0; step < 300; ++step) {
      if (!held.empty() && random() % 2 == 0) {
        const auto piece = std::next(held.begin(), random() % held.size());
        for (size_t i = 0; i < (piece->second + 63) / 64; ++i) taken[piece->first / 64 + i] = false;
        space.Give(piece->first, piece->second);
        held.erase(piece);
      } else {
        const size_t bytes = 1 + random() % (64 * 40);
        const size_t lines = (bytes + 63) / 64;
        // The lowest run of free lines that is long enough, by looking at each.
        size_t expected = 0;
        while (expected + lines <= 200 &&
               std::find(taken.begin() + static_cast<ptrdiff_t>(expected),
                         taken.begin() + static_cast<ptrdiff_t>(expected + lines),
                         true) != taken.begin() + static_cast<ptrdiff_t>(expected + lines)) {
          ++expected;
        }
        const std::optional<size_t> place = space.Take(bytes);
        ASSERT_EQ(place.has_value(), expected + lines <= 200);
        if (!place) continue;
        ASSERT_EQ(*place, expected * 64);
        for (size_t i = 0; i < lines; ++i) taken[expected + i] = true;
        held.emplace(*place, bytes);
      }
      size_t free_lines = 0;
      size_t gaps = 0;
      for (size_t line = 0; line < taken.size(); ++line) {
        if (taken[line]) continue;
        ++free_lines;
        if (line == 0 || taken[line - 1]) ++gaps;
      }
      ASSERT_EQ(space.free_bytes(), free_lines * 64);
      ASSERT_EQ(space.gaps(), gaps);
    }
    for (const auto& [place, bytes] : held) space.Give(place, bytes);
    EXPECT_EQ(space.gaps(), 1U);
    EXPECT_TRUE(space.Take(64 * 200).has_value());
  }
}

// ----------------------------------------------------------------------- images and their copies

TEST(TernaryMatrix, AViewOfItsImageIsTheSameMatrix) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    TernaryMatrix whole = MatrixOf(seed, 37, 333);
    const TernaryMatrix same = MatrixOf(seed, 37, 333);
    whole.CountNonZeros();
    AlignedBuffer<uint8_t> image(whole.image_bytes());
    whole.CopyImage(image.data());
    const size_t bytes = whole.bytes();
    whole.DropWeights();
    EXPECT_EQ(whole.bytes(), bytes);
    TernaryMatrix view = whole.ViewImage(image);
    EXPECT_EQ(view.layout(), same.layout());
    EXPECT_EQ(view.CopyScales(), same.CopyScales());
    EXPECT_TRUE(std::ranges::equal(view.panels(), same.panels()));
    EXPECT_TRUE(std::ranges::equal(view.nonzeros_per_column(), whole.nonzeros_per_column()));
    EXPECT_FALSE(view.nonzeros_per_column().empty());
  }
}

TEST(ImageStore, GivesBackWhatWasPutFromMemoryAndFromAFile) {
  for (const std::string& folder : {std::string(), Folder()}) {
    ImageStore store(folder);
    EXPECT_EQ(store.in_file(), !folder.empty());
    CopyEngine copies(store);
    std::vector<StoredImage> images(5);
    std::vector<AlignedBuffer<uint8_t>> expected;
    for (uint32_t i = 0; i < images.size(); ++i) {
      const TernaryMatrix matrix = MatrixOf(i, 700 * i + 16, 1300);
      ASSERT_EQ(store.Put(matrix, &images[i]), Status::kOk);
      ASSERT_EQ(images[i].memory.empty(), store.in_file());
      expected.emplace_back(matrix.image_bytes());
      matrix.CopyImage(expected.back().data());
    }
    store.Drop(&images[1]);
    std::vector<std::shared_ptr<CopyEngine::Job>> jobs(images.size());
    std::vector<AlignedBuffer<uint8_t>> copied(images.size());
    for (size_t i = 0; i < images.size(); ++i) {
      if (i == 1) continue;
      copied[i] = AlignedBuffer<uint8_t>(images[i].bytes);
      jobs[i] = copies.Start(images[i], copied[i], i == 3);
    }
    for (size_t i = 0; i < images.size(); ++i) {
      if (i == 1) continue;
      EXPECT_TRUE(copies.Finish(*jobs[i]));
      EXPECT_TRUE(copies.Ended(*jobs[i]));
      EXPECT_FALSE(copies.Cancel(*jobs[i]));
      EXPECT_TRUE(std::ranges::equal(copied[i], expected[i])) << i;
    }
    EXPECT_GT(copies.seconds().copying, 0);
  }
}

TEST(ImageStore, AFolderThatTakesNoFileIsRefusedWithItsName) {
  try {
    const ImageStore store("/nowhere/at/all");
    FAIL() << "accepted";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("\"/nowhere/at/all\""), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("--fabric-store"), std::string::npos);
  }
}

// --------------------------------------------------------------------------------- the same bits

// Matrices of several shapes and a dense one, and random submissions as an engine makes them:
// groups, gate and up, residual adds, a matrix twice.
class Model {
 public:
  static constexpr uint32_t kMatrices = 12;

  explicit Model(Device& device) : device_(device) {
    for (uint32_t i = 0; i < kMatrices; ++i) {
      TernaryMatrix matrix = MatrixOf(i);
      bytes_ += matrix.image_bytes();
      largest_ = std::max(largest_, matrix.image_bytes());
      ids_.push_back(Upload(std::move(matrix)));
    }
    dense_ =
        Upload(std::shared_ptr<const DenseMatrix>(RandomDense(DenseType::kF16, kRows, kCols, 5)));
  }

  MatrixId Upload(Matrix matrix) {
    MatrixId id;
    EXPECT_EQ(device_.Upload(std::move(matrix), &id), Status::kOk);
    return id;
  }

  // Bits of all results of one submission with these matrices: the first two as gate and up, the
  // third alone, the fourth added to what the third wrote, the fifth twice, and the dense one.
  std::vector<uint32_t> Run(std::span<const uint32_t> matrices, uint32_t tokens, uint32_t seed) {
    const auto kind = seed % 2 == 0 ? ActivationKind::kInt8Token : ActivationKind::kInt8Block;
    const Codes x = Codes::Make(kind, tokens, kCols, seed);
    const Floats floats = Floats::Make(tokens, kCols, seed);
    const std::vector<float> bias(kRows, 0.25F);
    const size_t size = size_t{tokens} * kRows;
    std::vector<float> y(5 * size, 0.5F);
    std::vector<ProjectionOp> ops;
    const auto add = [&](MatrixId id, const ActivationView& view, size_t place, Epilogue epilogue,
                         bool biased) {
      ops.push_back({.matrix = id,
                     .x = &view,
                     .y = y.data() + place * size,
                     .y_stride = kRows,
                     .bias = biased ? bias.data() : nullptr,
                     .epilogue = epilogue});
    };
    add(ids_[matrices[0]], x.view, 0, Epilogue::kStore, false);
    add(ids_[matrices[1]], x.view, 0, Epilogue::kSiluMul, true);
    add(ids_[matrices[2]], x.view, 1, Epilogue::kStore, true);
    add(dense_, floats.view, 2, Epilogue::kStore, false);
    add(ids_[matrices[3]], x.view, 1, Epilogue::kAdd, false);
    add(ids_[matrices[4]], x.view, 3, Epilogue::kStore, false);
    add(ids_[matrices[4]], x.view, 4, Epilogue::kStore, false);
    EXPECT_EQ(Execute(device_, ops), Status::kOk);
    return Bits(y);
  }

  // A product with one matrix.
  Status RunOne(MatrixId id) {
    const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, kCols, 7);
    std::vector<float> y(kRows);
    const ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = kRows};
    const Status status = Execute(device_, {&op, 1});
    last_ = Bits(y);
    return status;
  }

  MatrixId id(uint32_t matrix) const { return ids_[matrix]; }
  size_t bytes() const { return bytes_; }
  size_t largest() const { return largest_; }
  const std::vector<uint32_t>& last() const { return last_; }

 private:
  Device& device_;
  std::vector<MatrixId> ids_;
  MatrixId dense_;
  size_t bytes_ = 0;
  size_t largest_ = 0;
  std::vector<uint32_t> last_;
};

// Bytes of the Model above.
struct ModelSize {
  size_t all = 0;
  size_t largest = 0;
};
ModelSize SizeOfModel() {
  WorkerTeam team(1);
  const auto device = CreateDevice(OptionsOf("reference", 0), team);
  const Model model(*device);
  return {model.bytes(), model.largest()};
}

// Results of the same random submissions on a device.
std::vector<std::vector<uint32_t>> RunRandom(Device& device, int submissions) {
  Model model(device);
  Random random(11);
  std::vector<std::vector<uint32_t>> results;
  for (int i = 0; i < submissions; ++i) {
    uint32_t matrices[5];
    for (uint32_t& matrix : matrices) matrix = random() % Model::kMatrices;
    results.push_back(model.Run(matrices, 1 + random() % 9, static_cast<uint32_t>(i)));
  }
  return results;
}

TEST(Residency, AnyPoolGivesTheBitsOfAnUnboundedDevice) {
  WorkerTeam team(2);
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  const auto expected = RunRandom(*plain, 16);
  const ModelSize size = SizeOfModel();
  for (const char* name : {"sim", "reference", "stub", "ioctl"}) {
    for (const std::string& store : {std::string(), Folder()}) {
      for (const size_t pool : {size.all, size.all / 2, size.all / 4, size.largest + 63}) {
        FabricOptions options = OptionsOf(name, pool);
        options.store = store;
        const auto device = CreateDevice(options, team);
        EXPECT_EQ(device->pool().bytes, pool / 64 * 64);
        EXPECT_EQ(device->pool().in_file, !store.empty());
        EXPECT_EQ(RunRandom(*device, 16), expected) << name << ' ' << pool << ' ' << store;
        const DeviceCounters counters = device->Counters();
        EXPECT_EQ(counters.TotalFaults(), 0U);
        EXPECT_EQ(counters.host_fallbacks, 0U);
        EXPECT_EQ(counters.residency_hits + counters.residency_misses, 16U * 6);
        EXPECT_EQ(counters.evictions > 0, pool < size.all);
      }
    }
  }
}

TEST(Residency, SeveralDevicesHaveAPoolEach) {
  WorkerTeam team(2);
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  const auto expected = RunRandom(*plain, 30);
  for (const FabricSplit split : {FabricSplit::kRows, FabricSplit::kColumns}) {
    FabricOptions options = OptionsOf("sim", SizeOfModel().all / 6);
    options.devices = 3;
    options.split = split;
    options.layout = TernaryLayout::kPanelPt5;  // repacked once, before it is kept
    const auto device = CreateDevice(options, team);
    EXPECT_EQ(device->pool().bytes, 3 * (options.pool_bytes / 64 * 64));
    EXPECT_EQ(RunRandom(*device, 30), expected);
    EXPECT_GT(device->Counters().evictions, 0U);
  }
}

TEST(Residency, SparseMatricesComeAndGoAsDenseOnes) {
  WorkerTeam team(2);
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  const size_t bytes = CopyTernary(MatrixOf(0), TernaryLayout::kSparse).image_bytes();
  for (const std::string& store : {std::string(), Folder()}) {
    FabricOptions options = OptionsOf("sim", 2 * bytes);
    options.store = store;
    const auto device = CreateDevice(options, team);
    Model expected(*plain);
    Model model(*device);
    std::vector<MatrixId> sparse;
    std::vector<MatrixId> dense;
    for (uint32_t seed = 0; seed < 5; ++seed) {
      dense.push_back(expected.Upload(MatrixOf(seed)));
      sparse.push_back(model.Upload(CopyTernary(MatrixOf(seed), TernaryLayout::kSparse)));
    }
    for (uint32_t i = 0; i < 30; ++i) {
      ASSERT_EQ(expected.RunOne(dense[i % 5]), Status::kOk);
      ASSERT_EQ(model.RunOne(sparse[i % 5]), Status::kOk);
      EXPECT_EQ(model.last(), expected.last());
    }
    EXPECT_GT(device->Counters().evictions, 10U);
  }
}

// ------------------------------------------------------------------------------- what is fetched

TEST(Residency, WhenEverythingFitsNothingIsFetchedAfterwards) {
  WorkerTeam team(2);
  const auto device = CreateDevice(OptionsOf("sim", SizeOfModel().all), team);
  Model model(*device);
  for (uint32_t i = 0; i < Model::kMatrices; ++i) ASSERT_EQ(model.RunOne(model.id(i)), Status::kOk);
  const DeviceCounters warm = device->Counters();
  EXPECT_EQ(warm.fetched_bytes, model.bytes());
  for (int round = 0; round < 5; ++round) {
    for (uint32_t i = 0; i < Model::kMatrices; ++i) model.RunOne(model.id(i));
  }
  const DeviceCounters after = device->Counters();
  EXPECT_EQ(after.fetched_bytes, warm.fetched_bytes);
  EXPECT_EQ(after.residency_misses, 0U);
  EXPECT_EQ(after.residency_hits, 6U * Model::kMatrices);
  EXPECT_EQ(after.evictions, 0U);
}

// Equal matrices in a circle, as the layers of a model. What is evicted by age alone is always what
// is needed next, so that nothing would ever be found.
TEST(Residency, ACircleThatDoesNotFitFindsItsShareOfThePool) {
  constexpr uint32_t kCount = 24;
  constexpr uint32_t kRounds = 40;
  for (const uint32_t places : {6U, 12U, 18U}) {
    WorkerTeam team(1);
    const size_t bytes = MatrixOf(0).image_bytes();
    const auto device = CreateDevice(OptionsOf("sim", places * bytes), team);
    Model one(*device);  // its matrices are in the way until they are forgotten
    std::vector<MatrixId> circle;
    for (uint32_t i = 0; i < kCount; ++i) circle.push_back(one.Upload(MatrixOf(0)));
    for (uint32_t i = 0; i < Model::kMatrices; ++i) {
      ASSERT_EQ(device->Free(one.id(i)), Status::kOk);
    }
    const auto run = [&](uint32_t rounds) {
      for (uint32_t i = 0; i < rounds * kCount; ++i) {
        ASSERT_EQ(one.RunOne(circle[i % kCount]), Status::kOk);
      }
    };
    run(3);
    const DeviceCounters before = device->Counters();
    run(kRounds);
    const DeviceCounters after = device->Counters();
    // No policy can do with less than what does not fit, each round.
    const double fetched = static_cast<double>(after.fetched_bytes - before.fetched_bytes) /
                           static_cast<double>(bytes * kRounds);
    EXPECT_GE(fetched, kCount - places);
    EXPECT_LE(fetched, kCount - places + 3) << places;
    // And what is fetched is fetched before it is asked for.
    EXPECT_EQ(after.residency_misses, before.residency_misses);
    EXPECT_GT(after.prefetches_used, before.prefetches_used);
    EXPECT_EQ(after.prefetches_wasted, before.prefetches_wasted);
    EXPECT_EQ(after.residency_hits - before.residency_hits, kRounds * kCount);
    EXPECT_GT(after.fetch_seconds, before.fetch_seconds);
  }
}

TEST(Residency, AMatrixThatIsOnItsWayIsNotFetchedTwice) {
  WorkerTeam team(1);
  const auto device = CreateDevice(OptionsOf("sim", 3 * SizeOfModel().largest), team);
  Model model(*device);
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, kCols, 7);
  std::vector<float> y(size_t{3} * kRows);
  std::vector<ProjectionOp> ops;
  for (uint32_t i = 0; i < 3; ++i) {
    ops.push_back({.matrix = model.id(11), .x = &x.view, .y = &y[i * kRows], .y_stride = kRows});
  }
  ASSERT_EQ(Execute(*device, ops), Status::kOk);
  const DeviceCounters counters = device->Counters();
  EXPECT_EQ(counters.residency_misses, 1U);
  EXPECT_EQ(counters.residency_hits, 2U);
}

TEST(Residency, MissesAndBytesHaveTheirCostAndEnergy) {
  WorkerTeam team(1);
  FabricOptions options = OptionsOf("sim", 2 * SizeOfModel().largest);
  options.energy = {.add = 0, .skip = 0, .sram_byte = 0, .dram_byte = 3, .link_byte = 0};
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  const auto device = CreateDevice(options, team);
  RunRandom(*plain, 20);
  RunRandom(*device, 20);
  const DeviceCounters counters = device->Counters();
  EXPECT_EQ(counters.fabric_cost,
            plain->Counters().fabric_cost + 6 * static_cast<double>(counters.residency_misses));
  EXPECT_EQ(counters.energy_picojoules, 3 * static_cast<double>(counters.fetched_bytes));
}

// ------------------------------------------------------------------------------ pins and handles

TEST(Residency, TellsOfEachMatrixWhereItIs) {
  constexpr uint32_t kCount = 12;
  WorkerTeam team(2);
  const size_t bytes = MatrixOf(0).image_bytes();
  for (const char* name : {"sim", "reference", "stub", "ioctl"}) {
    for (const uint32_t queue : {0U, 2U}) {
      SCOPED_TRACE(std::string(name) + ", queue " + std::to_string(queue));
      FabricOptions options = OptionsOf(name, kCount / 2 * ((bytes + 63) / 64 * 64));
      options.queue_depth = queue;
      const auto device = CreateDevice(options, team);
      std::vector<MatrixId> ids(kCount);
      for (MatrixId& id : ids) ASSERT_EQ(device->Upload(MatrixOf(0), &id), Status::kOk);
      MatrixId on_host;
      MatrixId dense;
      ASSERT_EQ(device->UploadToHost(MatrixOf(0), &on_host), Status::kOk);
      ASSERT_EQ(device->Upload(RandomDense(DenseType::kF16, kRows, kCols, 1), &dense), Status::kOk);
      EXPECT_EQ(device->residency(on_host).place, MatrixPlace::kHost);
      EXPECT_EQ(device->residency(dense).place, MatrixPlace::kHost);
      EXPECT_EQ(device->residency({99, 1}).place, MatrixPlace::kHost);
      EXPECT_FALSE(InPool(*device, ids.back())) << "the pool filled up in order";

      // Two places are for what is fetched ahead.
      device->Settle();
      std::vector<uint32_t> there;
      for (uint32_t i = 0; i < kCount; ++i) {
        const MatrixPlace place = device->residency(ids[i]).place;
        EXPECT_TRUE(place == MatrixPlace::kPool || place == MatrixPlace::kOutside);
        if (place == MatrixPlace::kPool) there.push_back(i);
      }
      EXPECT_EQ(there, (std::vector<uint32_t>{2, 5, 8, 11})) << "evenly along the layers";

      ASSERT_EQ(device->SetPinned(ids[3], true), Status::kOk);
      EXPECT_EQ(device->residency(ids[3]).place, MatrixPlace::kPool);
      EXPECT_TRUE(device->residency(ids[3]).pinned);
      EXPECT_FALSE(device->residency(ids[4]).pinned);
      ASSERT_EQ(device->SetPinned(ids[3], false), Status::kOk);
      EXPECT_FALSE(device->residency(ids[3]).pinned);
    }
  }
}

TEST(Residency, WithoutABoundOrSharedOutAMatrixIsWhereItsFurthestPartIs) {
  WorkerTeam team(2);
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  MatrixId id;
  ASSERT_EQ(plain->Upload(MatrixOf(0), &id), Status::kOk);
  plain->Settle();
  EXPECT_EQ(plain->residency(id).place, MatrixPlace::kDevice);

  FabricOptions options = OptionsOf("sim", 2 * MatrixOf(0).image_bytes() / 3);
  options.devices = 2;
  options.split = FabricSplit::kColumns;
  const auto several = CreateDevice(options, team);
  std::vector<MatrixId> ids(3);
  for (MatrixId& each : ids) ASSERT_EQ(several->Upload(MatrixOf(0), &each), Status::kOk);
  several->Settle();
  const auto outside = std::count_if(ids.begin(), ids.end(), [&](MatrixId each) {
    return several->residency(each).place == MatrixPlace::kOutside;
  });
  EXPECT_GE(outside, 2);
  ASSERT_EQ(several->SetPinned(ids[1], true), Status::kErrNoMem) << "one part fits, not both";
  EXPECT_FALSE(several->residency(ids[1]).pinned);
}

TEST(Residency, APinnedMatrixStaysAndWhatHasNoRoomBesideItIsRefused) {
  WorkerTeam team(1);
  const size_t largest = SizeOfModel().largest;
  const auto device = CreateDevice(OptionsOf("sim", 3 * (largest / 64 + 1) * 64), team);
  Model model(*device);
  ASSERT_EQ(device->SetPinned(model.id(8), true), Status::kOk);
  ASSERT_EQ(device->SetPinned(model.id(5), true), Status::kOk);
  for (uint32_t i = 0; i < 3 * Model::kMatrices; ++i) {
    ASSERT_EQ(model.RunOne(model.id(i % Model::kMatrices)), Status::kOk);
    EXPECT_TRUE(InPool(*device, model.id(8)));
    EXPECT_TRUE(InPool(*device, model.id(5)));
  }
  EXPECT_GT(device->Counters().evictions, 0U);
  // Two at once do not fit beside the pins: they run one after the other, with the same bits.
  const uint32_t matrices[] = {0, 1, 2, 3, 4};
  const auto plain = CreateDevice(OptionsOf("sim", 0), team);
  Model expected(*plain);
  EXPECT_EQ(model.Run(matrices, 3, 1), expected.Run(matrices, 3, 1));
  ASSERT_EQ(device->SetPinned(model.id(7), true), Status::kOk);
  EXPECT_EQ(device->SetPinned(model.id(2), true), Status::kErrNoMem);
  EXPECT_FALSE(InPool(*device, model.id(2)));
  EXPECT_EQ(model.RunOne(model.id(2)), Status::kErrNoMem);
  EXPECT_EQ(device->Counters().faults[static_cast<size_t>(FaultKind::kMemory)], 1U);
  EXPECT_EQ(model.RunOne(model.id(7)), Status::kOk);
  ASSERT_EQ(device->SetPinned(model.id(8), false), Status::kOk);
  EXPECT_EQ(model.RunOne(model.id(2)), Status::kOk);
  EXPECT_EQ(device->Free(model.id(5)), Status::kOk);
  EXPECT_EQ(device->SetPinned(model.id(5), true), Status::kErrStale);
  EXPECT_FALSE(InPool(*device, model.id(5)));
}

// Passes everything on, and remembers the handles that the device inside gave out.
class Spy : public Device {
 public:
  explicit Spy(std::vector<MatrixId>* given)
      : given_(given), device_("sim", {}, kernels::ActiveKernels(), nullptr) {}
  std::string_view name() const override { return "spy"; }
  Status Upload(Matrix matrix, MatrixId* id) override {
    const Status status = device_.Upload(std::move(matrix), id);
    given_->push_back(*id);
    return status;
  }
  Status Free(MatrixId id) noexcept override { return device_.Free(id); }
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override {
    return device_.Submit(ops, ticket);
  }
  Status Wait(Ticket ticket) noexcept override { return device_.Wait(ticket); }
  DeviceCounters Counters() const noexcept override { return device_.Counters(); }
  size_t resident_bytes() const noexcept override { return device_.resident_bytes(); }

 private:
  std::vector<MatrixId>* given_;
  sim::SimDevice device_;
};

TEST(Residency, HandlesOutliveEvictionsWhileThoseOfThePoolDieWithThem) {
  std::vector<MatrixId> given;
  auto spy = std::make_unique<Spy>(&given);
  Spy& inside = *spy;
  const size_t largest = SizeOfModel().largest;
  ResidentDevice device(std::move(spy), OptionsOf("sim", largest), kernels::ActiveKernels());
  Model model(device);
  given.clear();
  ASSERT_EQ(model.RunOne(model.id(3)), Status::kOk);
  const std::vector<uint32_t> bits = model.last();
  ASSERT_EQ(given.size(), 1U);
  const MatrixId first = given[0];
  ASSERT_EQ(model.RunOne(model.id(4)), Status::kOk);
  ASSERT_EQ(given.size(), 2U);

  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, kCols, 7);
  std::vector<float> y(kRows);
  const ProjectionOp op{.matrix = first, .x = &x.view, .y = y.data(), .y_stride = kRows};
  EXPECT_EQ(Execute(inside, {&op, 1}), Status::kErrStale) << "its place holds matrix 4 now";

  ASSERT_EQ(model.RunOne(model.id(3)), Status::kOk) << "fetched again";
  EXPECT_EQ(model.last(), bits);
  EXPECT_TRUE(InPool(device, model.id(3)));
  EXPECT_FALSE(InPool(device, model.id(4)));
  EXPECT_EQ(device.Free(model.id(3)), Status::kOk);
  EXPECT_EQ(model.RunOne(model.id(3)), Status::kErrStale);
  EXPECT_EQ(device.Free(model.id(3)), Status::kErrStale);
  MatrixId next;
  ASSERT_EQ(device.Upload(MatrixOf(1), &next), Status::kOk);
  EXPECT_EQ(next.index, model.id(3).index);
  EXPECT_NE(next.generation, model.id(3).generation);
  EXPECT_EQ(model.RunOne(model.id(3)), Status::kErrStale);
  EXPECT_EQ(model.RunOne(next), Status::kOk);
  EXPECT_EQ(model.RunOne({99, 1}), Status::kErrStale);
}

// --------------------------------------------------------------------------- what does not go well

TEST(Residency, AMatrixLargerThanThePoolIsRefusedAtUpload) {
  WorkerTeam team(1);
  const auto device = CreateDevice(OptionsOf("sim", 16384), team);
  MatrixId id;
  EXPECT_EQ(device->Upload(MatrixOf(1, 400, 640), &id), Status::kErrNoMem);
  ASSERT_EQ(device->Upload(MatrixOf(1, 80, 320), &id), Status::kOk);
  EXPECT_TRUE(InPool(*device, id) || device->Counters().evictions == 0);
}

TEST(Residency, WrongOpsAreRefusedBeforeAnythingIsFetched) {
  WorkerTeam team(1);
  const auto device = CreateDevice(OptionsOf("sim", SizeOfModel().largest), team);
  Model model(*device);
  const DeviceCounters before = device->Counters();
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, kCols, 7);
  std::vector<float> y(kRows);
  const ProjectionOp good{.matrix = model.id(9), .x = &x.view, .y = y.data(), .y_stride = kRows};
  ProjectionOp bad = good;
  bad.y_stride = kRows - 1;
  const ProjectionOp ops[] = {good, bad};
  EXPECT_EQ(Execute(*device, ops), Status::kErrAddr);
  EXPECT_EQ(device->Submit({&good, 1}, nullptr), Status::kErrAddr);
  EXPECT_EQ(device->Wait(1), Status::kErrAddr);
  const DeviceCounters after = device->Counters();
  EXPECT_EQ(after.faults[static_cast<size_t>(FaultKind::kRefused)], 2U);
  EXPECT_EQ(after.residency_misses, before.residency_misses);
  EXPECT_EQ(after.fetched_bytes, before.fetched_bytes);
}

// The file without a name among those that this process has open.
std::filesystem::path OpenFileIn(const std::string& folder) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (target.starts_with(folder) && target.ends_with(" (deleted)")) return entry.path();
  }
  return {};
}

TEST(Residency, AFileThatCannotBeReadIsAnErrorAndNotZeros) {
  const std::filesystem::path folder =
      std::filesystem::path(Folder()) / ("tern-residency-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  WorkerTeam team(1);
  FabricOptions options = OptionsOf("sim", SizeOfModel().largest);
  options.store = folder.string();
  const auto device = CreateDevice(options, team);
  Model model(*device);
  ASSERT_EQ(model.RunOne(model.id(0)), Status::kOk);
  EXPECT_TRUE(std::filesystem::is_empty(folder)) << "the file has no name";
  const std::filesystem::path file = OpenFileIn(folder.string());
  ASSERT_FALSE(file.empty());
  std::filesystem::resize_file(file, 0);
  EXPECT_EQ(model.RunOne(model.id(5)), Status::kErrGone);
  EXPECT_EQ(model.RunOne(model.id(5)), Status::kErrGone);
  EXPECT_EQ(device->Counters().faults[static_cast<size_t>(FaultKind::kDisconnected)], 2U);
  std::filesystem::remove_all(folder);
}

TEST(Residency, AFullFileSystemIsAnErrorAtUpload) {
  WorkerTeam team(1);
  FabricOptions options = OptionsOf("sim", 1 << 20);
  options.store = Folder();
  const auto device = CreateDevice(options, team);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 4096, .rlim_max = limit.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  MatrixId id;
  const Status status = device->Upload(MatrixOf(1), &id);
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(status, Status::kErrNoMem);
  EXPECT_EQ(device->Upload(MatrixOf(1), &id), Status::kOk);
}

}  // namespace
}  // namespace fabric::residency
