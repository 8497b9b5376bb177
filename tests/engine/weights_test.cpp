// A tensor becomes the same matrix from every file that says the same; tensors that lie about their
// shape, are missing or unknown are refused; nothing is read after load.

#include "engine/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <variant>

#include "engine/errors.h"
#include "gguf/codec.h"
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

// Keeps what is uploaded instead of running it.
class ShelfDevice : public fabric::Device {
 public:
  std::string_view name() const override { return "shelf"; }
  fabric::Status Upload(fabric::Matrix matrix, fabric::MatrixId* id) override {
    matrices.push_back(std::move(matrix));
    *id = {static_cast<uint32_t>(matrices.size() - 1), 1};
    return fabric::Status::kOk;
  }
  fabric::Status Free(fabric::MatrixId) noexcept override { return fabric::Status::kOk; }
  fabric::Status Submit(std::span<const fabric::ProjectionOp>, fabric::Ticket*) noexcept override {
    return fabric::Status::kErrUnsupported;
  }
  fabric::Status Wait(fabric::Ticket) noexcept override { return fabric::Status::kErrUnsupported; }
  fabric::DeviceCounters Counters() const noexcept override { return {}; }
  size_t resident_bytes() const noexcept override { return 0; }

  const fabric::TernaryMatrix& Ternary(const Linear& linear) const {
    return std::get<fabric::TernaryMatrix>(matrices[linear.matrix.index]);
  }
  const fabric::DenseMatrix& Dense(const Linear& linear) const {
    return *std::get<std::shared_ptr<const fabric::DenseMatrix>>(matrices[linear.matrix.index]);
  }

  std::vector<fabric::Matrix> matrices;
};

Weights Load(const gguf::Writer& writer, fabric::Device& device,
             const EngineOptions& options = {}) {
  const std::vector<std::byte> bytes = writer.Serialize();
  const gguf::File file = gguf::File::Parse(bytes);
  PackedCache no_cache;
  return LoadWeights(file, ModelConfig::FromGguf(file, options), device, options, no_cache);
}

// `source` with one tensor replaced (or added); nullopt bytes drop it.
gguf::Writer With(const gguf::Writer& source, const std::string& name, gguf::TensorType type,
                  std::vector<uint64_t> extents, std::optional<std::vector<std::byte>> bytes) {
  const std::vector<std::byte> serialized = source.Serialize();
  const gguf::File file = gguf::File::Parse(serialized);
  gguf::Writer writer;
  writer.metadata() = file.metadata();
  for (const gguf::TensorInfo& info : file.tensors()) {
    if (info.name == name) continue;
    const auto span = file.TensorBytes(info);
    std::vector<uint64_t> shape(info.extents.begin(), info.extents.begin() + info.rank);
    writer.AddTensor(info.name, info.type, shape, {span.begin(), span.end()});
  }
  if (bytes) writer.AddTensor(name, type, std::move(extents), std::move(*bytes));
  return writer;
}

