// Property: each matrix goes where the options say, for a reason that is told; with all planes, and
// with any layers on the host, a model has the bits of the native one on every device; and with
// fewer planes every device still gives the same bits as the others.

#include "engine/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "fabric/device.h"
#include "gguf/types.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using ::testing::HasSubstr;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;
using testing::TinyShape;
using testing::TinyWriter;

TEST(LayerSet, ReadsAndWritesNumbersAndRanges) {
  for (const char* text : {"all", "none", "0", "0-23", "0,4-7,20"}) {
    EXPECT_EQ(LayerSet::Parse(text).Text(), text);
  }
  const LayerSet some = LayerSet::Parse("0,4-7");
  const std::vector<uint32_t> in = {0, 4, 5, 6, 7};
  for (uint32_t layer = 0; layer < 12; ++layer) {
    EXPECT_EQ(some.Contains(layer), std::find(in.begin(), in.end(), layer) != in.end()) << layer;
    EXPECT_TRUE(LayerSet().Contains(layer));
    EXPECT_FALSE(LayerSet::Parse("none").Contains(layer));
  }
  EXPECT_EQ(some.Last(), 7U);
  for (const char* text : {"", "x", "3-", "-3", "3-2", "1,,2", "1,", "0-99999999999", "1 - 2"}) {
    EXPECT_THROW(LayerSet::Parse(text), std::invalid_argument) << text;
  }
}

TEST(PlacementOptions, ReadWhatTheyWriteAndFollowTheirProfile) {
  for (const char* text : {"profile", "off", "auto", "1", "6"}) {
    EXPECT_EQ(PlanesText(ParsePlanes(text)), text);
  }
  for (const char* text : {"", "0", "7", "-1", "2.5", "all"}) {
    EXPECT_THROW(ParsePlanes(text), std::invalid_argument) << text;
  }
  EXPECT_EQ(ParseMaxError("profile"), std::nullopt);
  EXPECT_EQ(ParseMaxError("0.25"), 0.25);
  for (const char* text : {"", "-0.1", "1.5", "nan", "x"}) {
    EXPECT_THROW(ParseMaxError(text), std::invalid_argument) << text;
  }
  PlacementOptions options;
  EXPECT_EQ(options.EffectivePlanes().kind, PlaneCount::Kind::kOff);
  options.profile = FabricProfile::kAccurate;
  EXPECT_EQ(options.EffectivePlanes().kind, PlaneCount::Kind::kAuto);
  EXPECT_EQ(options.EffectiveMaxError(), 0);
  options.max_error = 0.5;
  EXPECT_EQ(options.EffectiveMaxError(), 0.5);
  options.planes = PlaneCount{};
  EXPECT_EQ(options.EffectivePlanes().kind, PlaneCount::Kind::kOff);
}

TEST(Placement, KnowsTheLayerOfATensor) {
  EXPECT_EQ(LayerOf("blk.12.attn_q.weight"), 12U);
  EXPECT_EQ(LayerOf("token_embd.weight"), std::nullopt);
  EXPECT_EQ(LayerOf("blk.x.attn_q.weight"), std::nullopt);
}

TinyShape Shape(gguf::TensorType type) {
  return {.architecture = "llama",
          .layers = 3,
          .hidden = 256,
          .heads = 16,
          .ffn = 256,
          .projections = type,
          .sub_norms = false};
}

EngineOptions With(FabricProfile profile, const char* planes = "profile",
                   const char* layers = "all") {
  EngineOptions options = SmallOptions();
  options.placement = {.profile = profile,
                       .layers = LayerSet::Parse(layers),
                       .planes = ParsePlanes(planes),
                       .max_error = std::nullopt,
                       .importance = ""};
  return options;
}

