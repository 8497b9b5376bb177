#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/interrupt.h"
#include "cli/local_model.h"
#include "cli/output_file.h"
#include "cli/progress_line.h"
#include "cli/temporary_model.h"
#include "cli/tensor_type.h"
#include "cli/text_score.h"
#include "engine/model.h"
#include "engine/quantize/quantizer.h"
#include "fabric/seconds_since.h"
#include "server/json.h"

namespace cli {
namespace {

namespace fs = std::filesystem;
namespace quantize = engine::quantize;
using quantize::Calibration;
using quantize::Granularity;
using quantize::QuantizeOptions;
using quantize::QuantizeReport;
using quantize::TensorReport;
using server::Json;

constexpr const char* kQuantizeExamples =
    "Floats become trits by a calibration; floats that are ternary already keep trits and scales\n"
    "(unless --recalibrate). Ternary input is repacked: trits always the same, scales exactly, or\n"
    "the file is refused unless --allow-scale-rounding. Norms, embeddings, head and expert "
    "routers\n"
    "stay as they are unless you say so.\n"
    "\n"
    "Examples:\n"
    "  tern quantize model-f16.gguf model-tq2_0.gguf --type TQ2_0\n"
    "  tern quantize model-i2_s.gguf model-tq1_0.gguf --type TQ1_0       repack, same bits\n"
    "  tern quantize f16.gguf out.gguf --type Q2_0 --calibration twn --embeddings Q6_K\n"
    "  tern quantize f16.gguf out.gguf --type I2_S --tensor-type 'blk.0.*=keep'\n"
    "  tern quantize f16.gguf --type TQ2_0 --sweep --calibration twn --text wiki.txt\n"
    "  tern quantize f16.gguf --type IQ1_BN --granularity row --dry-run --json";

struct QuantizeFlags {
  ConfigFlags config;
  std::string input;
  std::string output;
  std::string type = "TQ2_0";
  std::string calibration = "absmean";
  std::optional<double> threshold;
  bool fit_scale = false;
  std::string granularity = "auto";
  std::string embeddings = "keep";
  std::string head = "keep";
  std::vector<std::string> tensor_types;
  std::string fallback;
  bool recalibrate = false;
  bool allow_scale_rounding = false;
  bool dry_run = false;
  bool sweep = false;
  std::vector<double> sweep_thresholds;
  std::string text;
  uint32_t context = 512;
  uint64_t chunks = 0;
  bool force = false;
  bool json = false;
};

// std::nullopt for "keep"; `ternary` is what "ternary" stands for.
std::optional<gguf::TensorType> ParseTarget(const std::string& name, gguf::TensorType ternary) {
  if (name == "keep") return std::nullopt;
  if (name == "ternary") return ternary;
  return ParseTensorType(name);
}

void ParseGranularity(const std::string& text, QuantizeOptions* options) {
  constexpr std::string_view kGroup = "group:";
  if (text == "auto") {
    options->granularity = Granularity::kAuto;
  } else if (text == "tensor") {
    options->granularity = Granularity::kTensor;
  } else if (text == "row") {
    options->granularity = Granularity::kRow;
  } else if (text.starts_with(kGroup)) {
    const std::string digits = text.substr(kGroup.size());
    const bool number = !digits.empty() && digits.size() <= 7 &&
                        std::all_of(digits.begin(), digits.end(),
                                    [](unsigned char c) { return std::isdigit(c) != 0; });
    options->granularity = Granularity::kGroup;
    options->group = number ? static_cast<uint32_t>(std::stoul(digits)) : 0;
    if (options->group != 0) return;
    throw UsageError("--granularity group:N needs a number of columns, not \"" + digits + "\".");
  } else {
    throw UsageError("--granularity must be auto, tensor, row or group:N, not \"" + text + "\".");
  }
}

quantize::TensorRule ParseRule(const std::string& text, gguf::TensorType ternary) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) {
    throw UsageError("--tensor-type needs NAME=TYPE, not \"" + text + "\".");
  }
  return {text.substr(0, equals), ParseTarget(text.substr(equals + 1), ternary)};
}

