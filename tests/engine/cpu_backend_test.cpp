// A step's outputs are what the rows asked for, and what goes wrong with one row, in its numbers or
// on the device, stays with it.

#include "engine/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/candidates.h"
#include "gguf/reader.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using testing::LoadBytes;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;
using testing::TinyRig;
using testing::TinyShape;
using testing::TinyWriter;

// Passes everything on to a real device, but fails when told to.
class FaultyDevice : public fabric::Device {
 public:
  explicit FaultyDevice(std::unique_ptr<fabric::Device> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return "faulty"; }
  fabric::Status Upload(fabric::Matrix matrix, fabric::MatrixId* id) override {
    if (uploads_until_full-- == 0) return fabric::Status::kErrNoMem;
    return inner_->Upload(std::move(matrix), id);
  }
  fabric::Status Free(fabric::MatrixId id) noexcept override { return inner_->Free(id); }
  fabric::Status Submit(std::span<const fabric::ProjectionOp> ops,
                        fabric::Ticket* ticket) noexcept override {
    const int number = submits++;
    if (learn) {
      const fabric::ActivationView& x = *ops[0].x;
      poison.assign(x.codes, x.codes + x.cols);
      learn = false;
    }
    if (number == fail_submit || Poisoned(*ops[0].x)) return fabric::Status::kErrTimeout;
    const fabric::Status status = inner_->Submit(ops, ticket);
    fail_this_wait_ = number == fail_wait;
    return status;
  }
  fabric::Status Wait(fabric::Ticket ticket) noexcept override {
    const fabric::Status status = inner_->Wait(ticket);
    return fail_this_wait_ ? fabric::Status::kErrBusy : status;
  }
  fabric::DeviceCounters Counters() const noexcept override { return inner_->Counters(); }
  size_t resident_bytes() const noexcept override { return inner_->resident_bytes(); }

  int uploads_until_full = -1;
  int submits = 0;
  int fail_submit = -1;        // number of the Submit() that fails
  int fail_wait = -1;          // number of the Submit() whose Wait() fails, after the work is done
  bool learn = false;          // take the next input's first token as the poison
  std::vector<int8_t> poison;  // inputs that hold this vector always fail

 private:
  bool Poisoned(const fabric::ActivationView& x) const {
    if (poison.empty() || x.codes == nullptr || x.cols != poison.size()) return false;
    for (uint32_t t = 0; t < x.tokens; ++t) {
      if (std::memcmp(x.codes + t * x.code_stride, poison.data(), poison.size()) == 0) return true;
    }
    return false;
  }

  std::unique_ptr<fabric::Device> inner_;
  bool fail_this_wait_ = false;
};

struct FaultyRig {
  FaultyRig(const TinyShape& shape, const EngineOptions& options) {
    auto team = std::make_unique<fabric::WorkerTeam>(1);
    auto owned = std::make_unique<FaultyDevice>(fabric::CreateDevice({}, *team));
    device = owned.get();
    auto model = LoadBytes(TinyWriter(shape).Serialize(), options, *owned);
    rig.emplace(std::move(model), options, std::move(owned), std::move(team));
  }
  FaultyDevice* device = nullptr;
  std::optional<Rig> rig;
};

// Rows of one batch, row i over its own blocks, logits after its last token.
class RowBatch : public LogitsSink {
 public:
  explicit RowBatch(const std::vector<std::vector<TokenId>>& sequences,
                    OutputKind kind = OutputKind::kLogits)
      : sequences_(sequences), logits(sequences.size()) {
    outputs_.reserve(sequences.size());
    blocks_.reserve(sequences.size());
    BlockId next = 0;
    for (const std::vector<TokenId>& tokens : sequences_) {
      outputs_.push_back({static_cast<uint32_t>(tokens.size()) - 1});
      blocks_.emplace_back((tokens.size() + 15) / 16);
      for (BlockId& block : blocks_.back()) block = next++;
      rows_.push_back({.tokens = tokens,
                       .first_position = 0,
                       .block_table = blocks_.back(),
                       .outputs = outputs_.back(),
                       .output_kind = kind,
                       .query = {}});
    }
  }
  void OnLogits(size_t row, size_t, std::span<float> values) override {
    order.push_back(row);
    logits[row].assign(values.begin(), values.end());
  }
  std::vector<BatchRow>& rows() { return rows_; }
  Batch batch() { return {.rows = rows_, .sink = this}; }

