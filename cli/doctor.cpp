#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/bench_runner.h"
#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/diagnosis.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "engine/kv_geometry.h"
#include "engine/model_config.h"
#include "fabric/cpu/isa.h"
#include "gguf/reader.h"
#include "server/energy_meter.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kDoctorExamples =
    "Looks at what decides how fast a model runs here and whether it fits, measures memory and\n"
    "arithmetic (about two seconds, 512 MiB), loads the model and generates a few tokens. Nothing\n"
    "is changed.\n"
    "\n"
    "Verdicts: good; note (worth knowing); warning (costs speed, or may fail under load); problem\n"
    "(the server will not do its work). Exit code 1 when there is a problem, else 0.\n"
    "\n"
    "Examples:\n"
    "  tern doctor\n"
    "  tern doctor --model m.gguf --threads 8\n"
    "  tern doctor --no-measure --json | jq '.findings[] | select(.verdict == \"warning\")'";

struct DoctorFlags {
  ConfigFlags config;
  std::string model;
  std::string root;
  bool no_measure = false;
  bool json = false;
};

// Rates of one sequence, and the memory that the model takes as it is loaded.
ModelFacts MeasureModel(LocalModel& model, const fabric::MachineLimits& limits) {
  BenchRunner runner(model, {.generate = 16});
  ModelFacts facts;
  runner.Run(limits, [&](const BenchResult& result) {
    facts.bytes_per_token = result.bytes_per_token;
    facts.tokens_per_second = result.median;
    facts.limit_tokens_per_second = result.limit_tokens_per_second;
  });
  return facts;
}

uint64_t KvBytes(const engine::ModelConfig& model, const engine::EngineOptions& options,
                 uint32_t context) {
  const engine::KvGeometry geometry = {.layers = model.attention_layers(),
                                       .kv_heads = model.kv_heads,
                                       .head_dim = model.head_dim,
                                       .block_size = options.kv_block_size,
                                       .type = options.kv_type};
  return geometry.BytesPerBlock() * geometry.BlocksFor(context);
}

uint32_t ContextOf(const engine::ModelConfig& model, const engine::EngineOptions& options) {
  return options.context_length > 0 ? std::min(options.context_length, model.context_length)
                                    : model.context_length;
}

struct Examination {
  MachineFacts facts;
  IsaFacts isa;
  SpeedFacts speed;
  std::optional<ModelFacts> model;
  std::vector<Finding> findings;
};