QuantizeOptions OptionsOf(const QuantizeFlags& flags) {
  QuantizeOptions options;
  options.type = ParseTensorType(flags.type);
  const auto rule = quantize::FindCalibration(flags.calibration);
  if (!rule) {
    throw UsageError("--calibration must be one of " + std::string(quantize::CalibrationNames()) +
                     ", not \"" + flags.calibration + "\".");
  }
  options.calibration = {.rule = *rule, .threshold = flags.threshold, .fit_scale = flags.fit_scale};
  try {
    quantize::CheckCalibration(options.calibration);
  } catch (const quantize::QuantizeError& error) {
    throw UsageError(error.what());
  }
  ParseGranularity(flags.granularity, &options);
  options.embeddings = ParseTarget(flags.embeddings, options.type);
  options.head = ParseTarget(flags.head, options.type);
  for (const std::string& text : flags.tensor_types) {
    options.rules.push_back(ParseRule(text, options.type));
  }
  if (!flags.fallback.empty()) options.fallback = ParseTensorType(flags.fallback);
  options.recalibrate = flags.recalibrate || flags.sweep;
  options.allow_scale_rounding = flags.allow_scale_rounding;
  return options;
}

// Never over the input, and over anything else only when told to.
void CheckOutput(const gguf::File& file, const QuantizeFlags& flags) {
  if (flags.output.empty()) {
    throw UsageError("Give the OUTPUT file, or --dry-run or --sweep, which write none.");
  }
  for (const std::string& path : file.paths()) CheckOutputFile(flags.output, {path});
  std::error_code error;
  if (fs::exists(flags.output, error) && !flags.force) {
    throw UsageError(flags.output + " exists already: use --force to replace it.");
  }
}

void StopWhenInterrupted() {
  if (Interrupted()) throw std::runtime_error("Interrupted; nothing was written.");
}

quantize::OnQuantizeProgress ShowProgress() {
  return [line = std::make_shared<ProgressLine>()](const quantize::QuantizeProgress& progress) {
    StopWhenInterrupted();
    line->Show(progress.fraction, progress.tensor);
  };
}

struct Perplexity {
  double value = 0;
  double standard_error = 0;
};

Perplexity MeasurePerplexity(const std::string& path, const QuantizeFlags& flags,
                             const config::Config& config) {
  LocalModel model(path, config);
  const std::vector<engine::TokenId> tokens = TokenizeTextFile(flags.text, model.tokenizer());
  const TextScore score =
      ScoreText(model, tokens, {.context = flags.context, .chunks = flags.chunks},
                [](uint64_t chunk, uint64_t chunks, const TextScore& so_far) {
                  PrintChunk(chunk, chunks, so_far);
                  StopWhenInterrupted();
                });
  return {score.perplexity(), score.standard_error()};
}

// What is written is in the published layout, however the input was read.
config::Config ConfigForOutput(config::Config config) {
  config.engine.i2s_layout = "x86";
  return config;
}

Json PerplexityJson(const Perplexity& perplexity) {
  return {{"perplexity", perplexity.value}, {"stderr", perplexity.standard_error}};
}

Json DifferenceJson(const quantize::Difference& difference) {
  return {{"zero_rate", difference.zero_rate()},
          {"relative_error", difference.relative_error()},
          {"cosine", difference.cosine()}};
}

Json TensorJson(const TensorReport& tensor) {
  Json entry = {{"name", tensor.name},
                {"rows", tensor.rows},
                {"cols", tensor.cols},
                {"source_type", gguf::TypeName(tensor.source_type)},
                {"type", gguf::TypeName(tensor.target_type)},
                {"method", quantize::MethodName(tensor.method)},
                {"fallback", tensor.fallback},
                {"source_bytes", tensor.source_bytes},
                {"bytes", tensor.target_bytes}};
  if (tensor.difference.elements != 0) entry.update(DifferenceJson(tensor.difference));
  return entry;
}

Json CalibrationJson(const QuantizeOptions& options) {
  const quantize::CalibrationOptions& calibration = options.calibration;
  return {
      {"rule", quantize::CalibrationName(calibration.rule)},
      {"threshold", calibration.threshold.value_or(quantize::DefaultThreshold(calibration.rule))},
      {"fit_scale", calibration.fit_scale}};
}

