#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/text_score.h"
#include "server/json.h"

namespace cli {
namespace {

using engine::TokenId;

constexpr const char* kExamples =
    "The text is tokenised once and cut into chunks of --context tokens; the first token of each "
    "is\n"
    "replaced by BOS when the model adds one, and the second half of each chunk is scored.\n"
    "\n"
    "Examples:\n"
    "  tern perplexity --file wiki.test.txt\n"
    "  tern perplexity --model m.gguf --file text.txt --context 1024 --json";

struct PerplexityFlags {
  ConfigFlags config;
  std::string model;
  std::string file;
  uint32_t context = 512;
  uint32_t chunks = 0;
  bool json = false;
};

int RunPerplexity(const PerplexityFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  const config::Config config = flags.config.Load().config;
  LocalModel model(ChooseModelPath(flags.model, config), config);
  const std::vector<TokenId> tokens = TokenizeTextFile(flags.file, model.tokenizer());
  const TextScoreOptions options = {.context = flags.context, .chunks = flags.chunks};
  const uint64_t chunks = ChunksOf(tokens.size(), options);
  const TextScore score = ScoreText(model, tokens, options, PrintChunk);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (flags.json) {
    const server::Json result = {{"perplexity", score.perplexity()},
                                 {"stderr", score.standard_error()},
                                 {"tokens_scored", score.count()},
                                 {"chunks", chunks},
                                 {"seconds", seconds}};
    std::cout << server::Dump(result) << std::endl;
  } else {
    std::cout << "perplexity " << score.perplexity() << " +- " << score.standard_error() << " ("
              << score.count() << " tokens scored in " << chunks << " chunks, " << seconds << " s)"
              << std::endl;
  }
  return kSuccess;
}

}  // namespace

void AddPerplexity(CLI::App& root, Run* run) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = root.add_subcommand("perplexity", "How well a model predicts a text");
  command->footer(kExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_option("-f,--file", flags->file, "text; - is standard input")
      ->type_name("FILE")
      ->required();
  command->add_option("--context", flags->context, "tokens per chunk")
      ->type_name("N")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  command->add_option("--chunks", flags->chunks, "score only the first N chunks; 0 = all")
      ->type_name("N");
  command->add_flag("--json", flags->json, "one JSON object; progress goes to stderr anyway");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunPerplexity(*flags); }; });
}

}  // namespace cli
