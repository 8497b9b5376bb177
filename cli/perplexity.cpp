#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/divergence.h"
#include "cli/local_model.h"
#include "cli/logits_file.h"
#include "cli/model_path.h"
#include "cli/output_file.h"
#include "cli/text_score.h"
#include "fabric/seconds_since.h"
#include "server/json.h"

namespace cli {
namespace {

using engine::TokenId;

constexpr const char* kPerplexityExamples =
    "The text is tokenised once and cut into chunks of --context tokens; the first token of each "
    "is\n"
    "replaced by BOS when the model adds one, and the second half of each chunk is scored.\n"
    "\n"
    "Examples:\n"
    "  tern perplexity --file wiki.test.txt\n"
    "  tern perplexity --model m.gguf --file text.txt --context 1024 --json\n"
    "  tern perplexity --model f16.gguf --file text.txt --save-logits f16.logits\n"
    "  tern perplexity --model tq2_0.gguf --kl f16.logits      how far the second is from the "
    "first";

struct PerplexityFlags {
  ConfigFlags config;
  std::string model;
  std::string file;
  uint32_t context = 512;
  CLI::Option* context_option = nullptr;
  uint32_t chunks = 0;
  std::string save_logits;
  std::string kl;
  bool json = false;
};

// What is computed beside the perplexity, position by position.
class ScoreRecorder {
 public:
  ScoreRecorder(const PerplexityFlags& flags, LogitsHeader header) {
    if (!flags.save_logits.empty()) writer_.emplace(flags.save_logits, header);
  }
  explicit ScoreRecorder(std::unique_ptr<LogitsReader> base) : base_(std::move(base)) {}

  OnPosition Callback() {
    if (!writer_ && base_ == nullptr) return {};
    return [this](const ScoredPosition& position) {
      if (writer_) writer_->Add(position.logits, position.log_sum, position.target);
      if (base_ != nullptr) divergence_.Add(base_->Next(), position);
    };
  }

  // The comparison with the base, when there is one.
  std::optional<Divergence::Summary> Finish() {
    if (writer_) writer_->Finish();
    if (base_ == nullptr) return std::nullopt;
    return divergence_.Summarise();
  }

