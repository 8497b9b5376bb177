#include "engine/weights.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "engine/errors.h"
#include "engine/head.h"
#include "engine/importance.h"
#include "engine/packer.h"
#include "engine/placement.h"
#include "engine/stopwatch.h"
#include "engine/tensor_reading.h"
#include "fabric/parallel.h"
#include "gguf/codec.h"

namespace engine {
namespace {

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

// What the matrices of a tensor became; names, shape and type are added by Place().
struct Resident {
  std::string layout;
  fabric::ActivationKind activation = fabric::ActivationKind::kFloat;
  uint64_t bytes = 0;
  uint64_t trits = 0;  // of all planes
  uint64_t zeros = 0;  // among them
  uint32_t planes = 0;
  double error = 0;
  bool on_fabric = false;
  std::string reason;
  std::vector<fabric::MatrixId> matrices;

  // Of a stack: what is told is the matrix with the largest error.
  void Add(const Placement& placement) {
    const double placed_error = placement.planes ? placement.planes->error : 0;
    if (!reason.empty() && on_fabric == placement.on_fabric && placed_error <= error) return;
    on_fabric = placement.on_fabric;
    error = placed_error;
    if (placement.planes) planes = std::max(planes, placement.planes->planes);
    reason = placement.reason;
  }
};

class Loader {
 public:
  Loader(const gguf::File& file, const ModelConfig& config, fabric::Device& device,
         const EngineOptions& options, PackedCache& cache,
         const std::function<void(double)>& progress)
      : file_(file),
        config_(config),
        device_(device),
        options_(options),
        placement_(options.placement),
        packer_(file, device, cache),
        progress_(progress) {
    if (placement_.layers.Last() >= config.layers) {
      throw ModelError("--fabric-layers " + placement_.layers.Text() + " names layer " +
                       std::to_string(placement_.layers.Last()) +
                       ", but the model has layers 0 to " + std::to_string(config.layers - 1) +
                       ".");
    }
    for (const gguf::TensorInfo& info : file.tensors()) total_bytes_ += info.byte_size;
    if (!placement_.importance.empty()) ReadImportance();
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader() {
    for (const fabric::MatrixId id : uploaded_) device_.Free(id);
  }

  Weights Load();

 private:
  void ReadImportance();
  std::vector<float> MeanSquares(const gguf::TensorInfo& info, const RowRange& rows) const;
  void CheckKnown() const;
  uint32_t BlockOf(const std::string& name) const;
  const gguf::TensorInfo& Require(const std::string& name, uint64_t rows, uint64_t cols);
  std::optional<float> FindScale(const std::string& base);

  Vector LoadVector(const std::string& name, uint32_t size);
  Vector LoadVectorIf(bool present, const std::string& name, uint32_t size) {
    return present ? LoadVector(name, size) : Vector();
  }
  // Of the projection `base`, where the model has norms before projections.
  Vector LoadInputNorm(const std::string& base, uint32_t size) {
    return LoadVectorIf(config_.input_norms, base + "_norm_in.weight", size);
  }
  LayerWeights LoadLayer(uint32_t index);
  void LoadAttention(const std::string& prefix, LayerWeights* layer);
  std::unique_ptr<DeltaNetWeights> LoadDeltaNet(const std::string& prefix);
  void LoadFeedForward(const std::string& prefix, LayerWeights* layer);
  std::unique_ptr<ExpertWeights> LoadExperts(const std::string& prefix);
  Vector LoadConvolution(const std::string& name);
  Linear LoadLinear(const std::string& base, uint32_t rows, uint32_t cols);
  SharedMatrix LoadShared(const gguf::TensorInfo& info, fabric::DenseType otherwise, float factor);
  Linear UploadQuantized(const gguf::TensorInfo& info, const RowRange& rows,
                         fabric::QuantizedType type, Resident* resident);
  std::vector<Linear> LoadStack(const std::string& name, uint32_t rows, uint32_t cols);
  Linear UploadTernary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                       Resident* resident);
  void LoadEmbeddingAndHead();
  Vector LoadRopeFactors();
  fabric::MatrixId Upload(fabric::Matrix matrix, const std::string& name, bool on_fabric);
  fabric::MatrixId UploadToPool(fabric::TernaryMatrix matrix, const std::string& name);
  uint64_t LargestTernaryBytes();
  uint64_t LargestMatrixBytes(const gguf::TensorInfo& info);
  void CountPool();
  void SketchHead();
  void CheckRotated() const;
  fabric::ActivationKind TernaryActivation() const;
  void AddReason(const std::string& reason);
  void Place(const gguf::TensorInfo& info, const Resident& resident);
  void PlaceVector(const gguf::TensorInfo& info, uint64_t resident_bytes);
  void Place(const gguf::TensorInfo& info, TensorPlacement placement);

