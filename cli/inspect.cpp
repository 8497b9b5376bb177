#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/fabric_report.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "engine/errors.h"
#include "engine/importance.h"
#include "engine/state_cache.h"
#include "gguf/codec.h"
#include "gguf/reader.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kInspectExamples =
    "Examples:\n"
    "  tern inspect model.gguf\n"
    "  tern inspect model.gguf --fabric-layout pt5 --json\n"
    "  tern inspect model-q4_k.gguf --fabric --fabric-profile balanced   where each tensor runs, "
    "why\n"
    "  tern inspect vocabulary-only.gguf            also shows what Tern cannot run, and why";

struct InspectFlags {
  ConfigFlags config;
  std::string model;
  bool json = false;
  bool no_load = false;
  bool fabric = false;
};

Json ValueJson(const gguf::MetadataValue& value) {
  if (const auto* array = std::get_if<gguf::MetadataArray>(&value.value)) {
    return {{"array_of", array->size()}};
  }
  return std::visit(
      [](const auto& plain) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, gguf::MetadataArray>) {
          return nullptr;
        } else {
          return plain;
        }
      },
      value.value);
}

Json MetadataJson(const gguf::File& file) {
  Json metadata = Json::object();
  for (const auto& [key, value] : file.metadata().entries()) metadata[key] = ValueJson(value);
  return metadata;
}

struct Zeros {
  uint64_t zeros = 0;
  uint64_t weights = 0;
  double rate() const {
    return weights == 0 ? 0.0 : static_cast<double>(zeros) / static_cast<double>(weights);
  }
};

Zeros CountZeros(const gguf::File& file, const gguf::TensorInfo& info) {
  const gguf::TernaryDecoder decoder(info, file.TensorBytes(info), file.options());
  std::vector<int8_t> trits(info.cols());
  std::vector<float> scales(decoder.scales_per_row());
  Zeros zeros{.zeros = 0, .weights = info.elements()};
  for (uint64_t row = 0; row < info.rows(); ++row) {
    decoder.DecodeRow(row, trits, scales);
    for (const int8_t trit : trits) zeros.zeros += trit == 0;
  }
  return zeros;
}

// The tensor table; `total` gets the zeros of all ternary tensors.
Json TensorsJson(const gguf::File& file, Zeros* total) {
  Json tensors = Json::array();
  for (const gguf::TensorInfo& info : file.tensors()) {
    Json shape = Json::array();
    for (uint32_t i = 0; i < info.rank; ++i) shape.push_back(info.extents[i]);
    Json entry = {{"name", info.name},
                  {"type", gguf::TypeName(info.type)},
                  {"shape", std::move(shape)},
                  {"bytes", info.byte_size}};
    if (gguf::TernaryDecoder::Accepts(info, file.TensorBytes(info))) {
      const Zeros zeros = CountZeros(file, info);
      entry["zero_rate"] = zeros.rate();
      total->zeros += zeros.zeros;
      total->weights += zeros.weights;
    }
    tensors.push_back(std::move(entry));
  }
  return tensors;
}

std::string ActivationText(engine::ActivationMode mode) {
  switch (mode) {
    case engine::ActivationMode::kToken:
      return "int8 per token";
    case engine::ActivationMode::kBlock:
      return "int8 per block of 32";
    case engine::ActivationMode::kFloat:
      return "float";
    case engine::ActivationMode::kAuto:
      break;
  }
  return "auto";
}

std::string ActivationReason(const engine::ModelConfig& model, const config::Config& config) {
  if (config.engine.activation != engine::ActivationMode::kAuto) return "asked for";
  if (model.architecture.starts_with("bitnet")) {
    return "models of architecture " + model.architecture + " are trained with it";
  }
  return model.ternary_activation == engine::ActivationMode::kToken
             ? "every ternary tensor has one scale"
             : "ternary tensors have several scales or none are there";
}

std::string HeadReason(engine::HeadMode mode, const config::Config& config) {
  if (config.engine.head == mode) return "--head " + std::string(engine::HeadModeName(mode));
  return "it is small, or of a type without a sketch";
}

Json RunJson(LocalModel& model, const config::Config& config) {
  const engine::ModelConfig& shape = model.model().config();
  const engine::Weights& weights = model.model().weights();
  const uint32_t context =
      config.engine.context_length != 0 ? config.engine.context_length : shape.context_length;
  model.PrepareKv(1, context);
  const engine::KvGeometry& kv = model.engine().kv_geometry();
  Json placements = Json::array();
  for (const engine::TensorPlacement& placement : weights.placements) {
    placements.push_back(PlacementJson(placement, model.device()));
  }
  return {{"device", model.device().name()},
          {"isa", fabric::IsaName(model.isa())},
          {"threads", model.threads()},
          {"activation", ActivationText(shape.ternary_activation)},
          {"activation_reason", ActivationReason(shape, config)},
          {"layout_reason", weights.layout_reason},
          {"head", engine::HeadModeName(model.engine().head_mode())},
          {"head_reason", HeadReason(model.engine().head_mode(), config)},
          {"load_seconds", model.model().load_report().seconds},
          {"packed_cache", model.model().load_report().packed_cache},
          {"memory",
           {{"weights_bytes", weights.resident_bytes},
            {"kv_bytes_per_token", kv.BytesPerBlock() / kv.block_size},
            {"kv_bytes_full_context", kv.BytesPerBlock() * kv.MostBlocks(context, kv.block_size)},
            {"state_bytes_per_sequence",
             shape.recurrent() ? engine::StateCache::BytesPerSlot(shape) : 0},
            {"context_length", context},
            {"workspace_bytes", model.engine().workspace_bytes()}}},
          {"fabric", FabricJson(weights, model.device())},
          {"placements", std::move(placements)}};
}