std::vector<std::byte> Floats(const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TinyShape LlamaShape(gguf::TensorType type) {
  return {.architecture = "llama",
          .hidden = 256,
          .heads = 16,
          .ffn = 256,
          .projections = type,
          .sub_norms = false};
}

// A 256 x 256 TQ2_0 gate whose row r has trits (r + c) % 3 - 1 and scale(r).
template <typename Scale>
gguf::Writer WithGate(const Scale& scale) {
  std::vector<float> values(256 * 256);
  for (size_t r = 0; r < 256; ++r) {
    for (size_t c = 0; c < 256; ++c) {
      values[r * 256 + c] = scale(r) * static_cast<float>(static_cast<int>((r + c) % 3) - 1);
    }
  }
  return With(TinyWriter(LlamaShape(gguf::TensorType::kTQ2_0)), "blk.0.ffn_gate.weight",
              gguf::TensorType::kTQ2_0, {256, 256},
              gguf::EncodeTensor(gguf::TensorType::kTQ2_0, 256, 256, values));
}

void ExpectGateTrits(const fabric::TernaryMatrix& matrix) {
  std::vector<int8_t> trits(256);
  for (uint32_t r = 0; r < 256; ++r) {
    matrix.GetRow(r, trits);
    for (size_t c = 0; c < 256; ++c) {
      ASSERT_EQ(trits[c], static_cast<int>((r + c) % 3) - 1) << r << " " << c;
    }
  }
}

TEST(LoadWeights, EqualScalesCollapseToOnePerTensor) {
  ShelfDevice device;
  // The scale of an all-zero row means nothing and must not get in the way.
  const Weights weights = Load(WithGate([](size_t r) { return r == 9 ? 0.0F : 0.25F; }), device);
  const fabric::TernaryMatrix& gate = device.Ternary(weights.layers[0].gate);
  EXPECT_EQ(gate.scale_kind(), fabric::ScaleKind::kTensor);
  EXPECT_EQ(gate.ScaleAt(0, 0), 0.25F);
  EXPECT_EQ(weights.layers[0].gate.activation, fabric::ActivationKind::kInt8Token);
}

TEST(LoadWeights, ScalesEqualWithinRowsCollapseToOnePerRow) {
  ShelfDevice device;
  const Weights weights =
      Load(WithGate([](size_t r) { return static_cast<float>(1 + r % 4); }), device);
  const fabric::TernaryMatrix& gate = device.Ternary(weights.layers[0].gate);
  EXPECT_EQ(gate.scale_kind(), fabric::ScaleKind::kRow);
  for (uint32_t r = 0; r < 256; ++r) EXPECT_EQ(gate.ScaleAt(r, 17), static_cast<float>(1 + r % 4));
  ExpectGateTrits(gate);
  EXPECT_EQ(weights.layers[0].gate.activation, fabric::ActivationKind::kInt8Block);
}

TEST(LoadWeights, DifferentGroupsKeepTheirScales) {
  TinyShape shape = LlamaShape(gguf::TensorType::kTQ2_0);
  shape.ffn = 512;
  std::vector<float> values(256 * 512);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(static_cast<int>(i % 3) - 1) * (i % 512 < 256 ? 0.5F : 0.75F);
  }
  ShelfDevice device;
  const Weights weights =
      Load(With(TinyWriter(shape), "blk.1.ffn_down.weight", gguf::TensorType::kTQ2_0, {512, 256},
                gguf::EncodeTensor(gguf::TensorType::kTQ2_0, 256, 512, values)),
           device);
  const fabric::TernaryMatrix& down = device.Ternary(weights.layers[1].down);
  EXPECT_EQ(down.scale_kind(), fabric::ScaleKind::kGroup);
  EXPECT_EQ(down.group(), 256U);
  EXPECT_EQ(down.ScaleAt(100, 255), 0.5F);
  EXPECT_EQ(down.ScaleAt(100, 256), 0.75F);
}

TEST(LoadWeights, ScaleTensorIsFoldedIn) {
  const float factor = 3.0F;
  for (const gguf::TensorType type : {gguf::TensorType::kI2_S, gguf::TensorType::kF16}) {
    const gguf::Writer writer = TinyWriter({.projections = type});
    ShelfDevice plain_device;
    ShelfDevice scaled_device;
    const Weights plain = Load(writer, plain_device);
    const Weights scaled =
        Load(With(writer, "blk.1.attn_k.scale", gguf::TensorType::kF32, {1}, Floats({factor})),
             scaled_device);
    if (type == gguf::TensorType::kI2_S) {
      EXPECT_EQ(scaled_device.Ternary(scaled.layers[1].key).ScaleAt(0, 0),
                factor * plain_device.Ternary(plain.layers[1].key).ScaleAt(0, 0));
      continue;
    }
    std::vector<float> before(128);
    std::vector<float> after(128);
    plain_device.Dense(plain.layers[1].key).GetRow(5, before);
    scaled_device.Dense(scaled.layers[1].key).GetRow(5, after);
    for (size_t i = 0; i < 128; ++i) EXPECT_EQ(after[i], factor * before[i]);
  }
}

