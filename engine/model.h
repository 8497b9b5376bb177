#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine_options.h"
#include "engine/model_config.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "engine/weights.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"
#include "gguf/reader.h"

namespace engine {

struct LoadProgress {
  std::string_view phase;  // "weights", "tokenizer"
  double fraction = 0;     // 0..1 of the whole load
};

// A part of a load.
struct LoadPhase {
  std::string_view name;  // "header", "weights", "head", "tokenizer", ...
  double seconds = 0;     // for which the load waited
};

// How a load went.
struct LoadReport {
  double seconds = 0;
  std::vector<LoadPhase> phases;  // in their order; together they are nearly `seconds`
  std::string packed_cache;       // PackedCache::outcome()
};

// How files are read under these options. Errors: ModelError for an unknown layout.
gguf::ReadOptions ReadOptionsFor(const EngineOptions& options);

// The chat template that a file means: its own or, where published files carry a wrong one, that of
// the model's documentation. std::nullopt for a model without.
std::optional<std::string> ChatTemplateSource(const gguf::Metadata& metadata,
                                              const ModelConfig& config);

// Everything of a model that does not change after load: hyperparameters, tokenizer, template and
// weights (resident on `device`).
//
// Threads: immutable; const calls from any thread. HTTP threads use config(), tokenizer() and
//          chat_template(); only the engine thread uses weights().
// Errors:  Load() throws gguf::FormatError or ModelError. The file is not touched after Load().
class Model {
 public:
  static std::shared_ptr<const Model> Load(
      const std::string& path, const EngineOptions& options, fabric::Device& device,
      fabric::WorkerTeam& team, const std::function<void(const LoadProgress&)>& progress = {});

  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const text::Tokenizer& tokenizer() const = 0;
  // nullptr for a model without a chat template.
  virtual const text::ChatTemplate* chat_template() const = 0;
  virtual const Weights& weights() const = 0;
  virtual const std::string& path() const = 0;
  virtual const LoadReport& load_report() const = 0;
};

}  // namespace engine
