// What recurrent states, mixtures of experts, sliding windows and rotations add to the engine's
// promises: the same bits however tokens are cut and whoever else runs, a state that is found at
// its position or not used at all, and files that contradict themselves refused by name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/errors.h"
#include "engine/state_cache.h"
#include "gguf/codec.h"
#include "tests/engine/rig.h"
#include "tests/engine/walkers.h"

namespace engine {
namespace {

using testing::CheckInvariance;
using ::testing::HasSubstr;
using testing::LoadBytes;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;
using testing::Walker;
using testing::WalkerSink;

constexpr uint32_t kVocabulary = 48;

std::string GoldenFile(const std::string& name) {
  return TERN_SOURCE_DIR "/tests/data/golden/arch/" + name + ".gguf";
}

// A copy of a file that may be changed; matrices whose columns allow it become ternary.
gguf::Writer CopyOf(const std::string& name, bool ternary = false,
                    const std::string& without = "") {
  const gguf::File file = gguf::File::Open(GoldenFile(name));
  gguf::Writer writer;
  writer.metadata() = file.metadata();
  for (const gguf::TensorInfo& info : file.tensors()) {
    if (info.name == without) continue;
    std::vector<uint64_t> extents(info.extents.begin(), info.extents.begin() + info.rank);
    const auto bytes = file.TensorBytes(info);
    if (!ternary || info.rank < 2 || info.cols() % 64 != 0 || !info.name.starts_with("blk.")) {
      writer.AddTensor(info.name, info.type, extents, {bytes.begin(), bytes.end()});
      continue;
    }
    std::vector<float> values(info.elements());
    for (uint64_t row = 0; row < info.rows(); ++row) {
      const auto out = std::span(values).subspan(row * info.cols(), info.cols());
      gguf::DequantizeRow(info, bytes, {}, row, out);
      for (float& value : out) value = value > 0.05F ? 0.125F : value < -0.05F ? -0.125F : 0.0F;
    }
    writer.AddTensor(
        info.name, gguf::TensorType::kIQ2_BN, extents,
        gguf::EncodeTensor(gguf::TensorType::kIQ2_BN, info.rows(), info.cols(), values));
  }
  return writer;
}

Rig RigOf(const gguf::Writer& model, const EngineOptions& options, int threads = 1,
          const std::string& device_name = "sim",
          fabric::SparseChoice sparse = fabric::SparseChoice::kAuto) {
  auto team = std::make_unique<fabric::WorkerTeam>(threads);
  fabric::FabricOptions fabric_options;
  fabric_options.device = device_name;
  fabric_options.sparse = sparse;
  std::unique_ptr<fabric::Device> device = fabric::CreateDevice(fabric_options, *team);
  auto loaded = LoadBytes(model.Serialize(), options, *device);
  return Rig(std::move(loaded), options, std::move(device), std::move(team));
}

std::string LoadError(const gguf::Writer& model) {
  try {
    RigOf(model, SmallOptions());
    return "";
  } catch (const ModelError& error) {
    return error.what();
  }
}

class EveryArchitecture : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryArchitecture, BitsDoNotDependOnHowTokensAreCut) {
  for (const bool ternary : {false, true}) {
    Rig rig = RigOf(CopyOf(GetParam(), ternary), SmallOptions());
    Rig two = RigOf(CopyOf(GetParam(), ternary), SmallOptions(), 2);
    const std::vector<TokenId> tokens = RandomTokens(75, kVocabulary, 3);
    const LogitRows expected = RunAlone(*rig.engine, tokens, 0, 1);
    for (const size_t chunk : {2U, 5U, 16U, 75U}) {
      EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0, chunk) == expected) << chunk;
      EXPECT_TRUE(RunAlone(*two.engine, tokens, 0, chunk) == expected) << chunk << ", two threads";
    }
  }
}

TEST_P(EveryArchitecture, EveryDeviceGivesTheSameBits) {
  const std::vector<TokenId> tokens = RandomTokens(20, kVocabulary, 3);
  Rig sim = RigOf(CopyOf(GetParam(), true), SmallOptions());
  const LogitRows expected = RunAlone(*sim.engine, tokens, 0);
  for (const char* device : {"reference", "stub", "ioctl"}) {
    Rig rig = RigOf(CopyOf(GetParam(), true), SmallOptions(), 1, device);
    EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0) == expected) << device;
    EXPECT_EQ(rig.device->Counters().host_fallbacks, 0U) << device;
  }
}