 private:
  std::vector<std::vector<TokenId>> sequences_;
  std::vector<std::vector<uint32_t>> outputs_;
  std::vector<std::vector<BlockId>> blocks_;
  std::vector<BatchRow> rows_;

 public:
  LogitRows logits;
  std::vector<size_t> order;  // of the calls
};

std::vector<std::vector<TokenId>> FiveSequences() {
  std::vector<std::vector<TokenId>> sequences;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    sequences.push_back(RandomTokens(3 + 7 * seed, 90, seed));
  }
  return sequences;
}

TEST(CpuBackend, CandidatesAreTheBestLogitsAfterMaskAndBias) {
  Rig rig = TinyRig({}, SmallOptions());
  RowBatch plain(FiveSequences());
  rig.engine->Step(plain.batch());

  RowBatch wanted(FiveSequences(), OutputKind::kCandidates);
  std::vector<uint64_t> mask = {0x0123456789abcdefULL, 0xffffffffULL};
  const std::vector<LogitBias> bias = {{.token = 3, .bias = 50.0F}, {.token = 5, .bias = -50.0F}};
  for (size_t i = 0; i < 5; ++i) {
    wanted.rows()[i].query.k = static_cast<uint32_t>(1 + 3 * i);
    if (i % 2 == 1) wanted.rows()[i].query.mask = mask;
    if (i >= 2) wanted.rows()[i].query.bias = bias;
  }
  const StepOutput output = rig.engine->Step(wanted.batch());
  for (size_t i = 0; i < 5; ++i) {
    std::vector<float> logits = plain.logits[i];
    if (i >= 2) {
      logits[3] += 50.0F;
      logits[5] -= 50.0F;
    }
    std::vector<Candidate> expected;
    for (size_t token = 0; token < logits.size(); ++token) {
      if (i % 2 == 1 && ((mask[token / 64] >> (token % 64)) & 1) == 0) continue;
      expected.push_back({static_cast<TokenId>(token), logits[token]});
    }
    std::sort(expected.begin(), expected.end(), BetterCandidate);
    const std::span<const Candidate> found = output.rows[i].candidates;
    ASSERT_EQ(found.size(), 1 + 3 * i);
    for (size_t k = 0; k < found.size(); ++k) {
      EXPECT_EQ(found[k].token, expected[k].token);
      EXPECT_EQ(found[k].logit, expected[k].logit);
    }
  }
}

constexpr char kStory[] =
    "Once upon a time there was a little dog. He liked to run in the garden with his friend, a "
    "small "
    "black cat. One day they found a big red ball under the old tree. \"Whose ball is this?\" "
    "asked "
    "the cat. The dog did not know. They took it to the house and showed it to the girl who lived "
    "there. She laughed and said that it was hers, and that she had looked for it all morning. So "
    "they played together until it was dark, and then they all went home and slept.";

// One row with the best candidate of each position of the story.
struct StoryRow {
  explicit StoryRow(const Model& model, OutputKind kind, BlockId first_block)
      : tokens(model.tokenizer().Encode(kStory, {})), outputs(tokens.size()), blocks(16) {
    std::iota(outputs.begin(), outputs.end(), 0U);
    std::iota(blocks.begin(), blocks.end(), first_block);
    row = {.tokens = tokens,
           .block_table = blocks,
           .outputs = outputs,
           .output_kind = kind,
           .query = {}};
  }
  std::vector<TokenId> tokens;
  std::vector<uint32_t> outputs;
  std::vector<BlockId> blocks;
  BatchRow row;
};

struct NoLogits : LogitsSink {
  void OnLogits(size_t, size_t, std::span<float>) override {}
};