Rig RigOf(gguf::TensorType type, const EngineOptions& options, const char* device_name = "sim",
          uint32_t shadow_interval = 0) {
  auto team = std::make_unique<fabric::WorkerTeam>(2);
  fabric::FabricOptions fabric_options;
  fabric_options.device = device_name;
  fabric_options.shadow_interval = shadow_interval;
  auto device = fabric::CreateDevice(fabric_options, *team);
  auto model = testing::LoadBytes(TinyWriter(Shape(type)).Serialize(), options, *device);
  return {std::move(model), options, std::move(device), std::move(team)};
}

std::map<std::string, TensorPlacement> PlacementsOf(const Rig& rig) {
  std::map<std::string, TensorPlacement> placements;
  for (const TensorPlacement& placement : rig.model->weights().placements) {
    placements[placement.name] = placement;
  }
  return placements;
}

TEST(Placement, SaysOfEveryMatrixWhereItRunsAndWhy) {
  const std::string gate = "blk.1.ffn_gate.weight";
  {
    const auto placements = PlacementsOf(RigOf(gguf::TensorType::kQ4_K, SmallOptions()));
    EXPECT_FALSE(placements.at(gate).on_fabric);
    EXPECT_EQ(placements.at(gate).layout, "q4_k");
    EXPECT_THAT(placements.at(gate).reason, HasSubstr("--fabric-profile"));
    EXPECT_THAT(placements.at("token_embd.weight").reason, HasSubstr("f16"));
    EXPECT_EQ(placements.at("output_norm.weight").reason, "");
  }
  {
    const auto placements =
        PlacementsOf(RigOf(gguf::TensorType::kQ4_K, With(FabricProfile::kAccurate)));
    EXPECT_TRUE(placements.at(gate).on_fabric);
    EXPECT_EQ(placements.at(gate).planes, 3U);
    EXPECT_EQ(placements.at(gate).plane_error, 0);
    EXPECT_EQ(placements.at(gate).reason, "3 planes hold its codes exactly");
    EXPECT_GT(placements.at(gate).zero_rate, 0.1);
    EXPECT_LT(placements.at(gate).zero_rate, 0.6);
  }
  {
    // Two planes are the fewest that err by less than 0.2 with codes of six bits.
    const auto placements =
        PlacementsOf(RigOf(gguf::TensorType::kQ6_K, With(FabricProfile::kFast)));
    EXPECT_EQ(placements.at(gate).planes, 2U);
    EXPECT_GT(placements.at(gate).plane_error, 0.05);
    EXPECT_LT(placements.at(gate).plane_error, 0.2);
  }
  {
    const auto placements = PlacementsOf(
        RigOf(gguf::TensorType::kI2_S, With(FabricProfile::kNative, "profile", "0,2")));
    EXPECT_TRUE(placements.at("blk.0.ffn_gate.weight").on_fabric);
    EXPECT_FALSE(placements.at(gate).on_fabric);
    EXPECT_EQ(placements.at(gate).reason, "layer 1 is not in --fabric-layers 0,2");
  }
}

TEST(Placement, MatrixWhosePlanesErrTooMuchStaysWithTheHost) {
  EngineOptions options = With(FabricProfile::kNative, "2");
  options.placement.max_error = 0.05;
  const auto placements = PlacementsOf(RigOf(gguf::TensorType::kQ4_K, options));
  const TensorPlacement& gate = placements.at("blk.1.ffn_gate.weight");
  EXPECT_FALSE(gate.on_fabric);
  EXPECT_EQ(gate.layout, "q4_k");
  EXPECT_THAT(gate.reason, HasSubstr("2 planes would err by 0."));
  EXPECT_THAT(gate.reason, HasSubstr("more than 0.0500"));
}

TEST(Placement, LayersThatTheModelLacksAreRefused) {
  try {
    RigOf(gguf::TensorType::kI2_S, With(FabricProfile::kNative, "profile", "1-3"));
    FAIL() << "accepted";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), HasSubstr("names layer 3, but the model has layers 0 to 2"));
  }
}

// What a run is to be equal to: the native one, or, where planes are left out, that of the
// reference device.
struct EveryDeviceCase {
  gguf::TensorType type;
  FabricProfile profile;
  const char* planes;
  const char* layers;
  bool native_bits;
};