TEST(LoadWeights, FloatActivationsTurnTritsIntoFloats) {
  EngineOptions options;
  options.activation = ActivationMode::kFloat;
  ShelfDevice device;
  const Weights weights = Load(WithGate([](size_t) { return 0.5F; }), device, options);
  EXPECT_EQ(weights.layers[0].gate.activation, fabric::ActivationKind::kFloat);
  std::vector<float> row(256);
  device.Dense(weights.layers[0].gate).GetRow(7, row);
  for (size_t c = 0; c < 256; ++c) {
    EXPECT_EQ(row[c], 0.5F * static_cast<float>(static_cast<int>((7 + c) % 3) - 1));
  }
}

TEST(LoadWeights, TiedHeadSharesTheEmbedding) {
  ShelfDevice device;
  const Weights weights = Load(TinyWriter({}), device);
  EXPECT_EQ(&device.Dense(weights.head), weights.embedding.dense.get());
  EXPECT_EQ(weights.embedding.dense->type(), fabric::DenseType::kF16);
}

// Any bytes are blocks of some weights; fp16 infinities and NaNs are made finite.
std::vector<std::byte> RandomBlocks(gguf::TensorType type, uint64_t rows, uint64_t cols) {
  std::mt19937 random(static_cast<uint32_t>(type));
  std::vector<std::byte> bytes(gguf::TensorByteSize(type, rows, cols));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xBB);
  return bytes;
}

TEST(LoadWeights, BlockTypesStayPackedAndMeanTheSame) {
  for (const gguf::TensorType type :
       {gguf::TensorType::kQ4_0, gguf::TensorType::kQ4_1, gguf::TensorType::kQ5_0,
        gguf::TensorType::kQ5_1, gguf::TensorType::kQ8_0, gguf::TensorType::kIQ4_NL,
        gguf::TensorType::kQ2_K, gguf::TensorType::kQ3_K, gguf::TensorType::kQ4_K,
        gguf::TensorType::kQ5_K, gguf::TensorType::kQ6_K, gguf::TensorType::kIQ4_XS}) {
    const std::vector<std::byte> blocks = RandomBlocks(type, 96, 256);
    const gguf::Writer writer = With(TinyWriter(LlamaShape(gguf::TensorType::kF16)),
                                     "token_embd.weight", type, {256, 96}, blocks);
    ShelfDevice device;
    const Weights weights = Load(writer, device);
    ASSERT_NE(weights.embedding.quantized, nullptr) << gguf::TypeName(type);
    EXPECT_EQ(weights.head.activation, fabric::ActivationKind::kInt8Block);
    // The bits of the file, but for 4- and 6-bit scales that are kept in bytes.
    EXPECT_LE(static_cast<double>(weights.embedding.quantized->bytes()),
              1.25 * static_cast<double>(blocks.size()) + 512);
    const std::vector<std::byte> bytes = writer.Serialize();
    const gguf::File file = gguf::File::Parse(bytes);
    const gguf::TensorInfo& info = *file.FindTensor("token_embd.weight");
    std::vector<float> expected(256);
    std::vector<float> row(256);
    for (uint32_t r = 0; r < 96; ++r) {
      gguf::DequantizeRow(info, file.TensorBytes(info), {}, r, expected);
      weights.embedding.GetRow(r, row);
      ASSERT_EQ(std::memcmp(row.data(), expected.data(), 256 * sizeof(float)), 0)
          << gguf::TypeName(type) << " row " << r;
    }
  }
}

TEST(LoadWeights, PlacementsAccountForEveryTensorAndByte) {
  ShelfDevice device;
  const gguf::Writer writer = TinyWriter({});
  const Weights weights = Load(writer, device);
  const std::vector<std::byte> bytes = writer.Serialize();
  const gguf::File file = gguf::File::Parse(bytes);
  EXPECT_EQ(weights.placements.size(), file.tensors().size());
  uint64_t resident = 0;
  for (const TensorPlacement& placement : weights.placements) {
    resident += placement.resident_bytes;
    if (placement.file_type == "I2_S") {
      EXPECT_EQ(placement.activation, "int8 per token");
      EXPECT_NEAR(placement.zero_rate, 1.0 / 3, 0.05);
    }
  }
  EXPECT_EQ(weights.resident_bytes, resident);
}

