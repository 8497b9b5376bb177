#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/continuation_scorer.h"
#include "cli/eval_task.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/output_file.h"
#include "cli/progress_line.h"
#include "cli/unfinished_file.h"
#include "fabric/seconds_since.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kEvalExamples =
    "A JSONL file is a task; so is each file of a folder (BLiMP). The fields tell the form:\n"
    "  query, choices, gold               the likeliest choice counts (ARC, PIQA, COPA)\n"
    "  context_options, continuation, gold  the context that makes it likeliest (Winograd)\n"
    "  context, continuation              every token must be the model's first choice (LAMBADA)\n"
    "  sentence_good, sentence_bad        the good sentence must be likelier (BLiMP)\n"
    "\n"
    "Examples:\n"
    "  tern eval arc_easy.jsonl piqa.jsonl\n"
    "  tern eval --model m.gguf lambada.jsonl --limit 500 --json\n"
    "  tern eval --model m.gguf blimp/ --samples scores.jsonl";

struct EvalFlags {
  ConfigFlags config;
  std::string model;
  std::vector<std::string> paths;
  std::string delimiter;
  CLI::Option* delimiter_option = nullptr;
  uint64_t limit = 0;
  std::string samples;
  bool json = false;
};

// "\n" and "\t" as the shell does not make them; "\\" is a backslash.
std::string Unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    const char next = text[++i];
    result += next == 'n' ? '\n' : next == 't' ? '\t' : next;
  }
  return result;
}

// Share of right answers and its standard error, sqrt(p (1 - p) / (n - 1)).
struct Accuracy {
  uint64_t right = 0;
  uint64_t count = 0;

  void Add(bool is_right) {
    right += is_right ? 1 : 0;
    ++count;
  }
  double value() const { return static_cast<double>(right) / static_cast<double>(count); }
  double standard_error() const {
    if (count < 2) return 0;
    return std::sqrt(value() * (1 - value()) / static_cast<double>(count - 1));
  }
};

struct EvalResult {
  Accuracy accuracy;
  Accuracy normalised;     // by bytes of the answer; of choices only
  double logprobs = 0;     // of the gold answers, for cloze
  uint64_t truncated = 0;  // contexts that lost their beginning
  uint64_t tokens = 0;     // computed
  double seconds = 0;
};

// The file of --samples. It has its name when it is complete; before, it is FILE.partial.
class SamplesFile {
 public:
  explicit SamplesFile(std::string path)
      : path_(std::move(path)),
        partial_(path_ + ".partial"),
        unfinished_(partial_),
        file_(partial_, std::ios::trunc) {
    Check(!file_.fail());
  }
  SamplesFile(const SamplesFile&) = delete;
  SamplesFile& operator=(const SamplesFile&) = delete;
  ~SamplesFile() {
    if (!finished_) std::remove(partial_.c_str());
  }

  std::ostream& stream() { return file_; }

  void Finish() {
    file_.close();
    Check(!file_.fail() && std::rename(partial_.c_str(), path_.c_str()) == 0);
    finished_ = true;
  }

 private:
  void Check(bool good) const {
    if (good) return;
    throw std::runtime_error("Cannot write " + path_ + ": " + std::strerror(errno) + ".");
  }

  std::string path_;
  std::string partial_;
  UnfinishedFile unfinished_;
  std::ofstream file_;
  bool finished_ = false;
};

// Gathers the scores of a task's choices and judges each question when it has all of them.
class Judge {
 public:
  Judge(const EvalTask& task, std::ostream* samples) : task_(task), samples_(samples) {}

  void Add(std::span<const ContinuationScore> scores, bool truncated) {
    pending_.insert(pending_.end(), scores.begin(), scores.end());
    truncated_ = truncated_ || truncated;
    if (pending_.size() == task_.questions[next_].choices.size()) Finish();
  }

  EvalResult& result() { return result_; }
  size_t finished() const { return next_; }

