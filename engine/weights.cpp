#include "engine/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <unordered_set>
#include <utility>

#include "engine/errors.h"
#include "engine/tensor_reading.h"
#include "fabric/parallel.h"
#include "gguf/codec.h"

namespace engine {
namespace {

// Rows that one task decodes: enough to repay the task, few enough to spread a small matrix.
constexpr size_t kRowsPerTask = 64;

// Ternary types whose scales are fp16, so that every weight is one too.
bool HasHalfScales(gguf::TensorType type) {
  switch (type) {
    case gguf::TensorType::kTQ1_0:
    case gguf::TensorType::kTQ2_0:
    case gguf::TensorType::kQ1_0:
    case gguf::TensorType::kQ2_0:
    case gguf::TensorType::kQ2_0_G128:
    case gguf::TensorType::kPQ2_0:
    case gguf::TensorType::kPTQ1_0:
    case gguf::TensorType::kIQ1_BN:
      return true;
    default:
      return false;
  }
}

std::string_view ActivationName(fabric::ActivationKind kind) {
  switch (kind) {
    case fabric::ActivationKind::kFloat:
      return "float";
    case fabric::ActivationKind::kInt8Token:
      return "int8 per token";
    case fabric::ActivationKind::kInt8Block:
      return "int8 per block of 32";
  }
  return "?";
}

// The scales of a ternary tensor, reduced to the fewest that say the same.
struct CollapsedScales {
  fabric::ScaleKind kind = fabric::ScaleKind::kTensor;
  std::vector<float> scales;  // kTensor: [1], kRow: [rows], kGroup: [rows, scales_per_row]
  uint64_t zeros = 0;         // trits that are 0
};

// Scales and zero counts of every group, as decoded.
struct GroupTable {
  std::vector<float> scales;    // [rows, scales_per_row]
  std::vector<uint8_t> active;  // parallel: 1 when some trit of the group is not 0
  uint64_t zeros = 0;
};

GroupTable ReadGroups(const gguf::TensorInfo& info, const gguf::TernaryDecoder& decoder) {
  const size_t per_row = decoder.scales_per_row();
  const size_t group = decoder.group();
  GroupTable table;
  table.scales.resize(info.rows() * per_row);
  table.active.resize(info.rows() * per_row);
  std::atomic<uint64_t> zeros = 0;
  fabric::ParallelFor(info.rows(), kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(info.cols());
    uint64_t task_zeros = 0;
    for (size_t row = begin; row < end; ++row) {
      decoder.DecodeRow(row, trits, std::span(table.scales).subspan(row * per_row, per_row));
      for (size_t g = 0; g < per_row; ++g) {
        const size_t first = g * group;
        const size_t last = std::min(first + group, trits.size());
        const auto group_zeros = static_cast<uint64_t>(
            std::count(trits.begin() + static_cast<ptrdiff_t>(first),
                       trits.begin() + static_cast<ptrdiff_t>(last), int8_t{0}));
        table.active[row * per_row + g] = group_zeros < last - first ? 1 : 0;
        task_zeros += group_zeros;
      }
    }
    zeros += task_zeros;
  });
  table.zeros = zeros;
  return table;
}

// The one scale of groups [begin, end) that are active, 0 when none is; nullopt when they differ.
std::optional<float> CommonScale(const GroupTable& table, size_t begin, size_t end) {
  std::optional<float> common;
  for (size_t i = begin; i < end; ++i) {
    if (table.active[i] == 0) continue;
    if (!common) common = table.scales[i];
    if (table.scales[i] != *common) return std::nullopt;
  }
  return common.value_or(0.0F);
}

CollapsedScales CollapseScales(GroupTable table, size_t rows, size_t per_row) {
  CollapsedScales collapsed;
  collapsed.zeros = table.zeros;
  if (const auto common = CommonScale(table, 0, table.scales.size())) {
    collapsed.scales = {*common};
    return collapsed;
  }
  collapsed.kind = fabric::ScaleKind::kRow;
  for (size_t row = 0; row < rows; ++row) {
    const auto common = CommonScale(table, row * per_row, (row + 1) * per_row);
    if (!common) {
      collapsed.kind = fabric::ScaleKind::kGroup;
      collapsed.scales = std::move(table.scales);
      return collapsed;
    }
    collapsed.scales.push_back(*common);
  }
  return collapsed;
}

class Loader {
 public:
  Loader(const gguf::File& file, const ModelConfig& config, fabric::Device& device,
         const std::function<void(double)>& progress)
      : file_(file), config_(config), device_(device), progress_(progress) {
    for (const gguf::TensorInfo& info : file.tensors()) total_bytes_ += info.byte_size;
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader() {
    for (const fabric::MatrixId id : uploaded_) device_.Free(id);
  }

  Weights Load();

 private:
  void CheckKnown() const;
  const gguf::TensorInfo& Require(const std::string& name, uint64_t rows, uint64_t cols);
  std::optional<float> FindScale(const std::string& base);

  Vector LoadVector(const std::string& name, uint32_t size);
  Vector LoadVectorIf(bool present, const std::string& name, uint32_t size) {
    return present ? LoadVector(name, size) : Vector();
  }
  LayerWeights LoadLayer(uint32_t index);
  Linear LoadLinear(const std::string& base, uint32_t rows, uint32_t cols);
  Linear LoadTernary(const gguf::TensorInfo& info, float factor);
  SharedMatrix LoadShared(const gguf::TensorInfo& info, fabric::DenseType otherwise, float factor);
  std::shared_ptr<const fabric::DenseMatrix> LoadDense(const gguf::TensorInfo& info,
                                                       fabric::DenseType type, float factor);
  std::shared_ptr<const fabric::QuantizedMatrix> LoadQuantized(const gguf::TensorInfo& info,
                                                               fabric::QuantizedType type);
  void LoadEmbeddingAndHead();
  Vector LoadRopeFactors();
  fabric::MatrixId Upload(fabric::Matrix matrix, const std::string& name);
  void Place(const gguf::TensorInfo& info, std::string_view layout, std::string_view activation,
             uint64_t resident_bytes, double zero_rate);

  const gguf::File& file_;
  const ModelConfig& config_;
  fabric::Device& device_;
  const std::function<void(double)>& progress_;
  Weights weights_;
  std::unordered_set<std::string> used_;
  std::vector<fabric::MatrixId> uploaded_;  // freed by the destructor unless the load succeeds
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

Weights Loader::Load() {
  LoadEmbeddingAndHead();
  weights_.output_norm = LoadVector("output_norm.weight", config_.hidden);
  weights_.rope_factors = LoadRopeFactors();
  weights_.layers.reserve(config_.layers);
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    weights_.layers.push_back(LoadLayer(layer));
  }
  CheckKnown();
  uploaded_.clear();
  return std::move(weights_);
}

void Loader::CheckKnown() const {
  for (const gguf::TensorInfo& info : file_.tensors()) {
    if (!used_.contains(info.name)) {
      throw ModelError("The tensor " + info.name + " is not part of a " + config_.architecture +
                       " model as this engine knows it.");
    }
  }
}

const gguf::TensorInfo& Loader::Require(const std::string& name, uint64_t rows, uint64_t cols) {
  const gguf::TensorInfo* info = file_.FindTensor(name);
  if (info == nullptr) {
    throw ModelError("The file has no tensor " + name + ", which a " + config_.architecture +
                     " model needs (" + ShapeName(rows, cols) + ").");
  }
  if (info->rows() != rows || info->cols() != cols) {
    throw ModelError("Tensor " + name + " must be " + ShapeName(rows, cols) +
                     " (rows x columns), but the file has " +
                     ShapeName(info->rows(), info->cols()) + ".");
  }
  used_.insert(name);
  return *info;
}

// The scalar that the 1bitLLM converters store beside a projection.
std::optional<float> Loader::FindScale(const std::string& base) {
  if (file_.FindTensor(base + ".scale") == nullptr) return std::nullopt;
  return LoadVector(base + ".scale", 1)[0];
}

Vector Loader::LoadVector(const std::string& name, uint32_t size) {
  const gguf::TensorInfo& info = Require(name, 1, size);
  Vector vector(size);
  gguf::DequantizeRow(info, file_.TensorBytes(info), file_.options(), 0, vector);
  if (!std::all_of(vector.begin(), vector.end(), [](float x) { return std::isfinite(x); })) {
    throw ModelError("Tensor " + name + " holds a value that is not finite.");
  }
  Place(info, "f32", "", size * sizeof(float), 0.0);
  return vector;
}

LayerWeights Loader::LoadLayer(uint32_t index) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const uint32_t hidden = config_.hidden;
  const uint32_t query_width = config_.query_width();
  const uint32_t kv_width = config_.kv_width();
  LayerWeights layer;
  layer.attention_norm = LoadVector(prefix + "attn_norm.weight", hidden);
  layer.query = LoadLinear(prefix + "attn_q", query_width, hidden);
  layer.key = LoadLinear(prefix + "attn_k", kv_width, hidden);
  layer.value = LoadLinear(prefix + "attn_v", kv_width, hidden);
  layer.query_norm = LoadVectorIf(config_.qk_norm, prefix + "attn_q_norm.weight", config_.head_dim);
  layer.key_norm = LoadVectorIf(config_.qk_norm, prefix + "attn_k_norm.weight", config_.head_dim);
  layer.attention_sub_norm =
      LoadVectorIf(config_.attention_sub_norm, prefix + "attn_sub_norm.weight", query_width);
  layer.attention_output = LoadLinear(prefix + "attn_output", hidden, query_width);
  layer.ffn_norm = LoadVector(prefix + "ffn_norm.weight", hidden);
  layer.gate = LoadLinear(prefix + "ffn_gate", config_.ffn, hidden);
  layer.up = LoadLinear(prefix + "ffn_up", config_.ffn, hidden);
  layer.ffn_sub_norm =
      LoadVectorIf(config_.ffn_sub_norm, prefix + "ffn_sub_norm.weight", config_.ffn);
  layer.down = LoadLinear(prefix + "ffn_down", hidden, config_.ffn);
  return layer;
}

Linear Loader::LoadLinear(const std::string& base, uint32_t rows, uint32_t cols) {
  const std::string name = base + ".weight";
  const gguf::TensorInfo& info = Require(name, rows, cols);
  const float factor = FindScale(base).value_or(1.0F);
  const bool ternary = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
  Linear linear;
  if (ternary && config_.ternary_activation != ActivationMode::kFloat) {
    linear = LoadTernary(info, factor);
  } else {
    const SharedMatrix matrix = LoadShared(info, fabric::DenseType::kF32, factor);
    linear.activation = matrix.activation();
    linear.matrix = Upload(matrix.AsMatrix(), name);
  }
  linear.rows = rows;
  linear.cols = cols;
  linear.index = static_cast<uint32_t>(weights_.linears.size());
  weights_.linears.push_back({.name = name, .rows = rows, .cols = cols});
  linear.bias = LoadVectorIf(file_.FindTensor(base + ".bias") != nullptr, base + ".bias", rows);
  return linear;
}

Linear Loader::LoadTernary(const gguf::TensorInfo& info, float factor) {
  const gguf::TernaryDecoder decoder(info, file_.TensorBytes(info), file_.options());
  const size_t per_row = decoder.scales_per_row();
  CollapsedScales collapsed = CollapseScales(ReadGroups(info, decoder), info.rows(), per_row);
  for (float& scale : collapsed.scales) {
    scale *= factor;
    if (!std::isfinite(scale)) {
      throw ModelError("Tensor " + info.name + " has a scale that is not finite.");
    }
  }
  Linear linear;
  linear.activation = config_.ternary_activation == ActivationMode::kBlock
                          ? fabric::ActivationKind::kInt8Block
                          : fabric::ActivationKind::kInt8Token;
  const fabric::LayoutChoice choice = device_.PreferredLayout(linear.activation);
  weights_.layout_reason = choice.reason;
  fabric::TernaryMatrix matrix(static_cast<uint32_t>(info.rows()),
                               static_cast<uint32_t>(info.cols()), collapsed.kind, decoder.group(),
                               choice.layout);
  fabric::ParallelFor(info.rows(), kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(info.cols());
    std::vector<float> file_scales(per_row);
    const std::span<const float> scales(collapsed.scales);
    for (size_t row = begin; row < end; ++row) {
      decoder.DecodeRow(row, trits, file_scales);
      const auto of_row = collapsed.kind == fabric::ScaleKind::kTensor ? scales
                          : collapsed.kind == fabric::ScaleKind::kRow
                              ? scales.subspan(row, 1)
                              : scales.subspan(row * per_row, per_row);
      matrix.SetRow(static_cast<uint32_t>(row), trits, of_row);
    }
  });
  const uint64_t bytes = matrix.bytes();
  linear.matrix = Upload(std::move(matrix), info.name);
  Place(info, "panel-" + std::string(fabric::LayoutName(choice.layout)),
        ActivationName(linear.activation), bytes,
        static_cast<double>(collapsed.zeros) / static_cast<double>(info.elements()));
  return linear;
}