// Of a screened head what decides is the position alone: rows that need all logits beside it, and
// more positions than one pass takes, change nothing.
TEST(CpuBackend, ScreenedCandidatesAreThoseOfTheFullHeadAloneAndBesideOthers) {
  EngineOptions options = SmallOptions();
  options.head = HeadMode::kFull;
  Rig full(testing::BundledModel(), options, 2);
  options.head = HeadMode::kScreened;
  options.screened_head_bytes = 0;
  Rig screened(testing::BundledModel(), options, 2);
  ASSERT_EQ(screened.engine->head_mode(), HeadMode::kScreened);

  const StoryRow story(*full.model, OutputKind::kCandidates, 0);
  const StoryRow all(*full.model, OutputKind::kLogits, 16);
  const StepOutput expected = full.engine->Step({.rows = {&story.row, 1}});
  const std::vector<Candidate> best(expected.rows[0].candidates.begin(),
                                    expected.rows[0].candidates.end());
  ASSERT_EQ(best.size(), story.tokens.size());
  const auto expect_best = [&](const RowOutput& output) {
    ASSERT_EQ(output.candidates.size(), best.size());
    for (size_t i = 0; i < best.size(); ++i) {
      EXPECT_EQ(output.candidates[i].token, best[i].token) << i;
      EXPECT_EQ(std::memcmp(&output.candidates[i].logit, &best[i].logit, sizeof(float)), 0) << i;
    }
  };

  const StepOutput alone = screened.engine->Step({.rows = {&story.row, 1}});
  expect_best(alone.rows[0]);
  const uint32_t settled = alone.stats.screened_positions;
  EXPECT_GE(settled, best.size() * 9 / 10);
  EXPECT_EQ(settled + alone.stats.screen_fallbacks, best.size());
  EXPECT_EQ(alone.stats.guard_trips, 0U);

  NoLogits sink;
  const std::array rows = {all.row, story.row};
  const StepOutput beside = screened.engine->Step({.rows = rows, .sink = &sink});
  expect_best(beside.rows[1]);
  EXPECT_EQ(beside.stats.screened_positions, settled);
}

TEST(CpuBackend, HiddenTimesTheHeadGivesTheLogits) {
  TinyShape shape;
  Rig rig = TinyRig(shape, SmallOptions());
  RowBatch plain(FiveSequences());
  rig.engine->Step(plain.batch());
  RowBatch wanted(FiveSequences(), OutputKind::kHidden);
  const StepOutput output = rig.engine->Step(wanted.batch());
  std::vector<float> row(shape.hidden);
  for (size_t i = 0; i < 5; ++i) {
    ASSERT_EQ(output.rows[i].hidden.size(), shape.hidden);
    for (uint32_t token = 0; token < shape.vocabulary; ++token) {
      rig.model->weights().embedding.GetRow(token, row);
      double sum = 0;
      for (size_t d = 0; d < row.size(); ++d) {
        sum += static_cast<double>(row[d]) * static_cast<double>(output.rows[i].hidden[d]);
      }
      EXPECT_NEAR(sum, plain.logits[i][token], 1e-4);
    }
  }
}

TEST(CpuBackend, LogitsOfManyPositionsArriveInOrderWithinBoundedMemory) {
  TinyShape shape;
  shape.vocabulary = 70'000;  // 280 kB of logits per position
  EngineOptions options = SmallOptions();
  options.max_batch_tokens = 512;
  Rig rig = TinyRig(shape, options);
  const std::vector<TokenId> tokens = RandomTokens(400, shape.vocabulary, 9);
  EXPECT_LT(rig.engine->workspace_bytes(), size_t{40} << 20);
  const LogitRows at_once = RunAlone(*rig.engine, tokens, 100, 512);
  EXPECT_EQ(at_once.size(), 300U);
  EXPECT_EQ(RunAlone(*rig.engine, tokens, 390, 7), LogitRows(at_once.begin() + 290, at_once.end()));
}

// A file whose embedding of token 5 holds a NaN.
std::vector<std::byte> PoisonedFile(const TinyShape& shape) {
  std::vector<std::byte> bytes = TinyWriter(shape).Serialize();
  const gguf::File file = gguf::File::Parse(bytes);
  const auto tensor = file.TensorBytes(*file.FindTensor("token_embd.weight"));
  std::byte* row = bytes.data() + (tensor.data() - bytes.data()) + size_t{5} * shape.hidden * 2;
  const uint16_t nan = 0x7e00;
  std::memcpy(row + 6, &nan, sizeof(nan));
  return bytes;
}

