#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench_runner.h"
#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/model_path.h"
#include "cli/serving_bench.h"
#include "cli/synthetic_model.h"
#include "cli/temporary_model.h"
#include "cli/tensor_type.h"
#include "cli/text_file.h"
#include "fabric/machine_limits.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kBenchExamples =
    "pp is prompt processing, tg is generation. Each figure is the median of -r runs after a "
    "warm-up.\n"
    "The limit is what this machine's memory bandwidth or int8 arithmetic allows at best, measured "
    "in\n"
    "the same run with the same threads.\n"
    "\n"
    "Examples:\n"
    "  tern bench --model m.gguf -p 256 -n 48 -t 2 -r 3\n"
    "  tern bench --shape 2b --format pt5 --embedding-type Q6_K --batch 1,8,16 --json\n"
    "  tern bench --depth 0,4096 -p 0 -n 32            generation behind a long context\n"
    "  tern bench --replay code.txt -p 256 -n 256      what drafts (--speculate) gain when the "
    "answer\n"
    "                                                  is that text; --replay-free: the model's "
    "own\n"
    "  tern bench --replay code.txt --replay-free --speculate model --draft-model small.gguf\n"
    "  tern bench --shape 700m --mixed 1900            what a long prompt does to short requests\n"
    "  tern bench --shape 700m --prefix 2000           what a found prompt saves";

struct BenchFlags {
  ConfigFlags config;
  std::string model;
  std::string shape;
  std::string format;
  std::string embedding_type = "F16";
  uint32_t prompt = 256;
  uint32_t generate = 48;
  uint32_t repetitions = 3;
  std::vector<uint32_t> batches = {1};
  std::vector<uint32_t> depths = {0};
  std::string replay;
  bool free = false;
  uint32_t mixed = 0;
  uint32_t prefix = 0;
  bool json = false;
};

// "pt5" and "2bit" name layouts in memory, everything else a type in the file.
void ApplyFormat(const std::string& format, config::Config* config, SyntheticOptions* options) {
  if (format.empty()) return;
  if (format == "pt5") {
    config->fabric.layout = fabric::TernaryLayout::kPanelPt5;
  } else if (format == "2bit") {
    config->fabric.layout = fabric::TernaryLayout::kPanel2Bit;
  } else {
    options->type = ParseTensorType(format);
  }
}

// Calls load(path, config) with the model that the flags name.
template <typename Load>
auto WithModel(const BenchFlags& flags, config::Config config, const Load& load) {
  SyntheticOptions options;
  ApplyFormat(flags.format, &config, &options);
  if (flags.shape.empty()) return load(ChooseModelPath(flags.model, config), config);
  options.shape = FindShape(flags.shape);
  options.embedding_type = ParseTensorType(flags.embedding_type);
  const TemporaryModel file;
  std::cerr << "writing a synthetic model to " << file.path().string() << "\n";
  WriteSyntheticModel(options, file.path());
  return load(file.path().string(), config);
}

std::unique_ptr<LocalModel> LoadModel(const BenchFlags& flags, const config::Config& config) {
  return WithModel(flags, config, [](const std::string& path, const config::Config& used) {
    return std::make_unique<LocalModel>(path, used);
  });
}

void PrintReplay(const ReplayResult& result, const ReplayPlan& plan, bool json) {
  const double per_step = static_cast<double>(result.tokens) / static_cast<double>(result.steps);
  const std::string kind(result.kind);
  if (json) {
    const Json line = {{"test", plan.free ? "replay-free" : "replay"},
                       {"drafts", kind},
                       {"prompt", plan.prompt},
                       {"generated", result.tokens},
                       {"tokens_per_second", {{"off", result.plain}, {kind, result.drafted}}},
                       {"speed_up", result.speed_up},
                       {"draft_tokens", result.draft_tokens},
                       {"accepted_tokens", result.accepted},
                       {"acceptance", result.Acceptance()},
                       {"draft_length", result.DraftLength()},
                       {"draft_seconds", result.draft_seconds},
                       {"seconds", result.seconds},
                       {"tokens_per_step", per_step},
                       {"tokens_per_draft", result.TokensPerDraft()},
                       {"expected_tokens_per_draft", result.ExpectedTokensPerDraft()}};
    std::cout << server::Dump(line) << std::endl;
    return;
  }
  std::printf("off %.2f t/s, %s %.2f t/s: %.2f times\n", result.plain, kind.c_str(), result.drafted,
              result.speed_up);
  std::printf(
      "%lu of %lu drafted tokens right, %.1f per draft; drafting took %.0f %% of the time\n",
      static_cast<unsigned long>(result.accepted), static_cast<unsigned long>(result.draft_tokens),
      result.DraftLength(), 100 * result.draft_seconds / result.seconds);
  std::printf(
      "acceptance a = %.2f: a drafted step gave %.2f tokens, (1 - a^(k+1)) / (1 - a) = %.2f; "
      "all steps %.2f\n",
      result.Acceptance(), result.TokensPerDraft(), result.ExpectedTokensPerDraft(), per_step);
}