class EveryDevice : public ::testing::TestWithParam<EveryDeviceCase> {};

TEST_P(EveryDevice, GivesTheSameBits) {
  const EveryDeviceCase& c = GetParam();
  const std::vector<TokenId> tokens = RandomTokens(12, 96, 5);
  const LogitRows native = RunAlone(*RigOf(c.type, SmallOptions()).engine, tokens, 0);
  LogitRows expected;
  if (c.native_bits) expected = native;
  for (const char* device : {"reference", "sim", "stub", "ioctl"}) {
    const Rig rig = RigOf(c.type, With(c.profile, c.planes, c.layers), device, 3);
    const LogitRows logits = RunAlone(*rig.engine, tokens, 0, 5);
    if (expected.empty()) expected = logits;
    EXPECT_TRUE(logits == expected) << device;
    const fabric::DeviceCounters counters = rig.device->Counters();
    EXPECT_EQ(counters.TotalFaults(), 0U) << device;
    EXPECT_EQ(counters.host_fallbacks, 0U) << device;
    EXPECT_EQ(counters.shadow_differing_rows == 0, c.native_bits) << device;
    EXPECT_EQ(counters.ShadowError() == 0, c.native_bits) << device;
  }
  EXPECT_EQ(expected == native, c.native_bits);
}

constexpr FabricProfile kNative = FabricProfile::kNative;
constexpr FabricProfile kAccurate = FabricProfile::kAccurate;
constexpr EveryDeviceCase kEveryDeviceCases[] = {
    {gguf::TensorType::kI2_S, kNative, "profile", "all", true},
    {gguf::TensorType::kI2_S, kNative, "profile", "0,2", true},
    {gguf::TensorType::kI2_S, kNative, "profile", "none", true},
    {gguf::TensorType::kTQ1_0, kNative, "profile", "all", true},
    {gguf::TensorType::kF16, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ4_0, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ4_K, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ4_K, kAccurate, "profile", "1", true},
    {gguf::TensorType::kQ5_K, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ6_K, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ8_0, kAccurate, "profile", "all", true},
    {gguf::TensorType::kQ4_K, kNative, "1", "all", false},
    {gguf::TensorType::kQ6_K, FabricProfile::kFast, "profile", "all", false},
    {gguf::TensorType::kQ8_0, FabricProfile::kBalanced, "profile", "0-1", false},
};
INSTANTIATE_TEST_SUITE_P(Placements, EveryDevice, ::testing::ValuesIn(kEveryDeviceCases),
                         [](const auto& info) {
                           const EveryDeviceCase& c = info.param;
                           std::string name(gguf::TypeName(c.type));
                           name += "_" + std::to_string(static_cast<int>(c.profile)) + c.planes +
                                   "_" + c.layers;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char letter) { return letter == ',' || letter == '-'; }, '_');
                           return name;
                         });

// Hybrid: the Fabric's account knows its layers alone.
TEST(Placement, LayersOfTheHostAreNotInTheAccount) {
  const std::vector<TokenId> tokens = RandomTokens(4, 96, 6);
  uint64_t of_all = 0;
  for (const char* layers : {"all", "1", "none"}) {
    const Rig rig = RigOf(gguf::TensorType::kI2_S, With(FabricProfile::kNative, "profile", layers));
    RunAlone(*rig.engine, tokens, 0);
    const fabric::DeviceCounters counters = rig.device->Counters();
    if (of_all == 0) of_all = counters.total_ops;
    const uint64_t share = std::string(layers) == "all" ? 3 : std::string(layers) == "1" ? 1 : 0;
    EXPECT_EQ(counters.total_ops, of_all / 3 * share) << layers;
    EXPECT_EQ(counters.fabric_seconds > 0, share > 0) << layers;
  }
  EXPECT_GT(of_all, 0U);
}

}  // namespace
}  // namespace engine