 private:
  std::optional<LogitsWriter> writer_;
  std::unique_ptr<LogitsReader> base_;
  Divergence divergence_;
};

// What is scored: a text file, or the text that a file of logits was made from.
struct Work {
  std::vector<TokenId> tokens;
  TextScoreOptions options;
  std::unique_ptr<LogitsReader> base;
};

Work WorkOf(const PerplexityFlags& flags, const LocalModel& model,
            std::unique_ptr<LogitsReader> base) {
  if (base == nullptr) {
    return {.tokens = TokenizeTextFile(flags.file, model.tokenizer()),
            .options = {.context = flags.context, .chunks = flags.chunks},
            .base = nullptr};
  }
  const LogitsHeader& header = base->header();
  if (header.vocabulary != model.model().config().vocabulary) {
    throw std::runtime_error(flags.kl + " is of a model with a vocabulary of " +
                             std::to_string(header.vocabulary) + " tokens, but this one has " +
                             std::to_string(model.model().config().vocabulary) + ".");
  }
  return {.tokens = header.tokens,
          .options = {.context = header.context, .chunks = flags.chunks},
          .base = std::move(base)};
}

server::Json MeanJson(const MeanAndError& value) {
  return {{"mean", value.mean}, {"stderr", value.standard_error}};
}

server::Json DivergenceJson(const Divergence::Summary& summary) {
  return {{"kl", MeanJson(summary.kl)},
          {"kl_median", summary.kl_median},
          {"kl_p90", summary.kl_p90},
          {"kl_p99", summary.kl_p99},
          {"kl_p999", summary.kl_p999},
          {"kl_max", summary.kl_max},
          {"same_top", MeanJson(summary.same_top)},
          {"base_perplexity", summary.base_perplexity},
          {"perplexity_change", summary.perplexity - summary.base_perplexity},
          {"log_perplexity_ratio", MeanJson(summary.log_ratio)},
          {"rms_probability_change", summary.rms_probability}};
}

void PrintDivergence(const Divergence::Summary& summary) {
  std::printf(
      "KL divergence       mean %.6g +- %.2g, median %.6g, 90 %% %.6g, 99 %% %.6g, "
      "99.9 %% %.6g, max %.6g nats\n",
      summary.kl.mean, summary.kl.standard_error, summary.kl_median, summary.kl_p90, summary.kl_p99,
      summary.kl_p999, summary.kl_max);
  std::printf("same most probable  %.3f %% +- %.3f\n", summary.same_top.mean * 100.0,
              summary.same_top.standard_error * 100.0);
  std::printf(
      "perplexity          %.4f, base %.4f, change %+.4f (%+.3f %%), ln ratio %.6f +- %.6f\n",
      summary.perplexity, summary.base_perplexity, summary.perplexity - summary.base_perplexity,
      (summary.perplexity / summary.base_perplexity - 1.0) * 100.0, summary.log_ratio.mean,
      summary.log_ratio.standard_error);
  std::printf("probability of the token that came: root mean square change %.4f %%\n",
              summary.rms_probability * 100.0);
  std::fflush(stdout);
}

void CheckFlags(const PerplexityFlags& flags) {
  if (flags.kl.empty() && flags.file.empty()) throw UsageError("Give --file TEXT or --kl FILE.");
  if (flags.kl.empty()) return;
  if (!flags.file.empty() || !flags.save_logits.empty() || flags.context_option->count() != 0) {
    throw UsageError(
        "--kl takes text and context from its file: leave --file, --context and --save-logits "
        "out.");
  }
}

int RunPerplexity(const PerplexityFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  CheckFlags(flags);
  const config::Config config = flags.config.Load().config;
  std::unique_ptr<LogitsReader> base;
  if (!flags.kl.empty()) base = std::make_unique<LogitsReader>(flags.kl);
  const std::string path = ChooseModelPath(flags.model, config);
  if (!flags.save_logits.empty()) CheckOutputFile(flags.save_logits, {path, flags.file});
  LocalModel model(path, config);
  Work work = WorkOf(flags, model, std::move(base));
  const uint64_t chunks = ChunksOf(work.tokens.size(), work.options);
  LogitsHeader header = {.vocabulary = model.model().config().vocabulary,
                         .context = work.options.context,
                         .chunks = chunks,
                         .tokens = work.tokens};
  header.tokens.resize(chunks * work.options.context);
  ScoreRecorder recorder =
      work.base ? ScoreRecorder(std::move(work.base)) : ScoreRecorder(flags, header);
  const TextScore score =
      ScoreText(model, work.tokens, work.options, PrintChunk, recorder.Callback());
  const std::optional<Divergence::Summary> divergence = recorder.Finish();
  const double seconds = fabric::SecondsSince(start);
  if (flags.json) {
    server::Json result = {{"perplexity", score.perplexity()},
                           {"stderr", score.standard_error()},
                           {"tokens_scored", score.count()},
                           {"chunks", chunks}};
    if (divergence) result.update(DivergenceJson(*divergence));
    result["seconds"] = seconds;
    std::cout << server::Dump(result) << std::endl;
    return kSuccess;
  }
  std::cout << "perplexity " << score.perplexity() << " +- " << score.standard_error() << " ("
            << score.count() << " tokens scored in " << chunks << " chunks, " << seconds << " s)"
            << std::endl;
  if (divergence) PrintDivergence(*divergence);
  return kSuccess;
}

}  // namespace

void AddPerplexity(CLI::App& root, Run* run) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = root.add_subcommand("perplexity", "How well a model predicts a text");
  command->footer(kPerplexityExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_option("-f,--file", flags->file, "text; - is standard input")->type_name("FILE");
  flags->context_option = command->add_option("--context", flags->context, "tokens per chunk")
                              ->type_name("N")
                              ->check(CLI::Range(4, 1 << 20))
                              ->capture_default_str();
  command->add_option("--chunks", flags->chunks, "score only the first N chunks; 0 = all")
      ->type_name("N");
  command
      ->add_option("--save-logits", flags->save_logits,
                   "write every prediction to this file, 2 bytes per token of the vocabulary and "
                   "scored position")
      ->type_name("FILE");
  command
      ->add_option("--kl", flags->kl,
                   "compare with the predictions in this file, along the same text")
      ->type_name("FILE");
  command->add_flag("--json", flags->json, "one JSON object; progress goes to stderr anyway");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunPerplexity(*flags); }; });
}

}  // namespace cli
