#include "engine/lora.h"

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "engine/errors.h"
#include "engine/model_config.h"
#include "engine/tensor_reading.h"
#include "engine/weights.h"
#include "gguf/reader.h"

namespace engine {
namespace {

// "blk.0.attn_q.weight" of "blk.0.attn_q.weight.lora_a".
std::string BaseName(const std::string& name) { return name.substr(0, name.rfind('.')); }

class LoraLoader {
 public:
  LoraLoader(const LoraSource& source, const ModelConfig& config, const Weights& weights,
             fabric::Device& device)
      : source_(source),
        config_(config),
        weights_(weights),
        device_(device),
        file_(gguf::File::Open(source.path)) {}
  LoraLoader(const LoraLoader&) = delete;
  LoraLoader& operator=(const LoraLoader&) = delete;
  ~LoraLoader() {
    for (const fabric::MatrixId id : uploaded_) device_.Free(id);
  }

  LoraAdapter Load();

 private:
  struct Factors {
    const gguf::TensorInfo* a = nullptr;
    const gguf::TensorInfo* b = nullptr;
  };

  [[noreturn]] void Refuse(const std::string& what) const {
    throw ModelError("The adapter " + source_.path + " " + what);
  }
  void CheckMetadata() const;
  void Expect(std::string_view key, std::string_view value) const;
  std::string Text(std::string_view key) const;
  std::map<std::string, Factors> PairTensors() const;
  LoraPair LoadPair(const std::string& base, const Factors& factors, const LinearInfo& linear);
  void CheckShape(const gguf::TensorInfo& info, uint64_t rows, uint64_t cols,
                  const std::string& base) const;
  fabric::MatrixId Upload(const gguf::TensorInfo& info);