TEST(LoadWeights, RefusesTensorsThatDoNotFit) {
  struct Case {
    gguf::Writer writer;
    const char* named;
  };
  const gguf::Writer good = TinyWriter({});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<Case> cases;
  cases.push_back({With(good, "blk.1.ffn_up.weight", gguf::TensorType::kF32, {}, std::nullopt),
                   "blk.1.ffn_up.weight"});
  cases.push_back({With(good, "blk.0.attn_norm.weight", gguf::TensorType::kF32, {32},
                        Floats(std::vector<float>(32, 1.0F))),
                   "1 x 128"});
  cases.push_back({With(good, "blk.0.attn_q.weight", gguf::TensorType::kF32, {128, 32},
                        Floats(std::vector<float>(128 * 32))),
                   "128 x 128"});
  cases.push_back({With(good, "token_embd.weight", gguf::TensorType::kF32, {128, 95},
                        Floats(std::vector<float>(128 * 95))),
                   "96 x 128"});
  cases.push_back({With(good, "output_norm.weight", gguf::TensorType::kF32, {128},
                        Floats(std::vector<float>(128, nan))),
                   "not finite"});
  cases.push_back({With(good, "blk.0.attn_q_unheard_of.weight", gguf::TensorType::kF32, {128},
                        Floats(std::vector<float>(128, 1.0F))),
                   "blk.0.attn_q_unheard_of.weight"});
  cases.push_back({With(good, "blk.0.attn_q.scale", gguf::TensorType::kF32, {1},
                        Floats({std::numeric_limits<float>::infinity()})),
                   "blk.0.attn_q.scale"});
  cases.push_back({With(good, "rope_freqs.weight", gguf::TensorType::kF32, {8},
                        Floats(std::vector<float>(8, 0.0F))),
                   "rope_freqs.weight"});
  for (const Case& test : cases) {
    ShelfDevice device;
    try {
      Load(test.writer, device);
      ADD_FAILURE() << "accepted: " << test.named;
    } catch (const ModelError& error) {
      EXPECT_THAT(error.what(), HasSubstr(test.named));
    }
  }
}

TEST(LoadWeights, NothingReadsTheFileAfterLoad) {
  auto team = std::make_unique<fabric::WorkerTeam>(1);
  auto device = fabric::CreateDevice({}, *team);
  const std::vector<std::byte> original = TinyWriter({}).Serialize();
  std::vector<std::byte> bytes = original;
  auto model = testing::LoadBytes(bytes, SmallOptions(), *device);
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  Rig rig(std::move(model), SmallOptions(), std::move(device), std::move(team));
  Rig expected = testing::TinyRig({}, SmallOptions());
  const std::vector<TokenId> tokens = RandomTokens(20, 96, 1);
  EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0) == RunAlone(*expected.engine, tokens, 0));
}

TEST(LoadWeights, EveryTernaryFormatGivesTheSameBits) {
  // One seed gives one set of trits; 256 columns suit every format.
  TinyShape shape = LlamaShape(gguf::TensorType::kI2_S);
  const std::vector<TokenId> tokens = RandomTokens(40, shape.vocabulary, 3);
  Rig reference = testing::TinyRig(shape, SmallOptions());
  const LogitRows expected = RunAlone(*reference.engine, tokens, 0);
  for (const gguf::TensorType type :
       {gguf::TensorType::kTQ1_0, gguf::TensorType::kTQ2_0, gguf::TensorType::kQ2_0,
        gguf::TensorType::kPQ2_0, gguf::TensorType::kPTQ1_0, gguf::TensorType::kIQ1_BN,
        gguf::TensorType::kIQ2_BN, gguf::TensorType::kIQ2_BN_R4}) {
    shape.projections = type;
    Rig rig = testing::TinyRig(shape, SmallOptions());
    EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0) == expected) << gguf::TypeName(type);
  }
}

}  // namespace
}  // namespace engine