// Block scales, scales per group and stacks of experts are among them.
TEST_P(EveryArchitecture, SparseMatricesGiveTheBitsOfDenseOnes) {
  const std::vector<TokenId> tokens = RandomTokens(20, kVocabulary, 3);
  Rig dense = RigOf(CopyOf(GetParam(), true), SmallOptions());
  const LogitRows expected = RunAlone(*dense.engine, tokens, 0);
  for (const char* device : {"sim", "reference", "stub", "ioctl"}) {
    Rig sparse =
        RigOf(CopyOf(GetParam(), true), SmallOptions(), 2, device, fabric::SparseChoice::kAlways);
    EXPECT_TRUE(RunAlone(*sparse.engine, tokens, 0) == expected) << device;
    EXPECT_EQ(sparse.device->Counters().host_fallbacks, 0U) << device;
    size_t matrices = 0;
    for (const TensorPlacement& placement : sparse.model->weights().placements) {
      matrices += placement.layout == "sparse" ? 1 : 0;
    }
    EXPECT_GT(matrices, 0U);
    if (std::string_view(device) == "sim") {
      const fabric::DeviceCounters a = sparse.device->Counters();
      const fabric::DeviceCounters b = dense.device->Counters();
      EXPECT_EQ(a.active_ops, b.active_ops);
      EXPECT_EQ(a.total_ops, b.total_ops);
      EXPECT_EQ(a.fabric_cost, b.fabric_cost);
      EXPECT_NE(a.weight_bytes, b.weight_bytes);
    }
  }
}