  const LoraSource& source_;
  const ModelConfig& config_;
  const Weights& weights_;
  fabric::Device& device_;
  gguf::File file_;
  std::vector<fabric::MatrixId> uploaded_;  // freed by the destructor unless the load succeeds
  uint64_t resident_bytes_ = 0;
};

LoraAdapter LoraLoader::Load() {
  CheckMetadata();
  LoraAdapter adapter;
  const size_t slash = source_.path.find_last_of('/');
  adapter.name = slash == std::string::npos ? source_.path : source_.path.substr(slash + 1);
  if (adapter.name.ends_with(".gguf")) adapter.name.resize(adapter.name.size() - 5);
  adapter.path = source_.path;
  adapter.scale = source_.scale;
  adapter.task_name = Text("adapter.lora.task_name");
  adapter.prompt_prefix = Text("adapter.lora.prompt_prefix");
  adapter.pair_of_linear.assign(weights_.linears.size(), -1);

  std::map<std::string, Factors> factors = PairTensors();
  for (size_t i = 0; i < weights_.linears.size(); ++i) {
    const LinearInfo& linear = weights_.linears[i];
    const auto found = factors.find(linear.name);
    if (found == factors.end() || !linear.name.starts_with("blk.")) continue;
    if (config_.hadamard.grouped_values && linear.name.ends_with("ssm_out.weight")) {
      Refuse("changes " + linear.name + ", whose columns this rotated model has in another order.");
    }
    adapter.pair_of_linear[i] = static_cast<int32_t>(adapter.pairs.size());
    adapter.pairs.push_back(LoadPair(linear.name, found->second, linear));
    factors.erase(found);
  }
  if (!factors.empty()) {
    Refuse("changes " + factors.begin()->first + ", which is not a projection of this " +
           config_.architecture + " model's layers; only those can be adapted.");
  }
  if (adapter.pairs.empty()) Refuse("has no tensors.");
  adapter.resident_bytes = resident_bytes_;
  uploaded_.clear();
  return adapter;
}

void LoraLoader::CheckMetadata() const {
  Expect("general.type", "adapter");
  Expect("adapter.type", "lora");
  Expect("general.architecture", config_.architecture);
  if (file_.metadata().Has("adapter.alora.invocation_tokens")) {
    Refuse(
        "is activated by tokens in the prompt (adapter.alora.invocation_tokens), which is not "
        "supported.");
  }
}

void LoraLoader::Expect(std::string_view key, std::string_view value) const {
  const std::string* found = file_.metadata().FindString(key);
  if (found != nullptr && *found == value) return;
  const std::string actual = found == nullptr ? "does not have the key" : "says \"" + *found + "\"";
  Refuse("must have " + std::string(key) + " = \"" + std::string(value) + "\", but the file " +
         actual + ".");
}

std::string LoraLoader::Text(std::string_view key) const {
  const std::string* found = file_.metadata().FindString(key);
  return found == nullptr ? std::string() : *found;
}

std::map<std::string, LoraLoader::Factors> LoraLoader::PairTensors() const {
  std::map<std::string, Factors> factors;
  for (const gguf::TensorInfo& info : file_.tensors()) {
    if (info.name.ends_with(".lora_a")) {
      factors[BaseName(info.name)].a = &info;
    } else if (info.name.ends_with(".lora_b")) {
      factors[BaseName(info.name)].b = &info;
    } else {
      Refuse("has the tensor " + info.name +
             "; expected only names that end in .lora_a or .lora_b.");
    }
  }
  for (const auto& [base, pair] : factors) {
    if (pair.a == nullptr) Refuse("has " + base + ".lora_b, but no " + base + ".lora_a.");
    if (pair.b == nullptr) Refuse("has " + base + ".lora_a, but no " + base + ".lora_b.");
  }
  return factors;
}

LoraPair LoraLoader::LoadPair(const std::string& base, const Factors& factors,
                              const LinearInfo& linear) {
  const uint64_t rank = factors.a->rows();
  CheckShape(*factors.a, rank, linear.cols, base);
  CheckShape(*factors.b, linear.rows, rank, base);
  LoraPair pair;
  pair.rank = static_cast<uint32_t>(rank);
  pair.cols = linear.cols;
  // Files without alpha, or with 0, mean that the factors are used as they are.
  const double alpha = file_.metadata().FindFloat("adapter.lora.alpha").value_or(0.0);
  if (!std::isfinite(alpha)) Refuse("has an adapter.lora.alpha that is not finite.");
  pair.factor = alpha == 0.0 ? 1.0F : static_cast<float>(alpha / static_cast<double>(rank));
  pair.a = Upload(*factors.a);
  pair.b = Upload(*factors.b);
  return pair;
}

void LoraLoader::CheckShape(const gguf::TensorInfo& info, uint64_t rows, uint64_t cols,
                            const std::string& base) const {
  if (info.rank <= 2 && info.rows() == rows && info.cols() == cols) return;
  Refuse("does not fit the model: " + info.name + " is " + ShapeName(info.rows(), info.cols()) +
         " (rows x columns), but " + base + " needs " + ShapeName(rows, cols) + ".");
}

fabric::MatrixId LoraLoader::Upload(const gguf::TensorInfo& info) {
  // Quantised factors would quantise the input; they are small enough to expand.
  const fabric::DenseType type = NativeDenseType(info.type).value_or(fabric::DenseType::kF32);
  auto matrix = std::make_shared<const fabric::DenseMatrix>(
      ReadDense(file_, info, 0, static_cast<uint32_t>(info.rows()), type, 1.0F));
  std::vector<float> row(info.cols());
  for (uint32_t r = 0; r < matrix->rows(); ++r) {
    matrix->GetRow(r, row);
    for (const float value : row) {
      if (!std::isfinite(value)) Refuse("has a value in " + info.name + " that is not finite.");
    }
  }
  resident_bytes_ += matrix->bytes();
  fabric::MatrixId id;
  const fabric::Status status = device_.Upload(std::move(matrix), &id);
  if (status != fabric::Status::kOk) {
    Refuse("was not taken by the device " + std::string(device_.name()) + ": " + info.name + ": " +
           std::string(fabric::StatusName(status)) + ".");
  }
  uploaded_.push_back(id);
  return id;
}

}  // namespace

LoraAdapter LoadLora(const LoraSource& source, const ModelConfig& config, const Weights& weights,
                     fabric::Device& device) {
  return LoraLoader(source, config, weights, device).Load();
}

std::vector<AdapterScale> DefaultAdapters(const Weights& weights) {
  std::vector<AdapterScale> adapters;
  for (uint32_t i = 0; i < weights.adapters.size(); ++i) {
    if (weights.adapters[i].scale != 0) adapters.push_back({i, weights.adapters[i].scale});
  }
  return adapters;
}

}  // namespace engine