Json ReportJson(const QuantizeReport& report, const QuantizeFlags& flags,
                const QuantizeOptions& options) {
  Json tensors = Json::array();
  for (const TensorReport& tensor : report.tensors) tensors.push_back(TensorJson(tensor));
  Json total = {{"source_bytes", report.source_bytes}, {"bytes", report.target_bytes}};
  if (report.total.elements != 0) total.update(DifferenceJson(report.total));
  total["ternary_zero_rate"] = report.ternary.zero_rate();
  return {{"input", flags.input},
          {"output", flags.dry_run ? Json(nullptr) : Json(flags.output)},
          {"type", gguf::TypeName(options.type)},
          {"calibration", CalibrationJson(options)},
          {"granularity", flags.granularity},
          {"tensors", std::move(tensors)},
          {"total", std::move(total)}};
}

void PrintDifference(const quantize::Difference& difference) {
  if (difference.elements == 0) return;
  std::printf("  %7.2f %%  %10.3e  %.6f", difference.zero_rate() * 100.0,
              difference.relative_error(), difference.cosine());
}

void PrintReport(const QuantizeReport& report) {
  std::printf("%-32s %13s  %-17s  %-14s %11s  %9s  %10s  %s\n", "tensor", "shape", "type", "how",
              "bytes", "zero rate", "rel. error", "cosine");
  int fallbacks = 0;
  for (const TensorReport& tensor : report.tensors) {
    const std::string shape = std::to_string(tensor.rows) + " x " + std::to_string(tensor.cols);
    std::string types(gguf::TypeName(tensor.source_type));
    if (tensor.target_type != tensor.source_type) {
      types += " -> " + std::string(gguf::TypeName(tensor.target_type));
    }
    if (tensor.fallback) types += " *";
    fallbacks += tensor.fallback ? 1 : 0;
    std::printf("%-32s %13s  %-17s  %-14s %11llu", tensor.name.c_str(), shape.c_str(),
                types.c_str(), std::string(quantize::MethodName(tensor.method)).c_str(),
                static_cast<unsigned long long>(tensor.target_bytes));
    PrintDifference(tensor.difference);
    std::printf("\n");
  }
  const double ratio =
      static_cast<double>(report.source_bytes) / static_cast<double>(report.target_bytes);
  std::printf("%-80s %11llu", "total (errors over what was not copied)",
              static_cast<unsigned long long>(report.target_bytes));
  PrintDifference(report.total);
  std::printf("\n%.2f MiB -> %.2f MiB, %.2f times smaller",
              static_cast<double>(report.source_bytes) / 1048576.0,
              static_cast<double>(report.target_bytes) / 1048576.0, ratio);
  if (report.ternary.elements != 0) {
    std::printf("; %.2f %% of the ternary weights are zero", report.ternary.zero_rate() * 100.0);
  }
  std::printf("\n");
  if (fallbacks != 0) {
    std::printf(
        "* the shape does not fit the type that was asked for: %d tensors took the fallback\n",
        fallbacks);
  }
}

int RunConversion(const quantize::Quantizer& quantizer, const QuantizeFlags& flags,
                  const QuantizeOptions& options, const config::Config& config) {
  const auto start = std::chrono::steady_clock::now();
  std::optional<Perplexity> before;
  if (!flags.text.empty()) before = MeasurePerplexity(flags.input, flags, config);
  const bool temporary = flags.dry_run && before.has_value();
  std::optional<TemporaryModel> scratch;
  if (temporary) scratch.emplace();
  const std::string path = temporary ? scratch->path().string() : flags.output;
  const QuantizeReport report = flags.dry_run && !temporary
                                    ? quantizer.Measure(ShowProgress())
                                    : quantizer.WriteFile(path, ShowProgress());
  std::optional<Perplexity> after;
  if (before) after = MeasurePerplexity(path, flags, ConfigForOutput(config));

  if (flags.json) {
    Json result = ReportJson(report, flags, options);
    if (before) {
      result["perplexity"] = {{"before", PerplexityJson(*before)},
                              {"after", PerplexityJson(*after)}};
    }
    result["seconds"] = fabric::SecondsSince(start);
    std::cout << server::Dump(result) << std::endl;
    return kSuccess;
  }
  PrintReport(report);
  if (before) {
    std::printf("perplexity %.4f +- %.4f before, %.4f +- %.4f after (%+.3f %%)\n", before->value,
                before->standard_error, after->value, after->standard_error,
                (after->value / before->value - 1.0) * 100.0);
  }
  std::fflush(stdout);
  if (!flags.dry_run) {
    std::cerr << "wrote " << flags.output << ", " << fs::file_size(flags.output) << " bytes\n";
  }
  return kSuccess;
}