  const gguf::File& file_;
  const ModelConfig& config_;
  fabric::Device& device_;
  const EngineOptions& options_;
  const PlacementOptions& placement_;
  Packer packer_;
  const std::function<void(double)>& progress_;
  std::optional<Importance> importance_;
  Weights weights_;
  std::unordered_set<std::string> used_;
  std::vector<fabric::MatrixId> uploaded_;  // freed by the destructor unless the load succeeds
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
  uint64_t pooled_bytes_ = 0;  // of ternary matrices
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
  CheckRotated();
  CountPool();
  SketchHead();
  device_.Settle();
  uploaded_.clear();
  return std::move(weights_);
}

void Loader::ReadImportance() {
  importance_ = Importance::Read(placement_.importance);
  const auto tensors = file_.tensors();
  if (std::any_of(tensors.begin(), tensors.end(),
                  [&](const gguf::TensorInfo& info) { return importance_->Has(info.name); })) {
    return;
  }
  throw ModelError("The importance matrix " + placement_.importance +
                   " of --fabric-calibration knows none of this model's tensors.");
}

// Of what comes into these rows, if that is known.
std::vector<float> Loader::MeanSquares(const gguf::TensorInfo& info, const RowRange& rows) const {
  if (!importance_) return {};
  return importance_->MeanSquares(info.name, static_cast<uint32_t>(rows.first / rows.count),
                                  static_cast<uint32_t>(info.rows() / rows.count),
                                  static_cast<uint32_t>(info.cols()));
}

void Loader::CheckKnown() const {
  for (const gguf::TensorInfo& info : file_.tensors()) {
    if (used_.contains(info.name) || BlockOf(info.name) >= config_.layers) continue;
    throw ModelError("The tensor " + info.name + " is not part of a " + config_.architecture +
                     " model as this engine knows it.");
  }
}

// A tensor that is rotated but not read as a projection would be used as it is.
void Loader::CheckRotated() const {
  for (const std::string& name : config_.hadamard.weights) {
    const bool found = std::any_of(weights_.linears.begin(), weights_.linears.end(),
                                   [&](const LinearInfo& linear) { return linear.name == name; });
    const bool tied = config_.tied_head && name == "token_embd.weight";
    if (found || tied || BlockOf(name) >= config_.layers) continue;
    throw ModelError("The file's prism.hadamard.weight_names lists " + name +
                     ", which is not a projection that a " + config_.architecture +
                     " model applies to a rotated input.");
  }
}

// The layer that a tensor belongs to when the file has layers beyond those of the model, else 0.
uint32_t Loader::BlockOf(const std::string& name) const {
  if (config_.ignored_layers == 0 || !name.starts_with("blk.")) return 0;
  uint32_t block = 0;
  const char* begin = name.data() + 4;
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), block);
  return error == std::errc() && end != begin && *end == '.' ? block : 0;
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
  PlaceVector(info, size * sizeof(float));
  return vector;
}

LayerWeights Loader::LoadLayer(uint32_t index) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  LayerWeights layer;
  layer.attention_norm = LoadVector(prefix + "attn_norm.weight", config_.hidden);
  if (config_.layer_kinds[index].recurrent) {
    layer.delta_net = LoadDeltaNet(prefix);
  } else {
    LoadAttention(prefix, &layer);
  }
  // Qwen3.5's converters call the norm before the feed-forward by what it comes after.
  const std::string ffn_norm =
      config_.architecture == "qwen35" ? "post_attention_norm.weight" : "ffn_norm.weight";
  layer.ffn_norm = LoadVector(prefix + ffn_norm, config_.hidden);
  if (config_.experts.count > 0) {
    layer.experts = LoadExperts(prefix);
  } else {
    LoadFeedForward(prefix, &layer);
  }
  return layer;
}