 private:
  void Finish() {
    const EvalQuestion& question = task_.questions[next_];
    const size_t best =
        Best([](const ContinuationScore& score, const EvalChoice&) { return score.logprob; });
    const size_t best_per_byte = Best([](const ContinuationScore& score, const EvalChoice& choice) {
      return score.logprob / static_cast<double>(choice.answer_bytes);
    });
    if (task_.kind == EvalKind::kCloze) {
      result_.accuracy.Add(pending_[0].greedy);
      result_.logprobs += pending_[0].logprob;
    } else {
      result_.accuracy.Add(best == question.gold);
      result_.normalised.Add(best_per_byte == question.gold);
    }
    result_.truncated += truncated_ ? 1 : 0;
    if (samples_ != nullptr) WriteSample(best);
    pending_.clear();
    truncated_ = false;
    ++next_;
  }

  // Ties go to the first, as argmax does elsewhere.
  template <typename Value>
  size_t Best(const Value& value) const {
    const EvalQuestion& question = task_.questions[next_];
    size_t best = 0;
    for (size_t i = 1; i < pending_.size(); ++i) {
      if (value(pending_[i], question.choices[i]) > value(pending_[best], question.choices[best])) {
        best = i;
      }
    }
    return best;
  }

  void WriteSample(size_t best) {
    const EvalQuestion& question = task_.questions[next_];
    Json choices = Json::array();
    for (size_t i = 0; i < pending_.size(); ++i) {
      choices.push_back({{"logprob", pending_[i].logprob},
                         {"greedy", pending_[i].greedy},
                         {"bytes", question.choices[i].answer_bytes}});
    }
    *samples_ << server::Dump({{"task", task_.name},
                               {"question", next_},
                               {"gold", question.gold},
                               {"chosen", best},
                               {"choices", std::move(choices)}})
              << "\n";
  }

  const EvalTask& task_;
  std::ostream* samples_;
  std::vector<ContinuationScore> pending_;
  bool truncated_ = false;
  size_t next_ = 0;
  EvalResult result_;
};

EvalResult RunTask(const EvalTask& task, LocalModel& model, uint32_t context,
                   std::ostream* samples) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<ScoringItem> items;
  for (const EvalQuestion& question : task.questions) {
    for (ScoringItem& item : ScoringItemsOf(question, model.tokenizer())) {
      items.push_back(std::move(item));
    }
  }
  ContinuationScorer scorer(model, context);
  Judge judge(task, samples);
  ProgressLine progress;
  scorer.Score(items, [&](size_t item, std::span<const ContinuationScore> scores, bool truncated) {
    judge.Add(scores, truncated);
    if (judge.finished() == 0) return;
    char accuracy[32];
    std::snprintf(accuracy, sizeof accuracy, ": %.1f %%", judge.result().accuracy.value() * 100.0);
    progress.Show(static_cast<double>(item + 1) / static_cast<double>(items.size()),
                  task.name + accuracy);
  });
  judge.result().tokens = scorer.tokens_computed();
  judge.result().seconds = fabric::SecondsSince(start);
  return judge.result();
}

Json ResultJson(const EvalTask& task, const EvalResult& result) {
  Json json = {{"task", task.name},
               {"kind", EvalKindName(task.kind)},
               {"questions", result.accuracy.count},
               {"acc", result.accuracy.value()},
               {"acc_stderr", result.accuracy.standard_error()}};
  if (task.kind == EvalKind::kCloze) {
    json["perplexity"] = std::exp(-result.logprobs / static_cast<double>(result.accuracy.count));
  } else {
    json["acc_norm"] = result.normalised.value();
    json["acc_norm_stderr"] = result.normalised.standard_error();
  }
  json["truncated"] = result.truncated;
  json["tokens"] = result.tokens;
  json["seconds"] = result.seconds;
  return json;
}

void PrintResult(const EvalTask& task, const EvalResult& result) {
  std::printf("%-48s %6llu  acc %6.2f %% +- %.2f", task.name.c_str(),
              static_cast<unsigned long long>(result.accuracy.count),
              result.accuracy.value() * 100.0, result.accuracy.standard_error() * 100.0);
  if (task.kind == EvalKind::kCloze) {
    std::printf("  perplexity %.4g",
                std::exp(-result.logprobs / static_cast<double>(result.accuracy.count)));
  } else {
    std::printf("  acc_norm %6.2f %% +- %.2f", result.normalised.value() * 100.0,
                result.normalised.standard_error() * 100.0);
  }
  if (result.truncated != 0) {
    std::printf("  (%llu contexts cut)", static_cast<unsigned long long>(result.truncated));
  }
  std::printf("\n");
  std::fflush(stdout);
}