int RunReplay(const BenchFlags& flags, const config::Config& config) {
  const std::string text = ReadTextFile(flags.replay);
  const ReplayPlan plan{.prompt = flags.prompt,
                        .generate = flags.generate,
                        .free = flags.free,
                        .repetitions = flags.repetitions};
  const auto bench =
      WithModel(flags, config, [&](const std::string& path, const config::Config& used) {
        const uint32_t context = plan.prompt + plan.generate + 1;
        return std::make_unique<ServingBench>(path, used, context, 512, 4);
      });
  PrintReplay(bench->Replay(ReplayTokens(bench->model(), text, !flags.shape.empty()), plan), plan,
              flags.json);
  return kSuccess;
}

void PrintMixed(const MixedResult& result, const char* name, bool json) {
  if (json) {
    const Json line = {{"test", "mixed"},
                       {"chunked", name},
                       {"max_batch_tokens", result.max_batch_tokens},
                       {"prefill_chunk", result.prefill_chunk},
                       {"short_first_token_p95_seconds", result.first_token_p95},
                       {"stream_inter_token_p99_seconds", result.inter_token_p99},
                       {"long_first_token_seconds", result.long_first_token}};
    std::cout << server::Dump(line) << std::endl;
    return;
  }
  std::printf("%-10s %12u %14u %16.3f %19.3f %16.3f\n", name, result.max_batch_tokens,
              result.prefill_chunk, result.first_token_p95, result.inter_token_p99,
              result.long_first_token);
  std::fflush(stdout);
}

int RunMixed(const BenchFlags& flags, const config::Config& config) {
  const MixedPlan plan{.long_prompt = flags.mixed};
  const uint32_t sequences = plan.short_requests + plan.streams + 1;
  const uint32_t all = plan.long_prompt + plan.short_requests * plan.short_prompt + plan.streams;
  const auto bench =
      WithModel(flags, config, [&](const std::string& path, const config::Config& used) {
        const uint32_t context = plan.long_prompt + plan.short_prompt + plan.short_tokens + 16;
        return std::make_unique<ServingBench>(path, used, context, all, sequences);
      });
  if (!flags.json) {
    std::printf("one prompt of %u tokens, %u short requests behind it, %u streams running\n",
                plan.long_prompt, plan.short_requests, plan.streams);
    std::printf("%-10s %12s %14s %16s %19s %16s\n", "chunks", "step tokens", "chunk tokens",
                "short TTFT p95 s", "stream gap p99 s", "long TTFT s");
  }
  for (uint32_t i = 0; i < flags.repetitions; ++i) {
    PrintMixed(bench->Mixed(plan, false), "off", flags.json);
    PrintMixed(bench->Mixed(plan, true), "on", flags.json);
  }
  return kSuccess;
}

void Print(const BenchResult& result, bool json) {
  if (json) {
    Json line = {{"test", result.test},
                 {"batch", result.batch},
                 {"depth", result.depth},
                 {"threads", result.threads},
                 {"isa", result.isa},
                 {"head", result.head},
                 {"tokens_per_second",
                  {{"median", result.median}, {"min", result.min}, {"max", result.max}}},
                 {"bytes_per_token", result.bytes_per_token},
                 {"limit_tokens_per_second", result.limit_tokens_per_second},
                 {"limit", result.memory_bound ? "memory" : "compute"},
                 {"skip_rate", result.skip_rate},
                 {"energy_proxy_joules_per_token", result.energy_proxy_joules_per_token}};
    if (result.pool_bytes > 0) {
      line["residency"] = {{"pool_bytes", result.pool_bytes},
                           {"hit_rate", result.residency_hit_rate},
                           {"fetched_bytes_per_token", result.fetched_bytes_per_token},
                           {"fetch_seconds", result.fetch_seconds},
                           {"wait_seconds", result.fetch_wait_seconds}};
    }
    std::cout << server::Dump(line) << std::endl;
    return;
  }
  std::printf("%-8s %5u %6u %7d %-7s %10.2f %10.2f %10.2f %9.1f %10.1f %-7s %5.1f %%\n",
              result.test.c_str(), result.batch, result.depth, result.threads, result.isa.c_str(),
              result.median, result.min, result.max, result.bytes_per_token / 1e6,
              result.limit_tokens_per_second, result.memory_bound ? "memory" : "compute",
              100.0 * result.median / result.limit_tokens_per_second);
  if (result.pool_bytes > 0) {
    std::printf(
        "         pool %.1f MB: %.1f MB per token fetched, %.0f %% of products found theirs, "
        "waited %.3f of %.3f s of copying\n",
        static_cast<double>(result.pool_bytes) / 1e6, result.fetched_bytes_per_token / 1e6,
        100.0 * result.residency_hit_rate, result.fetch_wait_seconds, result.fetch_seconds);
  }
  std::fflush(stdout);
}