TEST_P(EveryArchitecture, RandomBatchesGiveTheSoloBits) {
  for (const bool ternary : {false, true}) {
    Rig solo = RigOf(CopyOf(GetParam(), ternary), SmallOptions());
    Rig rig = RigOf(CopyOf(GetParam(), ternary), SmallOptions(), 2);
    CheckInvariance(*rig.engine, *solo.engine, {60, 1, 17, 33, 80}, 7);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, EveryArchitecture,
                         ::testing::Values("llama-hadamard", "qwen35", "qwen35-hadamard", "maple",
                                           "gemma3", "bitnet-embedding-qwen3",
                                           "bitnet-embedding-gemma3"));

// ------------------------------------------------------------------------- recurrent states

// One step of one row at `position`; its status and last logits.
std::pair<RowStatus, LogitRows> StepOnce(Engine& engine, const std::vector<TokenId>& tokens,
                                         uint32_t position, uint32_t count, uint32_t slot) {
  std::vector<BlockId> blocks(8);
  std::iota(blocks.begin(), blocks.end(), slot * 8);
  const uint32_t last = count - 1;
  std::vector<Walker> walkers(1);
  const std::vector<size_t> rows = {0};
  WalkerSink sink(&walkers, rows);
  const BatchRow row = {.tokens = std::span(tokens).subspan(position, count),
                        .first_position = position,
                        .block_table = blocks,
                        .outputs = {&last, 1},
                        .output_kind = OutputKind::kLogits,
                        .state_slot = slot};
  const RowStatus status = engine.Step({.rows = {&row, 1}, .sink = &sink}).rows[0].status;
  return {status, walkers[0].logits};
}

TEST(RecurrentState, ServesOnlyItsOwnPosition) {
  Rig rig(GoldenFile("qwen35"), SmallOptions());
  Engine& engine = *rig.engine;
  const std::vector<TokenId> tokens = RandomTokens(60, kVocabulary, 5);
  EXPECT_EQ(StepOnce(engine, tokens, 5, 1, 0).first, RowStatus::kStateLost) << "nothing yet";
  EXPECT_EQ(StepOnce(engine, tokens, 0, 20, 0).first, RowStatus::kOk);
  EXPECT_EQ(StepOnce(engine, tokens, 20, 5, 0).first, RowStatus::kOk);
  EXPECT_EQ(StepOnce(engine, tokens, 24, 1, 0).first, RowStatus::kStateLost) << "gone past";
  EXPECT_EQ(StepOnce(engine, tokens, 25, 1, 0).first, RowStatus::kStateLost)
      << "a row that failed left nothing";
  // A sequence that begins in the slot finds nothing of what was there.
  const auto [status, logits] = StepOnce(engine, tokens, 0, 30, 0);
  EXPECT_EQ(status, RowStatus::kOk);
  Rig fresh(GoldenFile("qwen35"), SmallOptions());
  EXPECT_TRUE(logits == StepOnce(*fresh.engine, tokens, 0, 30, 3).second);
}

// Fails the n-th submission.
class FailingDevice : public fabric::Device {
 public:
  FailingDevice(std::unique_ptr<fabric::Device> inner) : inner_(std::move(inner)) {}
  void FailAt(int submission) { countdown_ = submission; }

  std::string_view name() const override { return "failing"; }
  fabric::Status Upload(fabric::Matrix matrix, fabric::MatrixId* id) override {
    return inner_->Upload(std::move(matrix), id);
  }
  fabric::Status Free(fabric::MatrixId id) noexcept override { return inner_->Free(id); }
  fabric::Status Submit(std::span<const fabric::ProjectionOp> ops,
                        fabric::Ticket* ticket) noexcept override {
    if (countdown_ > 0 && --countdown_ == 0) return fabric::Status::kErrBusy;
    return inner_->Submit(ops, ticket);
  }
  fabric::Status Wait(fabric::Ticket ticket) noexcept override { return inner_->Wait(ticket); }
  fabric::DeviceCounters Counters() const noexcept override { return inner_->Counters(); }
  size_t resident_bytes() const noexcept override { return inner_->resident_bytes(); }

 private:
  std::unique_ptr<fabric::Device> inner_;
  int countdown_ = 0;
};

TEST(RecurrentState, StepThatIsRunAgainGivesTheSameBits) {
  auto team = std::make_unique<fabric::WorkerTeam>(1);
  auto device = std::make_unique<FailingDevice>(fabric::CreateDevice({}, *team));
  FailingDevice& failing = *device;
  const EngineOptions options = SmallOptions();
  auto model = LoadBytes(CopyOf("qwen35").Serialize(), options, failing);
  Rig rig(std::move(model), options, std::move(device), std::move(team));
  Rig sound(GoldenFile("qwen35"), options);
  const std::vector<TokenId> tokens = RandomTokens(60, kVocabulary, 5);
  uint32_t position = 0;
  for (const int at : {3, 9, 14, 20}) {
    failing.FailAt(at);
    const auto [status, logits] = StepOnce(*rig.engine, tokens, position, 7, 0);
    ASSERT_EQ(status, RowStatus::kOk);
    EXPECT_TRUE(logits == StepOnce(*sound.engine, tokens, position, 7, 0).second) << at;
    position += 7;
  }
}

TEST(RecurrentState, TakesSlotsForTheSequencesThatMayRun) {
  EngineOptions options = SmallOptions();
  options.max_sequences = 5;
  Rig rig(GoldenFile("qwen35"), options);
  const KvGeometry& geometry = rig.engine->kv_geometry();
  EXPECT_EQ(geometry.state_slots, 5U);
  EXPECT_EQ(geometry.layers, 1U) << "one layer of five has keys and values";
  // Four layers, twice: three taps of 128 channels and four heads of 16 x 16.
  EXPECT_EQ(StateCache::BytesPerSlot(rig.model->config()),
            2 * 4 * (3 * 128 + 4 * 16 * 16) * sizeof(float));
  Rig llama(GoldenFile("llama"), options);
  EXPECT_EQ(llama.engine->kv_geometry().state_slots, 0U);
}

// ------------------------------------------------------------------------- mixture of experts

TEST(MixtureOfExperts, DeviceAccountsForTheExpertsThatAreUsed) {
  Rig rig = RigOf(CopyOf("maple", true), SmallOptions());
  const uint32_t tokens = 10;
  const fabric::DeviceCounters before = rig.device->Counters();
  RunAlone(*rig.engine, RandomTokens(tokens, kVocabulary, 3), tokens);
  const fabric::DeviceCounters after = rig.device->Counters();
  // Per layer and token, of columns that are multiples of 64: q, k, v, output, the router of 8
  // rows, and gate and up of 3 experts of 32 rows.
  const uint64_t rows = 64 + 32 + 32 + 64 + 8 + 3 * 2 * 32;
  EXPECT_EQ(after.total_ops - before.total_ops, 4 * tokens * rows * 64);
  EXPECT_GT(after.active_ops, before.active_ops);
  EXPECT_LT(after.active_ops - before.active_ops, after.total_ops - before.total_ops);
}

// ------------------------------------------------------------------------------- refusals

TEST(Architectures, MissingTensorsAreNamedWithTheArchitecture) {
  EXPECT_EQ(LoadError(CopyOf("qwen35", false, "blk.1.ssm_beta.weight")),
            "The file has no tensor blk.1.ssm_beta.weight, which a qwen35 model needs (4 x 64).");
  EXPECT_EQ(LoadError(CopyOf("qwen35", false, "blk.3.attn_k.weight")),
            "The file has no tensor blk.3.attn_k.weight, which a qwen35 model needs (64 x 64).");
  EXPECT_EQ(LoadError(CopyOf("maple", false, "blk.2.ffn_up_exps.weight")),
            "The file has no tensor blk.2.ffn_up_exps.weight, which a maple model needs (256 x "
            "64).");
  EXPECT_EQ(LoadError(CopyOf("gemma3", false, "blk.6.post_ffw_norm.weight")),
            "The file has no tensor blk.6.post_ffw_norm.weight, which a gemma3 model needs (1 x "
            "32).");
}

// All projections have a norm before them, or none has.
TEST(Architectures, NormsBeforeSomeProjectionsAreRefused) {
  for (const char* projection : {"attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"}) {
    const std::string name = std::string("blk.1.") + projection + "_norm_in.weight";
    EXPECT_THAT(LoadError(CopyOf("bitnet-embedding-qwen3", false, name)),
                HasSubstr("The file has no tensor " + name));
  }
  EXPECT_EQ(LoadError(CopyOf("bitnet-embedding-gemma3", false, "blk.0.attn_q_norm_in.weight")),
            "The tensor blk.0.attn_k_norm_in.weight is not part of a gemma3 model as this engine "
            "knows it.");
}

// The error after one key was replaced; no value drops it.
std::string ErrorWith(const std::string& name, const std::string& key, gguf::MetadataValue value) {
  gguf::Writer writer = CopyOf(name);
  writer.metadata().Set(key, std::move(value));
  return LoadError(writer);
}

gguf::MetadataValue Uint(uint64_t value) { return {gguf::ValueType::kUint32, value}; }
gguf::MetadataValue Text(const std::string& value) { return {gguf::ValueType::kString, value}; }
gguf::MetadataValue Texts(std::vector<std::string> values) {
  return {gguf::ValueType::kArray, gguf::MetadataArray{.element_type = gguf::ValueType::kString,
                                                       .values = std::move(values)}};
}
gguf::MetadataValue Ints(std::vector<int64_t> values) {
  return {gguf::ValueType::kArray, gguf::MetadataArray{.element_type = gguf::ValueType::kInt32,
                                                       .values = std::move(values)}};
}

TEST(Architectures, ContradictoryMetadataIsRefused) {
  EXPECT_THAT(ErrorWith("qwen35", "qwen35.ssm.time_step_rank", Uint(3)),
              HasSubstr("qwen35.ssm.time_step_rank (3) must be a multiple of"));
  EXPECT_THAT(ErrorWith("qwen35", "qwen35.ssm.inner_size", Uint(63)),
              HasSubstr("qwen35.ssm.inner_size (63) must be qwen35.ssm.time_step_rank (4) heads"));
  EXPECT_THAT(ErrorWith("qwen35", "qwen35.full_attention_interval", Uint(9)),
              HasSubstr("no layer of full attention"));
  EXPECT_THAT(ErrorWith("qwen35", "qwen35.nextn_predict_layers", Uint(5)),
              HasSubstr("qwen35.nextn_predict_layers (5) must be below qwen35.block_count (5)"));
  EXPECT_THAT(ErrorWith("maple", "maple.expert_used_count", Uint(9)),
              HasSubstr("maple.expert_used_count (9) must be at most maple.expert_count (8)"));
  EXPECT_THAT(ErrorWith("maple", "maple.expert_shared_count", Uint(1)),
              HasSubstr("shared experts are not supported"));
  EXPECT_THAT(ErrorWith("maple", "maple.attention.sliding_window_pattern", Ints({1, 1})),
              HasSubstr("must be a list of a boolean for each of the 4 layers"));
  EXPECT_THAT(
      ErrorWith("gemma3", "gemma3.final_logit_softcapping", {gguf::ValueType::kFloat32, 30.0}),
      HasSubstr("gemma3.final_logit_softcapping is set: soft caps are not supported"));
  EXPECT_THAT(ErrorWith("llama", "llama.expert_count", Uint(8)),
              HasSubstr("mixture-of-experts models of architecture llama are not supported"));
}

TEST(Architectures, BlocksThatOnlyDraftAreLeftOut) {
  gguf::Writer writer = CopyOf("qwen35");
  writer.metadata().Set("qwen35.nextn_predict_layers", Uint(1));
  writer.metadata().Set("qwen35.block_count", Uint(6));
  const std::vector<std::byte> bytes(64 * sizeof(float));
  writer.AddTensor("blk.5.nextn.enorm.weight", gguf::TensorType::kF32, {64}, bytes);
  Rig drafting = RigOf(writer, SmallOptions());
  Rig plain = RigOf(CopyOf("qwen35"), SmallOptions());
  const std::vector<TokenId> tokens = RandomTokens(20, kVocabulary, 3);
  EXPECT_TRUE(RunAlone(*drafting.engine, tokens, 0) == RunAlone(*plain.engine, tokens, 0));
}

TEST(Hadamard, MetadataThatIsNotUnderstoodIsRefused) {
  const auto error = [](const std::string& key, gguf::MetadataValue value) {
    return ErrorWith("llama-hadamard", "prism.hadamard." + key, std::move(value));
  };
  EXPECT_THAT(error("version", Uint(2)), HasSubstr("version must be 1, but the file says 2"));
  EXPECT_THAT(error("transform", Text("dct")), HasSubstr("but the file says \"dct\""));
  EXPECT_THAT(error("axis", Text("output")), HasSubstr("axis must be \"input-last-dimension\""));
  EXPECT_THAT(error("block_size", Uint(48)), HasSubstr("block_size must be a power of two"));
  EXPECT_THAT(error("block_size", Uint(64)),
              HasSubstr("sign_widths must be multiples of the block size 64, but the file has 96"));
  EXPECT_THAT(error("sign_mode", Text("random")), HasSubstr("sign_mode must be"));
  EXPECT_THAT(error("sign_widths", Ints({64, 64})), HasSubstr("sign_widths has 64 twice"));
  EXPECT_THAT(error("sign_widths", Ints({64})), HasSubstr("but sign_widths add up to 64"));
  EXPECT_THAT(error("sign_widths", Ints({64, 128})), HasSubstr("fewer than sign_widths add up to"));
  EXPECT_THAT(error("sign_values", Ints(std::vector<int64_t>(160, 2))),
              HasSubstr("sign_values must be 1 or -1, but the file has 2"));
  EXPECT_THAT(error("weight_names", Texts({"blk.9.attn_q.weight"})),
              HasSubstr("lists blk.9.attn_q.weight, which the file does not have"));
  EXPECT_THAT(error("weight_names", Texts({"blk.0.attn_norm.weight"})),
              HasSubstr("lists blk.0.attn_norm.weight"));
  EXPECT_THAT(error("inverse_weight_names", Texts({"output.weight"})),
              HasSubstr("only token_embd.weight is looked up by rows"));
  EXPECT_THAT(ErrorWith("maple", "prism.hadamard.version", Uint(1)),
              HasSubstr("transform must be"));
}

}  // namespace
}  // namespace engine