// Around each rule's default, wide enough to show the minimum.
std::vector<double> SweepThresholds(const QuantizeFlags& flags, Calibration rule) {
  if (!flags.sweep_thresholds.empty()) return flags.sweep_thresholds;
  switch (rule) {
    case Calibration::kAbsmean:
    case Calibration::kTwn:
      return {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5};
    case Calibration::kPercentile:
      return {10, 20, 30, 40, 46, 50, 60, 70, 80, 90};
    case Calibration::kMeanStd:
      return {-1.0, -0.75, -0.5, -0.3, -0.1, 0.0, 0.25, 0.5, 1.0};
    case Calibration::kAbsmax:
    case Calibration::kMinmax:
      break;
  }
  return {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5};
}

struct SweepPoint {
  double threshold = 0;
  QuantizeReport report;
  std::optional<Perplexity> perplexity;
};

void PrintSweepPoint(const SweepPoint& point, const QuantizeFlags& flags) {
  const quantize::Difference& ternary = point.report.ternary;
  if (flags.json) {
    Json result = {{"calibration", flags.calibration}, {"threshold", point.threshold}};
    result.update(DifferenceJson(ternary));
    result["bytes"] = point.report.target_bytes;
    if (point.perplexity) result.update(PerplexityJson(*point.perplexity));
    std::cout << server::Dump(result) << std::endl;
    return;
  }
  std::printf("%9g", point.threshold);
  PrintDifference(ternary);
  if (point.perplexity) {
    std::printf("  %12.4f +- %.4f", point.perplexity->value, point.perplexity->standard_error);
  }
  std::printf("\n");
  std::fflush(stdout);
}

int RunSweep(const gguf::File& file, const QuantizeFlags& flags, QuantizeOptions options,
             const config::Config& config) {
  if (!flags.json) {
    std::printf("%9s  %9s  %10s  %8s%s\n", "threshold", "zero rate", "rel. error", "cosine",
                flags.text.empty() ? "" : "    perplexity");
  }
  for (const double threshold : SweepThresholds(flags, options.calibration.rule)) {
    options.calibration.threshold = threshold;
    const quantize::Quantizer quantizer(file, options);
    SweepPoint point = {.threshold = threshold, .report = {}, .perplexity = std::nullopt};
    if (flags.text.empty()) {
      point.report = quantizer.Measure(ShowProgress());
    } else {
      const TemporaryModel model;
      point.report = quantizer.WriteFile(model.path().string(), ShowProgress());
      point.perplexity = MeasurePerplexity(model.path().string(), flags, ConfigForOutput(config));
    }
    PrintSweepPoint(point, flags);
  }
  return kSuccess;
}

int RunQuantize(const QuantizeFlags& flags) {
  const config::Config config = flags.config.Load().config;
  const QuantizeOptions options = OptionsOf(flags);
  if (flags.sweep && flags.dry_run)
    throw UsageError("--sweep writes nothing: leave --dry-run out.");
  if ((flags.sweep || flags.dry_run) && !flags.output.empty()) {
    throw UsageError("--dry-run and --sweep write nothing: leave OUTPUT out.");
  }
  if (!flags.sweep_thresholds.empty() && !flags.sweep) {
    throw UsageError("--sweep-thresholds needs --sweep.");
  }
  for (const double threshold : flags.sweep_thresholds) {
    try {
      quantize::CheckCalibration({.rule = options.calibration.rule, .threshold = threshold});
    } catch (const quantize::QuantizeError& error) {
      throw UsageError(error.what());
    }
  }
  const gguf::File file = gguf::File::Open(flags.input, engine::ReadOptionsFor(config.engine));
  const quantize::Quantizer quantizer(file, options);
  if (!flags.sweep && !flags.dry_run) CheckOutput(file, flags);
  const InterruptGuard guard(InterruptGuard::Signals::kAndTerminate);
  return flags.sweep ? RunSweep(file, flags, options, config)
                     : RunConversion(quantizer, flags, options, config);
}