void CheckFlags(const BenchFlags& flags) {
  if (!flags.shape.empty() && !flags.model.empty()) {
    throw UsageError("Give --model or --shape, not both.");
  }
  if (flags.shape.empty() && !flags.format.empty() && flags.format != "pt5" &&
      flags.format != "2bit") {
    throw UsageError("--format " + flags.format +
                     " is a file type and needs --shape; a model's layout is pt5 or 2bit.");
  }
  if ((flags.replay.empty() ? 0 : 1) + (flags.mixed > 0 ? 1 : 0) + (flags.prefix > 0 ? 1 : 0) > 1) {
    throw UsageError("Give one of --replay, --mixed and --prefix.");
  }
  if (!flags.replay.empty() && (flags.prompt == 0 || flags.generate < 2)) {
    throw UsageError("--replay needs a prompt (-p) and at least two generated tokens (-n).");
  }
}

int RunPrefix(const BenchFlags& flags, const config::Config& config) {
  const auto bench =
      WithModel(flags, config, [&](const std::string& path, const config::Config& used) {
        return std::make_unique<ServingBench>(path, used, flags.prefix + 16, 512, 4);
      });
  const PrefixResult result = bench->Prefix(flags.prefix, flags.repetitions);
  if (flags.json) {
    const Json line = {{"test", "prefix"},
                       {"prompt", flags.prefix},
                       {"found", result.found},
                       {"first_token_seconds", {{"miss", result.miss}, {"hit", result.hit}}}};
    std::cout << server::Dump(line) << std::endl;
  } else {
    std::printf(
        "first token of a prompt of %u tokens: %.3f s; with %u of them found: %.3f s (%.1f %%)\n",
        flags.prefix, result.miss, result.found, result.hit, 100 * result.hit / result.miss);
  }
  return kSuccess;
}

int RunBench(const BenchFlags& flags) {
  CheckFlags(flags);
  const config::Config config = flags.config.Load().config;
  if (!flags.replay.empty()) return RunReplay(flags, config);
  if (flags.mixed > 0) return RunMixed(flags, config);
  if (flags.prefix > 0) return RunPrefix(flags, config);
  const std::unique_ptr<LocalModel> model = LoadModel(flags, config);
  BenchRunner runner(*model, {.prompt = flags.prompt,
                              .generate = flags.generate,
                              .repetitions = flags.repetitions,
                              .batches = flags.batches,
                              .depths = flags.depths});
  std::cerr << "measuring the machine's limits\n";
  const fabric::MachineLimits limits = runner.MeasureLimits();
  std::cerr << model->model().config().name << ", " << runner.isa() << ", " << model->threads()
            << " threads, DRAM " << limits.read_bytes_per_second / 1e9 << " GB/s, int8 "
            << limits.int8_macs_per_second / 1e12 << " T MAC/s\n";
  if (!flags.json) {
    std::printf("%-8s %5s %6s %7s %-7s %10s %10s %10s %9s %10s %-7s %7s\n", "test", "batch",
                "depth", "threads", "isa", "t/s", "min", "max", "MB/token", "limit t/s", "by",
                "reached");
  }
  runner.Run(limits, [&](const BenchResult& result) { Print(result, flags.json); });
  return kSuccess;
}

}  // namespace

void AddBench(CLI::App& root, Run* run) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = root.add_subcommand("bench", "Tokens per second, and what limits them");
  command->footer(kBenchExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  CLI::Option* shape =
      command->add_option("--shape", flags->shape, "synthetic model instead: " + ShapeNames())
          ->type_name("NAME");
  command
      ->add_option("--format", flags->format,
                   "layout in memory (pt5, 2bit) or the synthetic file's type (I2_S, TQ1_0, ...)")
      ->type_name("NAME");
  command->add_option("--embedding-type", flags->embedding_type, "of the synthetic model")
      ->type_name("TYPE")
      ->needs(shape)
      ->capture_default_str();
  command->add_option("-p,--prompt", flags->prompt, "prompt tokens per sequence; 0 = no pp test")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("-n,--generate", flags->generate, "generated tokens; 0 = no tg test")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("-r,--repetitions", flags->repetitions, "measured runs")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("-b,--batch", flags->batches, "sequences at once; several with commas")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  command->add_option("-d,--depth", flags->depths, "tokens already in the context")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 20));
  CLI::Option* replay =
      command
          ->add_option(
              "--replay", flags->replay,
              "instead: -p tokens of FILE as prompt, the next -n as answer, drafted and not")
          ->type_name("FILE");
  command
      ->add_flag("--replay-free", flags->free,
                 "with --replay: the model answers by itself, greedily")
      ->needs(replay);
  command
      ->add_option("--mixed", flags->mixed,
                   "instead: a prompt of N tokens beside short requests, in chunks and whole")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option(
          "--prefix", flags->prefix,
          "instead: first token of a prompt of N tokens, new and found in the prefix cache")
      ->type_name("N")
      ->check(CLI::Range(11, 1 << 20));
  command->add_flag("--json", flags->json, "one JSON object per result");
  flags->config.AddTo(
      *command, {"scheduler.max_batch_tokens", "scheduler.prefill_chunk", "scheduler.speculate",
                 "scheduler.draft_model", "scheduler.speculate_layers",
                 "scheduler.speculate_max_tokens", "engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunBench(*flags); }; });
}

}  // namespace cli