void PrintTensors(const Json& report) {
  std::unordered_map<std::string, const Json*> placements;
  if (report.contains("run")) {
    for (const Json& placement : report["run"]["placements"]) {
      placements[placement["name"]] = &placement;
    }
  }
  std::printf("\n%-32s %-8s %-16s %12s %6s  %s\n", "tensor", "type", "shape", "bytes", "zeros",
              "runs as");
  for (const Json& tensor : report["tensors"]) {
    std::string shape;
    for (const Json& extent : tensor["shape"]) {
      if (!shape.empty()) shape += 'x';
      shape += extent.dump();
    }
    std::string zeros;
    if (tensor.contains("zero_rate")) {
      char text[16];
      std::snprintf(text, sizeof text, "%.1f%%", tensor["zero_rate"].get<double>() * 100.0);
      zeros = text;
    }
    std::string runs_as;
    const auto placement = placements.find(tensor["name"]);
    if (placement != placements.end()) {
      runs_as = (*placement->second)["layout"].get<std::string>() + ", input " +
                (*placement->second)["activation"].get<std::string>();
    }
    std::printf("%-32s %-8s %-16s %12s %6s  %s\n", tensor["name"].get<std::string>().c_str(),
                tensor["type"].get<std::string>().c_str(), shape.c_str(),
                tensor["bytes"].dump().c_str(), zeros.c_str(), runs_as.c_str());
  }
}

void PrintText(const Json& report, bool fabric) {
  std::cout << report["file"].get<std::string>() << ": GGUF v" << report["version"] << ", "
            << Mebibytes(report["file_bytes"]) << "\n\n";
  for (const auto& [key, value] : report["metadata"].items()) {
    std::string text = value.is_object() ? value["array_of"].dump() + " values" : value.dump();
    if (text.size() > 100) text = text.substr(0, 97) + "...";
    std::cout << key << " = " << text << "\n";
  }
  std::cout.flush();
  PrintTensors(report);
  if (report.contains("zero_rate")) {
    std::printf("\nzero rate of ternary weights: %.1f %%\n",
                report["zero_rate"].get<double>() * 100);
  }
  std::fflush(stdout);
  if (report.contains("reason")) {
    std::cout << "\ncannot run: " << report["reason"].get<std::string>() << "\n";
  }
  if (!report.contains("run")) return;
  const Json& run = report["run"];
  if (fabric) PrintFabric(run);
  const Json& memory = run["memory"];
  std::cout << "\nruns on device " << run["device"].get<std::string>() << " ("
            << run["isa"].get<std::string>() << ", " << run["threads"]
            << " threads); ternary projections take " << run["activation"].get<std::string>()
            << " input: " << run["activation_reason"].get<std::string>() << "\n";
  if (!run["layout_reason"].get<std::string>().empty()) {
    std::cout << "layout of ternary weights: " << run["layout_reason"].get<std::string>() << "\n";
  }
  const std::string packed_cache = run["packed_cache"].get<std::string>();
  if (!packed_cache.empty()) std::cout << "packed cache: " << packed_cache << "\n";
  std::cout << "head: " << run["head"].get<std::string>()
            << (run["head"] == "full" ? "" : ", where only the best logits count") << " ("
            << run["head_reason"].get<std::string>() << ")\n";
  std::cout << "memory: weights " << Mebibytes(memory["weights_bytes"]) << ", workspace "
            << Mebibytes(memory["workspace_bytes"]) << ", KV " << memory["kv_bytes_per_token"]
            << " bytes per token, " << Mebibytes(memory["kv_bytes_full_context"])
            << " for a context of " << memory["context_length"];
  if (memory["state_bytes_per_sequence"] != 0) {
    std::cout << ", recurrent state " << Mebibytes(memory["state_bytes_per_sequence"])
              << " per sequence";
  }
  std::cout << "\n";
}

int RunInspect(const InspectFlags& flags) {
  const config::Config config = flags.config.Load().config;
  // That this file cannot be read is told of the option, not of the model.
  const std::string& calibration = config.engine.placement.importance;
  if (!calibration.empty()) engine::Importance::Read(calibration);
  const std::string path = ChooseModelPath(flags.model, config);
  Json report = {{"file", path}};
  {
    const gguf::File file = gguf::File::Open(path);
    report["version"] = file.version();
    report["file_bytes"] = file.file_bytes();
    report["metadata"] = MetadataJson(file);
    Zeros zeros;
    report["tensors"] = TensorsJson(file, &zeros);
    if (zeros.weights != 0) report["zero_rate"] = zeros.rate();
  }
  if (!flags.no_load) {
    try {
      LocalModel model(path, config);
      report["run"] = RunJson(model, config);
    } catch (const engine::ModelError& error) {
      report["reason"] = error.what();
    } catch (const gguf::FormatError& error) {
      report["reason"] = error.what();
    }
  }
  if (flags.json) {
    std::cout << server::Dump(report) << std::endl;
  } else {
    PrintText(report, flags.fabric);
  }
  return kSuccess;
}

}  // namespace

void AddInspect(CLI::App& root, Run* run) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command =
      root.add_subcommand("inspect", "What is in a model file, and how it would run here");
  command->footer(kInspectExamples);
  command->add_option("model,-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_flag("--json", flags->json, "one JSON object");
  command->add_flag("--no-load", flags->no_load, "only read the file");
  command
      ->add_flag("--fabric", flags->fabric,
                 "a table of the matrices: frames, residency, and why each runs where")
      ->excludes("--no-load");
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunInspect(*flags); }; });
}

}  // namespace cli