// Over the tasks of a folder: each counts the same, as BLiMP's authors do.
struct Average {
  double accuracy = 0;
  double variance = 0;
  uint64_t tasks = 0;
  uint64_t questions = 0;

  void Add(const Accuracy& task) {
    accuracy += task.value();
    variance += task.standard_error() * task.standard_error();
    ++tasks;
    questions += task.count;
  }
  double value() const { return accuracy / static_cast<double>(tasks); }
  double standard_error() const { return std::sqrt(variance) / static_cast<double>(tasks); }
};

void PrintAverage(const std::string& path, const Average& average, bool json) {
  std::filesystem::path folder = std::filesystem::path(path).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  const std::string name = folder.filename().string();
  if (json) {
    const Json line = {{"task", name},           {"kind", "average"},
                       {"tasks", average.tasks}, {"questions", average.questions},
                       {"acc", average.value()}, {"acc_stderr", average.standard_error()}};
    std::cout << server::Dump(line) << std::endl;
    return;
  }
  std::printf("%-48s %6llu  acc %6.2f %% +- %.2f  (mean of %llu tasks)\n", name.c_str(),
              static_cast<unsigned long long>(average.questions), average.value() * 100.0,
              average.standard_error() * 100.0, static_cast<unsigned long long>(average.tasks));
}

int RunEval(const EvalFlags& flags) {
  const config::Config config = flags.config.Load().config;
  EvalTaskOptions options;
  options.limit = flags.limit;
  if (flags.delimiter_option->count() != 0) options.delimiter = Unescape(flags.delimiter);
  // All files are read first: a broken one is told before the work of the others.
  std::vector<std::vector<EvalTask>> groups;
  for (const std::string& path : flags.paths) groups.push_back(LoadEvalTasks(path, options));
  std::optional<SamplesFile> samples;
  if (!flags.samples.empty()) {
    for (const std::string& path : flags.paths) CheckOutputFile(flags.samples, {path});
    samples.emplace(flags.samples);
  }
  LocalModel model(ChooseModelPath(flags.model, config), config);
  const uint32_t context = config.engine.context_length != 0
                               ? config.engine.context_length
                               : model.model().config().context_length;
  for (size_t i = 0; i < groups.size(); ++i) {
    Average average;
    for (const EvalTask& task : groups[i]) {
      const EvalResult result =
          RunTask(task, model, context, samples ? &samples->stream() : nullptr);
      average.Add(result.accuracy);
      if (flags.json) {
        std::cout << server::Dump(ResultJson(task, result)) << std::endl;
      } else {
        PrintResult(task, result);
      }
    }
    if (std::filesystem::is_directory(flags.paths[i])) {
      PrintAverage(flags.paths[i], average, flags.json);
    }
  }
  if (samples) samples->Finish();
  return kSuccess;
}

}  // namespace

void AddEval(CLI::App& root, Run* run) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command =
      root.add_subcommand("eval", "Accuracy on multiple-choice, cloze and minimal-pair tests");
  command->footer(kEvalExamples);
  command->add_option("tasks", flags->paths, "JSONL files, or folders of them")
      ->type_name("FILE...")
      ->required();
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  flags->delimiter_option =
      command
          ->add_option("--delimiter", flags->delimiter,
                       "between context and answer; \\n is a new line (default: \"\\nAnswer: \" "
                       "after a query that begins with \"Question:\", else a space)")
          ->type_name("TEXT");
  command->add_option("--limit", flags->limit, "only the first N questions of each task; 0 = all")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{std::numeric_limits<uint32_t>::max()}));
  command
      ->add_option("--samples", flags->samples,
                   "write every question's log-probabilities to this file, a JSON object per line")
      ->type_name("FILE");
  command->add_flag("--json", flags->json, "one JSON object per task");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunEval(*flags); }; });
}

}  // namespace cli