void AddCalibrationFlags(CLI::App* command, QuantizeFlags* flags) {
  command
      ->add_option("--calibration", flags->calibration,
                   "how floats become trits: " + std::string(quantize::CalibrationNames()))
      ->type_name("RULE")
      ->capture_default_str();
  command
      ->add_option("--threshold", flags->threshold,
                   "the rule's parameter: times mean|w| (absmean 0.5, twn 0.7), percent of the "
                   "weights (percentile 46), standard deviations over mean|w| (mean-std -0.3), "
                   "times the scale (absmax and minmax 0.5)")
      ->type_name("X");
  command->add_flag("--fit-scale", flags->fit_scale,
                    "scale of least squared error (mean of the kept |w|) for every rule");
  command
      ->add_option("--granularity", flags->granularity,
                   "weights per scale: auto (the finest that the type holds), tensor, row, group:N")
      ->type_name("G")
      ->capture_default_str();
  command->add_flag("--recalibrate", flags->recalibrate,
                    "calibrate floats that are exactly ternary too");
}

void AddTypeFlags(CLI::App* command, QuantizeFlags* flags) {
  command->add_option("--type", flags->type, "type of the projections, e.g. I2_S, TQ1_0, Q2_0")
      ->type_name("TYPE")
      ->capture_default_str();
  command
      ->add_option("--embeddings", flags->embeddings,
                   "type of token_embd.weight: keep, ternary (as --type) or a type")
      ->type_name("TYPE")
      ->capture_default_str();
  command->add_option("--head", flags->head, "type of output.weight: keep, ternary or a type")
      ->type_name("TYPE")
      ->capture_default_str();
  command
      ->add_option("--tensor-type", flags->tensor_types,
                   "type of tensors by name, * and ? match; repeatable, the last match counts")
      ->type_name("NAME=TYPE")
      ->allow_extra_args(false);
  command
      ->add_option("--fallback", flags->fallback,
                   "type of tensors whose columns do not fit; without it such a file is refused")
      ->type_name("TYPE");
  command->add_flag("--allow-scale-rounding", flags->allow_scale_rounding,
                    "repack also where the type cannot hold the scales exactly");
}

}  // namespace

void AddQuantize(CLI::App& root, Run* run) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command =
      root.add_subcommand("quantize", "Turn a float model ternary, or repack a ternary one");
  command->footer(kQuantizeExamples);
  command->add_option("input", flags->input, "GGUF file; any part of a split one")
      ->type_name("INPUT")
      ->required();
  command->add_option("output", flags->output, "file to write, whole or not at all")
      ->type_name("OUTPUT");
  AddTypeFlags(command, flags.get());
  AddCalibrationFlags(command, flags.get());
  command->add_flag("--dry-run", flags->dry_run, "the report only; nothing is written");
  command->add_flag("--sweep", flags->sweep,
                    "one line per threshold: zero rate, error, perplexity with --text");
  command->add_option("--sweep-thresholds", flags->sweep_thresholds, "thresholds for --sweep")
      ->type_name("X,X,...")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--text", flags->text, "measure perplexity of this text before and after")
      ->type_name("FILE");
  command->add_option("--context", flags->context, "tokens per chunk of --text")
      ->type_name("N")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  command->add_option("--chunks", flags->chunks, "score only the first N chunks; 0 = all")
      ->type_name("N");
  command->add_flag("--force", flags->force, "replace OUTPUT when it exists");
  command->add_flag("--json", flags->json, "one JSON object, or one per threshold");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunQuantize(*flags); }; });
}

}  // namespace cli