// In the file's own type where there is a matrix of it and nothing to fold in, else as `otherwise`.
SharedMatrix Loader::LoadShared(const gguf::TensorInfo& info, fabric::DenseType otherwise,
                                float factor) {
  const bool fold = factor != 1.0F;
  const std::optional<fabric::QuantizedType> quantized = NativeQuantizedType(info.type);
  if (quantized && !fold) return {.dense = nullptr, .quantized = LoadQuantized(info, *quantized)};
  const std::optional<fabric::DenseType> native = NativeDenseType(info.type);
  const fabric::DenseType type = fold ? fabric::DenseType::kF32 : native.value_or(otherwise);
  return {.dense = LoadDense(info, type, factor), .quantized = nullptr};
}

std::shared_ptr<const fabric::QuantizedMatrix> Loader::LoadQuantized(const gguf::TensorInfo& info,
                                                                     fabric::QuantizedType type) {
  const auto matrix =
      std::make_shared<const fabric::QuantizedMatrix>(ReadQuantized(file_, info, type));
  Place(info, QuantizedTypeName(type), ActivationName(fabric::ActivationKind::kInt8Block),
        matrix->bytes(), 0.0);
  return matrix;
}

// As `type`, each weight times factor.
std::shared_ptr<const fabric::DenseMatrix> Loader::LoadDense(const gguf::TensorInfo& info,
                                                             fabric::DenseType type, float factor) {
  const auto matrix = std::make_shared<const fabric::DenseMatrix>(
      ReadDense(file_, info, 0, static_cast<uint32_t>(info.rows()), type, factor));
  Place(info, DenseTypeName(type), ActivationName(fabric::ActivationKind::kFloat), matrix->bytes(),
        0.0);
  return matrix;
}