void Append(std::vector<Finding> more, std::vector<Finding>* findings) {
  findings->insert(findings->end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
}

// Without a measurement what the file holds stands for what is loaded of it.
ModelFacts ExamineModel(const std::string& path, const config::Config& config,
                        const MachineFacts& machine, SpeedFacts* speed) {
  ModelFacts facts;
  try {
    const gguf::File file = gguf::File::Open(path);
    const engine::ModelConfig model = engine::ModelConfig::FromGguf(file, config.engine);
    facts.name = model.name;
    facts.weight_bytes = file.file_bytes();
    facts.context = ContextOf(model, config.engine);
    facts.kv_bytes = KvBytes(model, config.engine, facts.context);
    // One that does not fit is not tried.
    if (speed == nullptr || facts.weight_bytes > machine.memory_free()) return facts;
  } catch (const std::exception& error) {
    facts.error = error.what();
    return facts;
  }
  try {
    LocalModel model(path, config);
    const fabric::MachineLimits limits = model.MeasureLimits();
    *speed = {limits.read_bytes_per_second, limits.int8_macs_per_second, model.threads()};
    const ModelFacts measured = MeasureModel(model, limits);
    facts.weight_bytes = model.model().weights().resident_bytes;
    facts.bytes_per_token = measured.bytes_per_token;
    facts.tokens_per_second = measured.tokens_per_second;
    facts.limit_tokens_per_second = measured.limit_tokens_per_second;
  } catch (const std::exception& error) {
    facts.error = error.what();
  }
  return facts;
}

Examination Examine(const DoctorFlags& flags, const config::Config& config) {
  Examination result;
  result.facts = ReadMachineFacts(flags.root);
  result.isa = {std::string(fabric::IsaName(fabric::ActiveIsa())),
                std::string(fabric::IsaName(fabric::SupportedIsas().front()))};
  const server::EnergyMeter meter({.root = flags.root + "/sys/class/powercap"});
  const int threads = config.threads > 0 ? config.threads : fabric::AvailableCpus();
  result.findings = DiagnoseMachine(result.facts, result.isa, threads, meter.problem(),
                                    config.server.max_connections);
  if (!flags.no_measure) std::cerr << "measuring memory, arithmetic and the model\n";
  const std::string path = ChooseModelPath(flags.model, config);
  result.model =
      ExamineModel(path, config, result.facts, flags.no_measure ? nullptr : &result.speed);
  if (result.speed.threads > 0) {
    Append(DiagnoseSpeed(result.facts, result.speed), &result.findings);
  }
  Append(DiagnoseModel(result.facts, *result.model), &result.findings);
  return result;
}

Json OrNull(const auto& value) { return value ? Json(*value) : Json(nullptr); }

Json ToJson(const Examination& examination) {
  const MachineFacts& facts = examination.facts;
  Json json;
  json["machine"] = {{"cpu", facts.cpu},
                     {"features", facts.features},
                     {"hypervisor", facts.hypervisor},
                     {"kernel", facts.kernel},
                     {"online_cpus", facts.online_cpus},
                     {"allowed_cpus", facts.allowed_cpus},
                     {"smt", OrNull(facts.smt)},
                     {"cgroup_cpus", OrNull(facts.cgroup_cpus)},
                     {"cgroup_memory_bytes", OrNull(facts.cgroup_memory)},
                     {"governors", facts.governors},
                     {"huge_pages", facts.huge_pages},
                     {"numa_nodes", facts.numa_nodes},
                     {"memory_total_bytes", facts.memory_total},
                     {"memory_free_bytes", facts.memory_free()},
                     {"load_average", OrNull(facts.load)},
                     {"open_files_hard", OrNull(facts.open_files_hard)}};
  json["isa"] = {{"chosen", examination.isa.chosen}, {"best", examination.isa.best}};
  if (examination.speed.threads > 0) {
    json["limits"] = {{"threads", examination.speed.threads},
                      {"read_bytes_per_second", examination.speed.read_bytes_per_second},
                      {"int8_macs_per_second", examination.speed.int8_macs_per_second}};
  }
  const ModelFacts& model = *examination.model;
  json["model"] = {{"name", model.name},
                   {"weight_bytes", model.weight_bytes},
                   {"context_length", model.context},
                   {"kv_bytes", model.kv_bytes}};
  if (model.limit_tokens_per_second > 0) {
    json["model"]["bytes_per_token"] = model.bytes_per_token;
    json["model"]["tokens_per_second"] = model.tokens_per_second;
    json["model"]["limit_tokens_per_second"] = model.limit_tokens_per_second;
  }
  json["findings"] = Json::array();
  for (const Finding& finding : examination.findings) {
    json["findings"].push_back({{"id", finding.id},
                                {"verdict", VerdictName(finding.verdict)},
                                {"found", finding.found},
                                {"advice", finding.advice}});
  }
  return json;
}

void PrintText(const Examination& examination) {
  for (const Finding& finding : examination.findings) {
    std::cout << "[" << VerdictName(finding.verdict) << "] " << finding.found << "\n";
    if (!finding.advice.empty()) std::cout << "    -> " << finding.advice << "\n";
  }
  std::cout << std::flush;
}

int RunDoctor(const DoctorFlags& flags) {
  const config::Config config = flags.config.Load().config;
  const Examination examination = Examine(flags, config);
  if (flags.json) {
    std::cout << server::Dump(ToJson(examination)) << std::endl;
  } else {
    PrintText(examination);
  }
  const bool ill = std::any_of(
      examination.findings.begin(), examination.findings.end(),
      [](const Finding& finding) { return finding.verdict == Finding::Verdict::kProblem; });
  return ill ? kFailed : kSuccess;
}

}  // namespace

void AddDoctor(CLI::App& root, Run* run) {
  auto flags = std::make_shared<DoctorFlags>();
  CLI::App* command = root.add_subcommand(
      "doctor", "What this machine can do for a model, and what stands in its way");
  command->footer(kDoctorExamples);
  command->add_option("model,-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_flag("--no-measure", flags->no_measure, "only look: measure nothing, load nothing");
  command->add_flag("--json", flags->json, "one JSON object");
  command
      ->add_option("--root", flags->root,
                   "read /proc and /sys below this folder, such as a copy from another machine")
      ->type_name("FOLDER")
      ->check(CLI::ExistingDirectory);
  flags->config.AddTo(*command, {"server", "engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunDoctor(*flags); }; });
}

}  // namespace cli
