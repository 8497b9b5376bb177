#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/output_file.h"
#include "cli/text_score.h"
#include "engine/importance.h"
#include "engine/placement.h"
#include "fabric/input_recorder.h"
#include "fabric/seconds_since.h"

namespace cli {
namespace {

constexpr const char* kCalibrateExamples =
    "Runs a text through a model and writes how much each input column of each projection "
    "carries:\n"
    "an importance matrix in GGUF, as other programs write it. --fabric-calibration reads it and\n"
    "weighs by it what fewer ternary planes would cost.\n"
    "\n"
    "Examples:\n"
    "  tern calibrate model-q6_k.gguf --file text.txt -o model.imatrix.gguf\n"
    "  tern serve --model model-q6_k.gguf --fabric-profile balanced --fabric-calibration "
    "model.imatrix.gguf\n"
    "  tern inspect model-q6_k.gguf --fabric --fabric-planes auto --fabric-calibration "
    "model.imatrix.gguf";

struct CalibrateFlags {
  ConfigFlags config;
  std::string model;
  std::string file;
  std::string output;
  uint32_t context = 512;
  uint32_t chunks = 0;
};

// What came into the matrices of the layers.
engine::Importance ImportanceOf(const engine::Weights& weights,
                                const fabric::InputRecorder& recorder) {
  engine::Importance importance;
  for (const engine::TensorPlacement& placement : weights.placements) {
    if (!engine::LayerOf(placement.name)) continue;
    for (const fabric::MatrixId id : placement.matrices) {
      fabric::InputRecorder::Squares squares = recorder.Of(id);
      // An expert that was never chosen.
      squares.sums.resize(placement.cols);
      importance.Add(placement.name, squares.sums, squares.tokens);
    }
  }
  return importance;
}

int RunCalibrate(const CalibrateFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  config::Config config = flags.config.Load().config;
  // Nothing that a calibration would choose may have a part in it.
  config.engine.placement.importance.clear();
  const fabric::InputRecorder* recorder = nullptr;
  const std::string path = ChooseModelPath(flags.model, config);
  CheckOutputFile(flags.output, {path, flags.file});
  LocalModel model(path, config, [&](std::unique_ptr<fabric::Device> device) {
    auto wrapped = std::make_unique<fabric::InputRecorder>(std::move(device));
    recorder = wrapped.get();
    return wrapped;
  });
  const std::vector<engine::TokenId> tokens = TokenizeTextFile(flags.file, model.tokenizer());
  const TextScoreOptions options{.context = flags.context, .chunks = flags.chunks};
  const uint64_t chunks = ChunksOf(tokens.size(), options);
  const TextScore score = ScoreText(model, tokens, options, PrintChunk);
  const engine::Importance importance = ImportanceOf(model.model().weights(), *recorder);
  importance.Write(flags.output, flags.file, static_cast<uint32_t>(chunks), flags.context);
  const double seconds = fabric::SecondsSince(start);
  std::cout << "wrote " << flags.output << ": " << importance.tensors() << " tensors, "
            << chunks * flags.context << " tokens, perplexity " << score.perplexity() << ", "
            << seconds << " s" << std::endl;
  return kSuccess;
}

}  // namespace

void AddCalibrate(CLI::App& root, Run* run) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* command =
      root.add_subcommand("calibrate", "How much each input of a model's projections carries");
  command->footer(kCalibrateExamples);
  command->add_option("model,-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_option("-f,--file", flags->file, "text; - is standard input")
      ->type_name("FILE")
      ->required();
  command->add_option("-o,--output", flags->output, "file to write")->type_name("FILE")->required();
  command->add_option("--context", flags->context, "tokens per chunk")
      ->type_name("N")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  command->add_option("--chunks", flags->chunks, "only the first N chunks; 0 = all")
      ->type_name("N");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunCalibrate(*flags); }; });
}

}  // namespace cli