void Loader::LoadAttention(const std::string& prefix, LayerWeights* layer) {
  const uint32_t hidden = config_.hidden;
  const uint32_t query_width = config_.query_width();
  const uint32_t kv_width = config_.kv_width();
  const uint32_t query_rows = config_.gated_attention ? 2 * query_width : query_width;
  layer->query = LoadLinear(prefix + "attn_q", query_rows, hidden);
  layer->key = LoadLinear(prefix + "attn_k", kv_width, hidden);
  layer->value = LoadLinear(prefix + "attn_v", kv_width, hidden);
  layer->query_norm =
      LoadVectorIf(config_.qk_norm, prefix + "attn_q_norm.weight", config_.head_dim);
  layer->key_norm = LoadVectorIf(config_.qk_norm, prefix + "attn_k_norm.weight", config_.head_dim);
  layer->query_input_norm = LoadInputNorm(prefix + "attn_q", hidden);
  layer->key_input_norm = LoadInputNorm(prefix + "attn_k", hidden);
  layer->value_input_norm = LoadInputNorm(prefix + "attn_v", hidden);
  layer->attention_sub_norm =
      config_.input_norms
          ? LoadInputNorm(prefix + "attn_output", query_width)
          : LoadVectorIf(config_.attention_sub_norm, prefix + "attn_sub_norm.weight", query_width);
  layer->attention_output = LoadLinear(prefix + "attn_output", hidden, query_width);
  layer->attention_post_norm =
      LoadVectorIf(config_.post_norms, prefix + "post_attention_norm.weight", hidden);
}

std::unique_ptr<DeltaNetWeights> Loader::LoadDeltaNet(const std::string& prefix) {
  const DeltaNetShape& shape = config_.delta_net;
  auto weights = std::make_unique<DeltaNetWeights>();
  weights->qkv = LoadLinear(prefix + "attn_qkv", shape.channels(), config_.hidden);
  weights->gate = LoadLinear(prefix + "attn_gate", shape.value_width(), config_.hidden);
  weights->alpha = LoadLinear(prefix + "ssm_alpha", shape.value_heads, config_.hidden);
  weights->beta = LoadLinear(prefix + "ssm_beta", shape.value_heads, config_.hidden);
  weights->convolution = LoadConvolution(prefix + "ssm_conv1d.weight");
  weights->ones = Vector(shape.channels());
  std::fill(weights->ones.begin(), weights->ones.end(), 1.0F);
  weights->a = LoadVector(prefix + "ssm_a", shape.value_heads);
  for (const float a : weights->a) {
    if (a <= 0.0F) continue;
    throw ModelError("Tensor " + prefix + "ssm_a must hold no positive value, for states decay, " +
                     "but the file has " + std::to_string(a) + ".");
  }
  weights->dt_bias = LoadVector(prefix + "ssm_dt.bias", shape.value_heads);
  weights->state_norm = LoadVector(prefix + "ssm_norm.weight", shape.value_dim);
  weights->output = LoadLinear(prefix + "ssm_out", config_.hidden, shape.value_width());
  return weights;
}

// [channels, kernel] in the file; a step wants the channels of one tap side by side.
Vector Loader::LoadConvolution(const std::string& name) {
  const uint32_t channels = config_.delta_net.channels();
  const uint32_t kernel = config_.delta_net.kernel;
  const gguf::TensorInfo& info = Require(name, channels, kernel);
  Vector taps(size_t{channels} * kernel);
  std::vector<float> row(kernel);
  for (uint32_t channel = 0; channel < channels; ++channel) {
    gguf::DequantizeRow(info, file_.TensorBytes(info), file_.options(), channel, row);
    for (uint32_t tap = 0; tap < kernel; ++tap) {
      if (!std::isfinite(row[tap])) {
        throw ModelError("Tensor " + name + " holds a value that is not finite.");
      }
      taps[size_t{tap} * channels + channel] = row[tap];
    }
  }
  PlaceVector(info, taps.size() * sizeof(float));
  return taps;
}

