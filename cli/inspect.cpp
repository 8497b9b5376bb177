#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "engine/errors.h"
#include "engine/state_cache.h"
#include "gguf/codec.h"
#include "gguf/reader.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kExamples =
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

// PT-5 bytes of the frames that a tensor is on the Fabric.
uint64_t FrameBytes(const engine::TensorPlacement& placement) {
  return placement.on_fabric ? placement.planes * ((placement.rows * placement.cols + 4) / 5) : 0;
}

Json PlacementJson(const engine::TensorPlacement& placement) {
  Json json = {{"name", placement.name},
               {"file_type", placement.file_type},
               {"layout", placement.layout},
               {"activation", placement.activation},
               {"resident_bytes", placement.resident_bytes},
               {"runs_on", placement.on_fabric ? "fabric" : "host"}};
  if (!placement.reason.empty()) json["reason"] = placement.reason;
  if (!placement.on_fabric) return json;
  json["frames"] = placement.planes;
  json["frame_bytes"] = FrameBytes(placement);
  json["density"] = 1.0 - placement.zero_rate;
  json["estimated_error"] = placement.plane_error;
  return json;
}

Json FabricJson(const engine::Weights& weights, const fabric::PoolFacts& pool) {
  uint64_t frames = 0;
  uint64_t frame_bytes = 0;
  uint64_t fabric_bytes = 0;
  for (const engine::TensorPlacement& placement : weights.placements) {
    if (!placement.on_fabric) continue;
    frames += placement.planes;
    frame_bytes += FrameBytes(placement);
    fabric_bytes += placement.resident_bytes;
  }
  return {{"frames", frames},
          {"frame_bytes", frame_bytes},
          {"resident_bytes", fabric_bytes},
          {"host_bytes", weights.resident_bytes - fabric_bytes},
          {"pool_bytes", pool.bytes},
          {"pool_in_file", pool.in_file}};
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
    placements.push_back(PlacementJson(placement));
  }
  return {{"device", model.device().name()},
          {"isa", fabric::IsaName(model.isa())},
          {"threads", model.threads()},
          {"activation", ActivationText(shape.ternary_activation)},
          {"activation_reason", ActivationReason(shape, config)},
          {"layout_reason", weights.layout_reason},
          {"head", engine::HeadModeName(model.engine().head_mode())},
          {"load_seconds", model.model().load_seconds()},
          {"memory",
           {{"weights_bytes", weights.resident_bytes},
            {"kv_bytes_per_token", kv.BytesPerBlock() / kv.block_size},
            {"kv_bytes_full_context", kv.BytesPerBlock() * kv.MostBlocks(context, kv.block_size)},
            {"state_bytes_per_sequence",
             shape.recurrent() ? engine::StateCache::BytesPerSlot(shape) : 0},
            {"context_length", context},
            {"workspace_bytes", model.engine().workspace_bytes()}}},
          {"fabric", FabricJson(weights, model.device().pool())},
          {"placements", std::move(placements)}};
}

std::string Mebibytes(const Json& bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", bytes.get<double>() / 1048576.0);
  return text;
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

// The matrices, in the order of the file: where each runs, as what, and why.
void PrintFabric(const Json& run) {
  std::printf("\n%-32s %-8s %-11s %6s %12s %12s %7s %7s  %s\n", "matrix", "runs on", "layout",
              "frames", "frame bytes", "resident", "density", "error", "why");
  for (const Json& placement : run["placements"]) {
    if (!placement.contains("reason")) continue;
    const bool on_fabric = placement["runs_on"] == "fabric";
    char density[16] = "";
    char error[16] = "";
    if (on_fabric) {
      std::snprintf(density, sizeof density, "%.1f%%", 100 * placement["density"].get<double>());
      std::snprintf(error, sizeof error, "%.4f", placement["estimated_error"].get<double>());
    }
    std::printf("%-32s %-8s %-11s %6s %12s %12s %7s %7s  %s\n",
                placement["name"].get<std::string>().c_str(),
                placement["runs_on"].get<std::string>().c_str(),
                placement["layout"].get<std::string>().c_str(),
                on_fabric ? placement["frames"].dump().c_str() : "",
                on_fabric ? placement["frame_bytes"].dump().c_str() : "",
                placement["resident_bytes"].dump().c_str(), density, error,
                placement["reason"].get<std::string>().c_str());
  }
  const Json& fabric = run["fabric"];
  std::cout << "\nFabric: " << fabric["frames"] << " frames, " << Mebibytes(fabric["frame_bytes"])
            << " in PT-5, " << Mebibytes(fabric["resident_bytes"])
            << " resident as kernels run them; "
            << "host: " << Mebibytes(fabric["host_bytes"]) << "\n";
  if (fabric["pool_bytes"] == 0) {
    std::cout << "pool: holds every matrix\n";
  } else {
    std::cout << "pool: " << Mebibytes(fabric["pool_bytes"])
              << " for ternary matrices in use; the others wait in "
              << (fabric["pool_in_file"].get<bool>() ? "a file" : "memory") << "\n";
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
  std::fflush(stdout);
  if (report.contains("zero_rate")) {
    std::cout << "\nzero rate of ternary weights: " << report["zero_rate"] << "\n";
  }
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
  std::cout << "head: " << run["head"].get<std::string>()
            << (run["head"] == "full"
                    ? " (not screened: --head full, too small, or a type without a sketch)\n"
                    : ", where only the best logits count\n");
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
  command->footer(kExamples);
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