void Loader::LoadEmbeddingAndHead() {
  const gguf::TensorInfo& info = Require("token_embd.weight", config_.vocabulary, config_.hidden);
  const bool ternary = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
  const fabric::DenseType fallback =
      ternary && HasHalfScales(info.type) ? fabric::DenseType::kF16 : fabric::DenseType::kF32;
  weights_.embedding = LoadShared(info, fallback, 1.0F);
  if (!config_.tied_head) {
    weights_.head = LoadLinear("output", config_.vocabulary, config_.hidden);
    return;
  }
  if (ternary && config_.ternary_activation != ActivationMode::kFloat) {
    weights_.head = LoadLinear("token_embd", config_.vocabulary, config_.hidden);
    return;
  }
  weights_.head.activation = weights_.embedding.activation();
  weights_.head.rows = config_.vocabulary;
  weights_.head.cols = config_.hidden;
  weights_.head.matrix = Upload(weights_.embedding.AsMatrix(), info.name);
}

Vector Loader::LoadRopeFactors() {
  Vector factors = LoadVectorIf(file_.FindTensor("rope_freqs.weight") != nullptr,
                                "rope_freqs.weight", config_.rope_dim / 2);
  for (const float factor : factors) {
    if (!(factor >= 1.0F)) {
      throw ModelError("rope_freqs.weight must hold factors of at least 1, but the file has " +
                       std::to_string(factor) + ".");
    }
  }
  return factors;
}

