// Property: an importance matrix comes back from its file as it was written; what is no importance
// matrix, or not of this model, is refused with a sentence; and planes are chosen by it where the
// text says that some columns hardly matter.

#include "engine/importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ImportanceFile : public ::testing::Test {
 protected:
  ImportanceFile() : path_(::testing::TempDir() + "importance." + std::to_string(getpid())) {}
  ~ImportanceFile() override { std::remove(path_.c_str()); }

  std::string ReasonOfRefusal() const {
    try {
      Importance::Read(path_);
    } catch (const ModelError& error) {
      return error.what();
    }
    return "";
  }

  // A file with one pair of tensors.
  void WritePair(const std::string& type, std::vector<float> sums, std::vector<float> counts,
                 gguf::TensorType kind = gguf::TensorType::kF32) const {
    gguf::Writer writer;
    writer.metadata().Set("general.type", {.type = gguf::ValueType::kString, .value = type});
    const auto add = [&](const char* name, const std::vector<float>& values) {
      const auto bytes = std::as_bytes(std::span(values));
      writer.AddTensor(name, kind, {values.size()}, {bytes.begin(), bytes.end()});
    };
    add("w.in_sum2", sums);
    if (!counts.empty()) add("w.counts", counts);
    writer.WriteFile(path_);
  }

  const std::string path_;
};

TEST_F(ImportanceFile, ComesBackAsItWasWritten) {
  Importance written;
  written.Add("blk.0.attn_q.weight", {2, 4, 0}, 2);
  written.Add("blk.0.ffn_up_exps.weight", {8, 4}, 4);
  written.Add("blk.0.ffn_up_exps.weight", {0, 0}, 0);
  written.Write(path_, "text.txt", 3, 512);

  const Importance read = Importance::Read(path_);
  EXPECT_EQ(read.tensors(), 2U);
  EXPECT_TRUE(read.Has("blk.0.attn_q.weight"));
  EXPECT_THAT(read.MeanSquares("blk.0.attn_q.weight", 0, 1, 3), ElementsAre(1.0F, 2.0F, 0.0F));
  EXPECT_THAT(read.MeanSquares("blk.0.ffn_up_exps.weight", 0, 2, 2), ElementsAre(2.0F, 1.0F));
  EXPECT_THAT(read.MeanSquares("blk.0.ffn_up_exps.weight", 1, 2, 2), IsEmpty()) << "no token";
  EXPECT_THAT(read.MeanSquares("blk.1.attn_q.weight", 0, 1, 3), IsEmpty()) << "not there";
  EXPECT_THROW(read.MeanSquares("blk.0.attn_q.weight", 0, 1, 4), ModelError);
  EXPECT_THROW(read.MeanSquares("blk.0.attn_q.weight", 0, 2, 3), ModelError);

  const gguf::File file = gguf::File::Open(path_);
  EXPECT_EQ(file.metadata().GetUint("imatrix.chunk_count"), 3U);
  EXPECT_EQ(file.metadata().GetUint("imatrix.chunk_size"), 512U);
  EXPECT_THAT(*file.metadata().FindStrings("imatrix.datasets"), ElementsAre("text.txt"));
}

TEST_F(ImportanceFile, WhatIsNoneIsRefused) {
  WritePair("imatrix", {1, 2}, {1});
  EXPECT_EQ(ReasonOfRefusal(), "");
  WritePair("model", {1, 2}, {1});
  EXPECT_THAT(ReasonOfRefusal(), HasSubstr("must be \"imatrix\", but it is \"model\""));
  WritePair("imatrix", {1, 2}, {});
  EXPECT_THAT(ReasonOfRefusal(), HasSubstr("must have w.counts with as many values"));
  WritePair("imatrix", {1, 2}, {1, 1});
  EXPECT_THAT(ReasonOfRefusal(), HasSubstr("must have w.counts with as many values"));
  WritePair("imatrix", {1, -2}, {1});
  EXPECT_THAT(ReasonOfRefusal(), HasSubstr("negative or not finite"));
  WritePair("imatrix", {1, INFINITY}, {1});
  EXPECT_THAT(ReasonOfRefusal(), HasSubstr("negative or not finite"));
  EXPECT_THROW(Importance::Read(path_ + ".missing"), gguf::FormatError);
}

// Of a model with Q6_K projections: what became of one of its matrices.
TensorPlacement PlacedWith(const std::string& importance, const std::string& name) {
  const testing::TinyShape shape = {.architecture = "llama",
                                    .layers = 2,
                                    .hidden = 256,
                                    .heads = 16,
                                    .ffn = 256,
                                    .projections = gguf::TensorType::kQ6_K,
                                    .sub_norms = false};
  EngineOptions options = testing::SmallOptions();
  options.placement.planes = PlaneCount{.kind = PlaneCount::Kind::kAuto};
  options.placement.importance = importance;
  fabric::WorkerTeam team(1);
  const auto device = fabric::CreateDevice({}, team);
  const auto model = testing::LoadBytes(testing::TinyWriter(shape).Serialize(), options, *device);
  for (const TensorPlacement& placement : model->weights().placements) {
    if (placement.name == name) return placement;
  }
  ADD_FAILURE() << name;
  return {};
}

TEST_F(ImportanceFile, DecidesWhatThePlanesOfAMatrixAreThoughtToErr) {
  const std::string up = "blk.1.ffn_up.weight";
  const TensorPlacement plain = PlacedWith("", up);
  EXPECT_THAT(plain.reason, HasSubstr("(estimated)"));

  Importance flat;
  flat.Add(up, std::vector<double>(256, 5.0), 10);
  flat.Write(path_, "text", 1, 10);
  const TensorPlacement same = PlacedWith(path_, up);
  EXPECT_EQ(same.planes, plain.planes);
  EXPECT_NEAR(same.plane_error, plain.plane_error, 1e-9) << "all columns alike: as without";
  EXPECT_THAT(same.reason, HasSubstr("(by its calibration)"));
  EXPECT_THAT(PlacedWith(path_, "blk.0.ffn_up.weight").reason, HasSubstr("(estimated)"));

  Importance one;
  std::vector<double> sums(256, 0.0);
  sums[17] = 1;
  one.Add(up, sums, 10);
  one.Write(path_, "text", 1, 10);
  EXPECT_NE(PlacedWith(path_, up).plane_error, plain.plane_error);

  Importance other;
  other.Add("blk.7.elsewhere.weight", sums, 10);
  other.Write(path_, "text", 1, 10);
  EXPECT_THROW(PlacedWith(path_, up), ModelError) << "nothing in it is of this model";
  Importance narrow;
  narrow.Add(up, {1, 2, 3}, 10);
  narrow.Write(path_, "text", 1, 10);
  EXPECT_THROW(PlacedWith(path_, up), ModelError) << "other columns";
}

}  // namespace
}  // namespace engine