TEST(CpuBackend, NonFiniteActivationFailsItsRowOnly) {
  for (const gguf::TensorType type : {gguf::TensorType::kI2_S, gguf::TensorType::kF32}) {
    const TinyShape shape = {.projections = type, .tied_head = false};
    auto team = std::make_unique<fabric::WorkerTeam>(1);
    auto device = fabric::CreateDevice({}, *team);
    auto model = LoadBytes(PoisonedFile(shape), SmallOptions(), *device);
    Rig poisoned(std::move(model), SmallOptions(), std::move(device), std::move(team));
    Rig healthy = TinyRig(shape, SmallOptions());

    std::vector<std::vector<TokenId>> sequences = FiveSequences();
    for (std::vector<TokenId>& tokens : sequences) std::replace(tokens.begin(), tokens.end(), 5, 6);
    sequences[2][4] = 5;
    RowBatch expected(sequences);
    healthy.engine->Step(expected.batch());
    RowBatch found(sequences);
    const StepOutput output = poisoned.engine->Step(found.batch());
    EXPECT_EQ(found.order, (std::vector<size_t>{0, 1, 3, 4}));
    for (const size_t row : found.order) {
      EXPECT_EQ(output.rows[row].status, RowStatus::kOk);
      EXPECT_TRUE(found.logits[row] == expected.logits[row]);
    }
    EXPECT_EQ(output.rows[2].status, RowStatus::kNonFinite);
  }
}

TEST(CpuBackend, PassingDeviceFaultChangesNothing) {
  FaultyRig faulty({}, SmallOptions());
  RowBatch expected(FiveSequences());
  faulty.rig->engine->Step(expected.batch());
  const int submits = faulty.device->submits;
  for (int at = 0; at < submits; ++at) {
    for (const bool after_the_work : {false, true}) {
      faulty.device->submits = 0;
      faulty.device->fail_submit = after_the_work ? -1 : at;
      faulty.device->fail_wait = after_the_work ? at : -1;
      RowBatch found(FiveSequences());
      for (const RowOutput& row : faulty.rig->engine->Step(found.batch()).rows) {
        EXPECT_EQ(row.status, RowStatus::kOk);
      }
      EXPECT_TRUE(found.logits == expected.logits) << "submission " << at;
      EXPECT_EQ(found.order, expected.order);
    }
  }
}

TEST(CpuBackend, DeviceFaultThatStaysIsPinnedOnItsRow) {
  FaultyRig faulty({}, SmallOptions());
  std::vector<std::vector<TokenId>> sequences = FiveSequences();
  for (std::vector<TokenId>& tokens : sequences) std::replace(tokens.begin(), tokens.end(), 7, 8);
  sequences[3][5] = 7;
  RowBatch expected(sequences);
  faulty.rig->engine->Step(expected.batch());

  faulty.device->learn = true;
  RowBatch lesson(std::vector<std::vector<TokenId>>{{7}});
  faulty.rig->engine->Step(lesson.batch());
  RowBatch found(sequences);
  const StepOutput output = faulty.rig->engine->Step(found.batch());
  EXPECT_EQ(found.order, (std::vector<size_t>{0, 1, 2, 4}));
  for (const size_t row : found.order) {
    EXPECT_EQ(output.rows[row].status, RowStatus::kOk);
    EXPECT_TRUE(found.logits[row] == expected.logits[row]);
  }
  EXPECT_EQ(output.rows[3].status, RowStatus::kDeviceFault);
}

TEST(CpuBackend, StepReportsWhatItCost) {
  const TinyShape shape;
  Rig rig = TinyRig(shape, SmallOptions(KvType::kF32));
  RowBatch rows(std::vector<std::vector<TokenId>>{RandomTokens(20, 90, 1)});
  const StepStats stats = rig.engine->Step(rows.batch()).stats;
  EXPECT_EQ(stats.tokens, 20U);
  EXPECT_EQ(stats.head_positions, 1U);
  EXPECT_GT(stats.weight_bytes, 0U);
  // Tiles of 8, 8 and 4 tokens (32 queries of 4 heads each), in two layers.
  EXPECT_EQ(stats.kv_bytes, uint64_t{8 + 16 + 20} * shape.kv_heads * shape.head_dim * 2 * 4 * 2);
  EXPECT_GE(stats.seconds, stats.projection_seconds + stats.attention_seconds + stats.head_seconds);
}

TEST(CpuBackend, EmptyBatchIsAStep) {
  Rig rig = TinyRig({}, SmallOptions());
  EXPECT_TRUE(rig.engine->Step({}).rows.empty());
}

TEST(LoadWeights, FreesWhatItUploadedWhenTheDeviceIsFull) {
  auto team = std::make_unique<fabric::WorkerTeam>(1);
  FaultyDevice device(fabric::CreateDevice({}, *team));
  const std::vector<std::byte> bytes = TinyWriter({}).Serialize();
  device.uploads_until_full = 5;
  EXPECT_THROW(LoadBytes(bytes, SmallOptions(), device), std::runtime_error);
  EXPECT_EQ(device.resident_bytes(), 0U);
}

}  // namespace
}  // namespace engine
