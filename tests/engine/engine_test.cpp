// The engine sizes its pool from options and memory, and says what does not fit.

#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "engine/errors.h"
#include "engine/memory.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Rig;
using testing::SmallOptions;
using testing::TinyRig;
using testing::TinyShape;

std::string ErrorOf(const EngineOptions& options) {
  try {
    TinyRig({}, options);
    return "no error";
  } catch (const ModelError& error) {
    return error.what();
  }
}

TEST(Engine, PoolThatCannotHoldOneContextIsRefusedWithBothSizes) {
  EngineOptions options = SmallOptions();
  // 640 tokens x 2 layers x 2 (K, V) x 2 heads x 16 x 2 bytes
  const uint64_t needed = 640 * 2 * 2 * 2 * 16 * 2;
  options.kv_bytes = needed;
  EXPECT_EQ(TinyRig({}, options).engine->kv_blocks(), 40U);
  options.kv_bytes = needed - 1;
  EXPECT_THAT(ErrorOf(options),
              AllOf(HasSubstr(std::to_string(needed)), HasSubstr(std::to_string(needed - 1))));
}

TEST(Engine, ContextIsTheModelsOrAShorterOne) {
  EXPECT_EQ(TinyRig({}, SmallOptions()).engine->context_length(), 640U);
  EngineOptions options = SmallOptions();
  options.context_length = 100;
  EXPECT_EQ(TinyRig({}, options).engine->context_length(), 100U);
  options.context_length = 641;
  EXPECT_THAT(ErrorOf(options), AllOf(HasSubstr("641"), HasSubstr("640")));
}

TEST(Engine, BlockSizeMustSuitAttention) {
  EngineOptions options = SmallOptions();
  options.kv_block_size = 24;
  EXPECT_THAT(ErrorOf(options), HasSubstr("24"));
  options.kv_block_size = 0;
  EXPECT_THAT(ErrorOf(options), HasSubstr("multiple of 16"));
}

TEST(Engine, PoolFromFreeMemoryHoldsAContextAtLeast) {
  EXPECT_GT(AvailableMemoryBytes(), 0U);
  EngineOptions options = SmallOptions();
  options.kv_bytes = 0;
  const Rig rig = TinyRig({}, options);
  EXPECT_GE(rig.engine->kv_blocks(), 40U);
  EXPECT_LE(rig.engine->kv_blocks() * rig.engine->kv_geometry().BytesPerBlock(),
            uint64_t{256} << 20);
}

TEST(Model, LoadsTheBundledModelAndTellsItsProgress) {
  std::vector<double> fractions;
  fabric::WorkerTeam team(1);
  const auto device = fabric::CreateDevice({}, team);
  const auto model =
      Model::Load(testing::BundledModel(), {}, *device, team, [&](const LoadProgress& progress) {
        EXPECT_TRUE(fractions.empty() || progress.fraction >= fractions.back());
        fractions.push_back(progress.fraction);
      });
  EXPECT_GT(fractions.size(), 10U);
  EXPECT_NEAR(fractions.back(), 1.0, 1e-9);
  EXPECT_EQ(model->tokenizer().size(), 4096U);
  EXPECT_NE(model->chat_template(), nullptr);
  EXPECT_EQ(model->path(), testing::BundledModel());
}

// A copy of the bundled file with another template.
std::string WithTemplate(const std::string& source) {
  const gguf::File file = gguf::File::Open(testing::BundledModel());
  gguf::Writer writer;
  writer.metadata() = file.metadata();
  writer.metadata().Set("tokenizer.chat_template", {gguf::ValueType::kString, source});
  for (const gguf::TensorInfo& info : file.tensors()) {
    const auto bytes = file.TensorBytes(info);
    writer.AddTensor(info.name, info.type, {info.extents.begin(), info.extents.begin() + info.rank},
                     {bytes.begin(), bytes.end()});
  }
  const std::string path =
      ::testing::TempDir() + "engine_test_template_" + std::to_string(getpid()) + ".gguf";
  writer.WriteFile(path);
  return path;
}

TEST(Model, BrokenTemplateIsAModelError) {
  const std::string path = WithTemplate("{% for message in messages %}");
  fabric::WorkerTeam team(1);
  const auto device = fabric::CreateDevice({}, team);
  try {
    Model::Load(path, {}, *device, team);
    ADD_FAILURE() << "accepted";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), HasSubstr("tokenizer.chat_template"));
  }
  std::remove(path.c_str());
}

TEST(Model, UnknownI2SLayoutIsRefused) {
  fabric::WorkerTeam team(1);
  const auto device = fabric::CreateDevice({}, team);
  EngineOptions options;
  options.i2s_layout = "vax";
  EXPECT_THROW(Model::Load(testing::BundledModel(), options, *device, team), ModelError);
}

}  // namespace
}  // namespace engine