void Loader::LoadFeedForward(const std::string& prefix, LayerWeights* layer) {
  layer->gate = LoadLinear(prefix + "ffn_gate", config_.ffn, config_.hidden);
  layer->up = LoadLinear(prefix + "ffn_up", config_.ffn, config_.hidden);
  layer->gate_input_norm = LoadInputNorm(prefix + "ffn_gate", config_.hidden);
  layer->up_input_norm = LoadInputNorm(prefix + "ffn_up", config_.hidden);
  layer->ffn_sub_norm =
      config_.input_norms
          ? LoadInputNorm(prefix + "ffn_down", config_.ffn)
          : LoadVectorIf(config_.ffn_sub_norm, prefix + "ffn_sub_norm.weight", config_.ffn);
  layer->down = LoadLinear(prefix + "ffn_down", config_.hidden, config_.ffn);
  layer->ffn_post_norm =
      LoadVectorIf(config_.post_norms, prefix + "post_ffw_norm.weight", config_.hidden);
}

std::unique_ptr<ExpertWeights> Loader::LoadExperts(const std::string& prefix) {
  const ExpertShape& shape = config_.experts;
  auto weights = std::make_unique<ExpertWeights>();
  weights->router = LoadLinear(prefix + "ffn_gate_inp", shape.count, config_.hidden);
  weights->gate = LoadStack(prefix + "ffn_gate_exps.weight", shape.ffn, config_.hidden);
  weights->up = LoadStack(prefix + "ffn_up_exps.weight", shape.ffn, config_.hidden);
  weights->down = LoadStack(prefix + "ffn_down_exps.weight", config_.hidden, shape.ffn);
  if (weights->gate.front().activation != weights->up.front().activation) {
    throw ModelError("Tensors " + prefix + "ffn_gate_exps.weight and " + prefix +
                     "ffn_up_exps.weight must take their input in one precision, but they do "
                     "not: their types differ.");
  }
  return weights;
}

// One matrix per expert of a tensor of three dimensions.
std::vector<Linear> Loader::LoadStack(const std::string& name, uint32_t rows, uint32_t cols) {
  const uint32_t count = config_.experts.count;
  const gguf::TensorInfo& info = Require(name, uint64_t{rows} * count, cols);
  if (info.extents[1] != rows) {
    throw ModelError("Tensor " + name + " must be " + std::to_string(count) + " matrices of " +
                     ShapeName(rows, cols) + ", but the file's have " +
                     std::to_string(info.extents[1]) + " rows.");
  }
  const bool ternary = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info)) &&
                       config_.ternary_activation != ActivationMode::kFloat;
  const std::optional<fabric::QuantizedType> quantized = NativeQuantizedType(info.type);
  const fabric::DenseType dense = NativeDenseType(info.type).value_or(fabric::DenseType::kF32);
  Resident resident;
  std::vector<Linear> linears;
  linears.reserve(count);
  for (uint32_t expert = 0; expert < count; ++expert) {
    const RowRange range{.first = uint64_t{expert} * rows, .count = rows};
    Linear linear;
    if (ternary) {
      linear = UploadTernary(info, range, 1.0F, &resident);
    } else if (quantized) {
      linear = UploadQuantized(info, range, *quantized, &resident);
    } else {
      auto matrix = std::make_shared<const fabric::DenseMatrix>(
          ReadDense(file_, info, range.first, range.count, dense, 1.0F));
      resident.bytes += matrix->bytes();
      resident.layout = DenseTypeName(dense);
      resident.Add(PlaceDense(resident.layout));
      linear.matrix = Upload(std::move(matrix), name, false);
      resident.matrices.push_back(linear.matrix);
    }
    linear.rows = rows;
    linear.cols = cols;
    linears.push_back(std::move(linear));
  }
  Place(info, resident);
  return linears;
}

