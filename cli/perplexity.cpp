#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/text_file.h"
#include "fabric/vector_ops.h"
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

// Sums of the negative log-likelihoods of scored tokens, in the order of the text.
class Score {
 public:
  void Add(double nll) {
    ++count_;
    sum_ += nll;
    squares_ += nll * nll;
  }
  uint64_t count() const { return count_; }
  double perplexity() const { return std::exp(sum_ / static_cast<double>(count_)); }
  // Of the perplexity, to first order: ppl * sqrt(var / (n - 1)).
  double standard_error() const {
    if (count_ < 2) return 0;
    const auto n = static_cast<double>(count_);
    const double mean = sum_ / n;
    const double variance = std::max(0.0, squares_ / n - mean * mean);
    return perplexity() * std::sqrt(variance / (n - 1));
  }

 private:
  uint64_t count_ = 0;
  double sum_ = 0;
  double squares_ = 0;
};

// Positions context/2 .. context-2 predict the token after them.
void ScoreChunk(LocalSequence& sequence, std::span<const TokenId> input,
                std::span<const TokenId> targets, Score* score) {
  const auto last = static_cast<uint32_t>(input.size() - 1);
  sequence.Truncate(0);
  sequence.Append(input.first(last), static_cast<uint32_t>(input.size() / 2),
                  [&](uint32_t position, std::span<float> logits) {
                    const float log_sum = fabric::LogSumExp(logits.data(), logits.size());
                    const auto target = static_cast<size_t>(targets[position + 1]);
                    score->Add(double{log_sum} - double{logits[target]});
                  });
}

std::vector<TokenId> TokensOf(const std::string& path, const engine::text::Tokenizer& tokenizer) {
  std::string text = ReadTextFile(path);
  if (text.ends_with('\n')) text.pop_back();
  return tokenizer.Encode(text, {.add_special = true, .parse_special = false});
}

int RunPerplexity(const PerplexityFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  const config::Config config = flags.config.Load().config;
  LocalModel model(ChooseModelPath(flags.model, config), config);
  const engine::text::Tokenizer& tokenizer = model.tokenizer();
  const std::vector<TokenId> tokens = TokensOf(flags.file, tokenizer);
  uint64_t chunks = tokens.size() / flags.context;
  if (chunks == 0) {
    throw std::runtime_error("The text has " + std::to_string(tokens.size()) +
                             " tokens; one chunk needs " + std::to_string(flags.context) + ".");
  }
  if (flags.chunks != 0) chunks = std::min<uint64_t>(chunks, flags.chunks);
  model.PrepareKv(1, flags.context);
  LocalSequence sequence(model, 0);

  Score score;
  const bool with_bos = tokenizer.adds_bos() && tokenizer.bos().has_value();
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::span<const TokenId> targets =
        std::span(tokens).subspan(chunk * flags.context, flags.context);
    std::vector<TokenId> input(targets.begin(), targets.end());
    if (with_bos) input[0] = *tokenizer.bos();
    ScoreChunk(sequence, input, targets, &score);
    std::cerr << "chunk " << chunk + 1 << " of " << chunks << ": perplexity " << score.perplexity()
              << "\n";
  }
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
