#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"
#include "gguf/writer.h"

namespace engine::testing {

// The shared test data: TERN_TEST_DATA, or ../shared/data beside the source tree.
std::string SharedData(const std::string& name);
bool FileExists(const std::string& path);
// The demo model and its golden cases, which every clone has.
std::string BundledModel();
std::string BundledGolden();

// A device, a team, a model and an engine: what a served model has, without a scheduler.
struct Rig {
  Rig(const std::string& path, const EngineOptions& options, int threads = 1,
      const std::string& device_name = "sim");
  Rig(std::shared_ptr<const Model> a_model, const EngineOptions& options,
      std::unique_ptr<fabric::Device> a_device, std::unique_ptr<fabric::WorkerTeam> a_team);

  std::unique_ptr<fabric::WorkerTeam> team;
  std::unique_ptr<fabric::Device> device;
  std::shared_ptr<const Model> model;
  std::unique_ptr<Engine> engine;
};

// A pool for one full context and some more, so that tests need little memory.
EngineOptions SmallOptions(KvType type = KvType::kF16);

// Logits by output position.
using LogitRows = std::vector<std::vector<float>>;

// Runs `tokens` alone, in steps of `chunk` tokens over blocks 0, 1, 2, ...; returns the logits
// after each token from `first_output` on.
LogitRows RunAlone(Engine& engine, std::span<const TokenId> tokens, size_t first_output,
                   size_t chunk = 64, std::span<const AdapterScale> adapters = {});

// log-softmax in double.
std::vector<double> LogSoftmax(std::span<const float> logits);

// What a made-up model looks like. Weights are random, the same for the same seed.
struct TinyShape {
  std::string architecture = "bitnet-b1.58";
  uint32_t layers = 2;
  uint32_t hidden = 128;  // I2_S takes multiples of 128 columns
  uint32_t heads = 8;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t ffn = 128;
  uint32_t vocabulary = 96;
  uint32_t context = 640;
  gguf::TensorType projections = gguf::TensorType::kI2_S;
  bool sub_norms = true;
  bool tied_head = true;
  uint64_t seed = 1;
};

// A complete GGUF file of a made-up model but for a tokenizer. Change it before Serialize() to
// break it.
gguf::Writer TinyWriter(const TinyShape& shape);

// A model without tokenizer and template, loaded from the bytes of a file.
std::shared_ptr<const Model> LoadBytes(std::span<const std::byte> bytes,
                                       const EngineOptions& options, fabric::Device& device);
std::shared_ptr<const Model> LoadBytes(std::span<const std::byte> bytes,
                                       const EngineOptions& options, fabric::Device& device,
                                       PackedCache& cache);

// A rig around a made-up model.
Rig TinyRig(const TinyShape& shape, const EngineOptions& options, int threads = 1);

std::vector<TokenId> RandomTokens(size_t count, uint32_t vocabulary, uint64_t seed);

}  // namespace engine::testing