Linear Loader::LoadLinear(const std::string& base, uint32_t rows, uint32_t cols) {
  const std::string name = base + ".weight";
  const gguf::TensorInfo& info = Require(name, rows, cols);
  const float factor = FindScale(base).value_or(1.0F);
  const bool ternary = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
  const std::optional<fabric::QuantizedType> quantized = NativeQuantizedType(info.type);
  Linear linear;
  Resident resident;
  if (ternary && config_.ternary_activation != ActivationMode::kFloat) {
    linear = UploadTernary(info, {.first = 0, .count = rows}, factor, &resident);
    Place(info, resident);
  } else if (quantized && factor == 1.0F && base != "output") {
    linear = UploadQuantized(info, {.first = 0, .count = rows}, *quantized, &resident);
    Place(info, resident);
  } else {
    const SharedMatrix matrix = LoadShared(info, fabric::DenseType::kF32, factor);
    if (base == "output") weights_.head_matrix = matrix;
    linear.activation = matrix.activation();
    linear.matrix = Upload(matrix.AsMatrix(), name, false);
    weights_.placements.back().matrices = {linear.matrix};
  }
  linear.rows = rows;
  linear.cols = cols;
  linear.rotated = config_.hadamard.Rotates(name);
  linear.index = static_cast<uint32_t>(weights_.linears.size());
  weights_.linears.push_back({.name = name, .rows = rows, .cols = cols});
  linear.bias = LoadVectorIf(file_.FindTensor(base + ".bias") != nullptr, base + ".bias", rows);
  return linear;
}

fabric::ActivationKind Loader::TernaryActivation() const {
  return config_.ternary_activation == ActivationMode::kBlock ? fabric::ActivationKind::kInt8Block
                                                              : fabric::ActivationKind::kInt8Token;
}

Linear Loader::UploadTernary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                             Resident* resident) {
  PackedTernary packed = packer_.Ternary(info, rows, factor, TernaryActivation());
  AddReason(packed.reason);
  fabric::TernaryMatrix& matrix = packed.matrix;
  const bool sparse = matrix.layout() == fabric::TernaryLayout::kSparse;
  resident->layout = (sparse ? "" : "panel-") + std::string(fabric::LayoutName(matrix.layout()));
  Linear linear;
  linear.activation = TernaryActivation();
  const Placement placement = PlaceTernary(placement_, LayerOf(info.name));
  resident->activation = linear.activation;
  resident->bytes += matrix.bytes();
  resident->trits += uint64_t{rows.count} * info.cols();
  resident->zeros += packed.zeros;
  resident->planes = 1;
  resident->Add(placement);
  linear.matrix = placement.on_fabric ? UploadToPool(std::move(matrix), info.name)
                                      : Upload(std::move(matrix), info.name, false);
  resident->matrices.push_back(linear.matrix);
  return linear;
}

// As planes on the Fabric, or at its bits on the host.
Linear Loader::UploadQuantized(const gguf::TensorInfo& info, const RowRange& rows,
                               fabric::QuantizedType type, Resident* resident) {
  auto matrix =
      std::make_shared<const fabric::QuantizedMatrix>(packer_.Quantized(info, rows, type));
  const Placement placement =
      PlaceQuantized(placement_, LayerOf(info.name), *matrix, MeanSquares(info, rows));
  Linear linear;
  linear.activation = fabric::ActivationKind::kInt8Block;
  resident->activation = linear.activation;
  resident->Add(placement);
  if (!placement.planes) {
    resident->layout = QuantizedTypeName(type);
    resident->bytes += matrix->bytes();
    linear.matrix = Upload(std::move(matrix), info.name, false);
    resident->matrices.push_back(linear.matrix);
    return linear;
  }
  auto planes = std::make_shared<const fabric::PlaneMatrix>(*matrix, *placement.planes);
  resident->layout = "planes-2bit";
  resident->bytes += planes->bytes();
  for (const fabric::TernaryMatrix& plane : planes->planes()) {
    const uint64_t trits = uint64_t{plane.rows()} * plane.cols();
    const auto counts = plane.nonzeros_per_column();
    resident->trits += trits;
    resident->zeros += trits - std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  }
  linear.matrix = Upload(std::move(planes), info.name, true);
  resident->matrices.push_back(linear.matrix);
  return linear;
}

// Each reason once.
void Loader::AddReason(const std::string& reason) {
  std::string& reasons = weights_.layout_reason;
  if (reasons.find(reason) != std::string::npos) return;
  if (!reasons.empty()) reasons += "; ";
  reasons += reason;
}