fabric::MatrixId Loader::Upload(fabric::Matrix matrix, const std::string& name) {
  fabric::MatrixId id;
  const fabric::Status status = device_.Upload(std::move(matrix), &id);
  if (status != fabric::Status::kOk) {
    throw ModelError("The device " + std::string(device_.name()) + " did not take tensor " + name +
                     ": " + std::string(fabric::StatusName(status)) + ".");
  }
  uploaded_.push_back(id);
  return id;
}

void Loader::Place(const gguf::TensorInfo& info, std::string_view layout,
                   std::string_view activation, uint64_t resident_bytes, double zero_rate) {
  weights_.placements.push_back({.name = info.name,
                                 .file_type = std::string(gguf::TypeName(info.type)),
                                 .layout = std::string(layout),
                                 .activation = std::string(activation),
                                 .rows = info.rows(),
                                 .cols = info.cols(),
                                 .file_bytes = info.byte_size,
                                 .resident_bytes = resident_bytes,
                                 .zero_rate = zero_rate});
  weights_.resident_bytes += resident_bytes;
  done_bytes_ += info.byte_size;
  if (progress_) {
    progress_(std::min(1.0, static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_)));
  }
}

}  // namespace

Weights LoadWeights(const gguf::File& file, const ModelConfig& config, fabric::Device& device,
                    const std::function<void(double)>& progress) {
  return Loader(file, config, device, progress).Load();
}

}  // namespace engine