// Where the device's memory has a bound, each matrix must fit it alone.
fabric::MatrixId Loader::UploadToPool(fabric::TernaryMatrix matrix, const std::string& name) {
  const uint64_t pool = device_.pool().bytes;
  pooled_bytes_ += matrix.bytes();
  if (pool > 0 && matrix.image_bytes() > pool) {
    throw ModelError("A Fabric pool of " + std::to_string(pool) + " bytes cannot hold tensor " +
                     name + ", which takes " + std::to_string(matrix.image_bytes()) +
                     "; give --fabric-pool at least " + std::to_string(LargestTernaryBytes()) +
                     " bytes, the size of the largest.");
  }
  return Upload(std::move(matrix), name, true);
}

// Of all that goes to the Fabric. How many bytes a sparse matrix takes is known when it is packed,
// so each is: the load has failed, and what it takes a moment to find out is told for good.
uint64_t Loader::LargestTernaryBytes() {
  uint64_t largest = 0;
  for (const gguf::TensorInfo& info : file_.tensors()) {
    const bool looked_up = info.name == "token_embd.weight" && !config_.tied_head;
    const bool ternary =
        info.rank >= 2 && gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
    if (!ternary || looked_up || !PlaceTernary(placement_, LayerOf(info.name)).on_fabric) continue;
    largest = std::max(largest, LargestMatrixBytes(info));
  }
  return largest;
}

// Of a tensor, or of the matrices of a stack.
uint64_t Loader::LargestMatrixBytes(const gguf::TensorInfo& info) {
  const uint64_t rows = info.rank > 2 ? info.extents[1] : info.rows();
  uint64_t largest = 0;
  for (uint64_t first = 0; first < info.rows(); first += rows) {
    const RowRange range{.first = first, .count = static_cast<uint32_t>(rows)};
    const PackedTernary packed = packer_.Ternary(info, range, 1.0F, TernaryActivation());
    largest = std::max<uint64_t>(largest, packed.matrix.image_bytes());
  }
  return largest;
}

// Beside the matrices themselves a bounded pool takes memory for those that are in it; when they
// wait in a file, that is all that they take.
void Loader::CountPool() {
  const fabric::PoolFacts pool = device_.pool();
  if (pool.bytes == 0) return;
  weights_.resident_bytes += std::min<uint64_t>(pool.bytes, pooled_bytes_);
  if (pool.in_file) weights_.resident_bytes -= pooled_bytes_;
}

void Loader::SketchHead() {
  const Stopwatch stopwatch;
  const SharedMatrix& matrix = weights_.head_matrix;
  switch (UsableHeadMode(weights_, options_)) {
    case HeadMode::kFull:
      return;
    case HeadMode::kStrict:
      weights_.head_sketch =
          std::make_shared<const fabric::RowSketch>(packer_.StrictSketch(*matrix.quantized));
      break;
    case HeadMode::kScreened:
      weights_.head_sketch =
          std::make_shared<const fabric::RowSketch>(packer_.CoarseSketch(matrix.AsMatrix()));
      break;
  }
  weights_.head_sketch_mode = options_.head;
  weights_.head_sketch_seconds = stopwatch.Seconds();
}

// In the file's own type where there is a matrix of it and nothing to fold in, else as `otherwise`.
SharedMatrix Loader::LoadShared(const gguf::TensorInfo& info, fabric::DenseType otherwise,
                                float factor) {
  const bool fold = factor != 1.0F;
  const auto rows = static_cast<uint32_t>(info.rows());
  const std::optional<fabric::QuantizedType> quantized = NativeQuantizedType(info.type);
  SharedMatrix shared;
  Resident resident;
  if (quantized && !fold) {
    shared.quantized = std::make_shared<const fabric::QuantizedMatrix>(
        packer_.Quantized(info, {.first = 0, .count = rows}, *quantized));
    resident.layout = QuantizedTypeName(*quantized);
    resident.bytes = shared.quantized->bytes();
    resident.Add(PlaceQuantized(placement_, std::nullopt, *shared.quantized));
  } else {
    const std::optional<fabric::DenseType> native = NativeDenseType(info.type);
    const fabric::DenseType type = fold ? fabric::DenseType::kF32 : native.value_or(otherwise);
    shared.dense =
        std::make_shared<const fabric::DenseMatrix>(ReadDense(file_, info, 0, rows, type, factor));
    resident.layout = DenseTypeName(type);
    resident.bytes = shared.dense->bytes();
    resident.Add(PlaceDense(resident.layout));
  }
  resident.activation = shared.activation();
  Place(info, resident);
  return shared;
}

void Loader::LoadEmbeddingAndHead() {
  const gguf::TensorInfo& info = Require("token_embd.weight", config_.vocabulary, config_.hidden);
  const bool ternary = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
  // Where scales are fp16 every weight is one too.
  const bool half = ternary && gguf::TernaryScalesOf(info.type)->half;
  const fabric::DenseType fallback = half ? fabric::DenseType::kF16 : fabric::DenseType::kF32;
  weights_.embedding = LoadShared(info, fallback, 1.0F);
  if (!config_.tied_head) {
    weights_.head = LoadLinear("output", config_.vocabulary, config_.hidden);
    return;
  }
  if (ternary && config_.ternary_activation != ActivationMode::kFloat) {
    weights_.head = LoadLinear("token_embd", config_.vocabulary, config_.hidden);
    weights_.head.rotated = config_.hadamard.inverse_embedding;
    return;
  }
  // The rows of an embedding that is looked up through the inverse are rotated like any weight's.
  weights_.head.rotated = config_.hadamard.inverse_embedding;
  weights_.head_matrix = weights_.embedding;
  weights_.head.activation = weights_.embedding.activation();
  weights_.head.rows = config_.vocabulary;
  weights_.head.cols = config_.hidden;
  weights_.head.matrix = Upload(weights_.embedding.AsMatrix(), info.name, false);
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

fabric::MatrixId Loader::Upload(fabric::Matrix matrix, const std::string& name, bool on_fabric) {
  fabric::MatrixId id;
  const fabric::Status status = on_fabric ? device_.Upload(std::move(matrix), &id)
                                          : device_.UploadToHost(std::move(matrix), &id);
  if (status != fabric::Status::kOk) {
    throw ModelError("The device " + std::string(device_.name()) + " did not take tensor " + name +
                     ": " + std::string(fabric::StatusName(status)) + ".");
  }
  uploaded_.push_back(id);
  return id;
}

void Loader::Place(const gguf::TensorInfo& info, const Resident& resident) {
  TensorPlacement placement;
  placement.layout = resident.layout;
  placement.activation = ActivationName(resident.activation);
  placement.resident_bytes = resident.bytes;
  if (resident.trits > 0) {
    placement.zero_rate = static_cast<double>(resident.zeros) / static_cast<double>(resident.trits);
  }
  placement.on_fabric = resident.on_fabric;
  placement.planes = resident.planes;
  placement.plane_error = resident.error;
  placement.reason = resident.reason;
  placement.matrices = resident.matrices;
  Place(info, std::move(placement));
}

void Loader::PlaceVector(const gguf::TensorInfo& info, uint64_t resident_bytes) {
  TensorPlacement placement;
  placement.layout = "f32";
  placement.resident_bytes = resident_bytes;
  Place(info, std::move(placement));
}

void Loader::Place(const gguf::TensorInfo& info, TensorPlacement placement) {
  placement.name = info.name;
  placement.file_type = gguf::TypeName(info.type);
  placement.rows = info.rows();
  placement.cols = info.cols();
  placement.file_bytes = info.byte_size;
  weights_.resident_bytes += placement.resident_bytes;
  weights_.placements.push_back(std::move(placement));
  done_bytes_ += info.byte_size;
  if (progress_) {
    progress_(std::min(1.0, static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_)));
  }
}

}  // namespace

Weights LoadWeights(const gguf::File& file, const ModelConfig& config, fabric::Device& device,
                    const EngineOptions& options, PackedCache& cache,
                    const std::function<void(double)>& progress) {
  return Loader(file, config, device, options, cache, progress).Load();
}

}  // namespace engine
