#include "cli/synthetic_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>

#include "cli/command.h"
#include "gguf/codec.h"
#include "gguf/reader.h"
#include "gguf/writer.h"

namespace cli {
namespace {

using gguf::MetadataArray;
using gguf::MetadataValue;
using gguf::TensorType;
using gguf::ValueType;

// Every width is a multiple of 256, so that every ternary type can hold it.
constexpr std::array<SyntheticShape, 4> kShapes = {{
    // BitNet-b1.58-2B-4T.
    {"2b", 30, 2560, 20, 5, 6912, 128256, 4096, 500000.0},
    // bitnet_b1_58-large.
    {"700m", 24, 1536, 16, 16, 4096, 32002, 2048, 10000.0},
    // Llama-2-7B's dimensions.
    {"7b", 32, 4096, 32, 32, 11008, 32000, 4096, 10000.0},
    // For tests.
    {"tiny", 2, 256, 4, 2, 768, 512, 512, 10000.0},
}};

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of the counter.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// FNV-1a, so that each tensor has its own stream of random numbers.
uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

// Shares of zeros come in steps of one in so many.
constexpr double kZeroSteps = 65536;

void RandomTrits(uint64_t stream, double zero_rate, std::span<int8_t> trits) {
  const auto zeros = static_cast<uint32_t>(zero_rate * kZeroSteps);
  for (size_t i = 0; i < trits.size(); i += 4) {
    uint64_t bits = Mix(stream + i);
    for (size_t j = i; j < std::min(i + 4, trits.size()); ++j, bits >>= 16) {
      const auto lane = static_cast<uint32_t>(bits & 0xFFFF);
      const int sign = (lane & 1) != 0 ? 1 : -1;
      trits[j] = static_cast<int8_t>(lane < zeros ? 0 : sign);
    }
  }
}

// Uniform in (-limit, limit), in 255 steps: exact in F16 for a power of two.
void RandomValues(uint64_t stream, uint64_t first, float limit, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t index = first + i;
    const auto byte = static_cast<int>((Mix(stream + index / 8) >> (index % 8 * 8)) & 0xFF);
    values[i] = static_cast<float>(std::max(byte - 128, -127)) / 128.0F * limit;
  }
}

class SyntheticWriter {
 public:
  explicit SyntheticWriter(const SyntheticOptions& options)
      : options_(options), shape_(options.shape) {}

  void Write(const std::string& path) {
    AddModelMetadata();
    if (options_.vocabulary_file.empty()) {
      AddSyntheticVocabulary();
    } else {
      CopyVocabulary();
    }
    writer_.metadata().Set(Key("vocab_size"), Uint(shape_.vocabulary));
    AddTensors();
    writer_.WriteFile(path);
  }

 private:
  static MetadataValue Uint(uint64_t value) { return {ValueType::kUint32, value}; }
  static MetadataValue Float(double value) { return {ValueType::kFloat32, value}; }
  static MetadataValue Text(std::string value) { return {ValueType::kString, std::move(value)}; }
  static std::string Key(std::string_view name) { return "bitnet-b1.58." + std::string(name); }

  void AddModelMetadata();
  void AddSyntheticVocabulary();
  void CopyVocabulary();
  void AddTensors();
  void AddNorm(const std::string& name, uint32_t size);
  void AddProjection(const std::string& name, uint32_t rows, uint32_t cols);
  void AddEmbedding();

  SyntheticOptions options_;
  SyntheticShape shape_;
  gguf::Writer writer_;
};

void SyntheticWriter::AddModelMetadata() {
  gguf::Metadata& metadata = writer_.metadata();
  metadata.Set("general.architecture", Text("bitnet-b1.58"));
  metadata.Set("general.name", Text("Synthetic " + std::string(shape_.name)));
  metadata.Set("general.description",
               Text("Random ternary weights for measurements; its text means nothing."));
  metadata.Set(Key("context_length"), Uint(shape_.context_length));
  metadata.Set(Key("embedding_length"), Uint(shape_.hidden));
  metadata.Set(Key("block_count"), Uint(shape_.layers));
  metadata.Set(Key("feed_forward_length"), Uint(shape_.ffn));
  metadata.Set(Key("attention.head_count"), Uint(shape_.heads));
  metadata.Set(Key("attention.head_count_kv"), Uint(shape_.kv_heads));
  metadata.Set(Key("attention.layer_norm_rms_epsilon"), Float(1e-5F));
  metadata.Set(Key("rope.freq_base"), Float(shape_.rope_base));
  metadata.Set(Key("rope.dimension_count"), Uint(shape_.head_dim()));
}

// "\u2581" and the number in base 26, so that all pieces differ.
std::string SyntheticPiece(uint32_t number) {
  std::string piece = "\xE2\x96\x81";
  do {
    piece += static_cast<char>('a' + number % 26);
    number /= 26;
  } while (number != 0);
  return piece;
}

std::string BytePiece(uint32_t byte) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">";
}

// SPM-like: control tokens, 256 byte tokens, then invented pieces.
void SyntheticWriter::AddSyntheticVocabulary() {
  enum Kind : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
  std::vector<std::string> pieces = {"<unk>",    "<s>",           "</s>",
                                     "<|user|>", "<|assistant|>", "<|end|>"};
  std::vector<int64_t> kinds = {kUnknown, kControl, kControl, kControl, kControl, kControl};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    pieces.push_back(BytePiece(byte));
    kinds.push_back(kByte);
  }
  std::vector<double> scores(pieces.size(), 0.0);
  for (uint32_t number = 0; pieces.size() < shape_.vocabulary; ++number) {
    pieces.push_back(SyntheticPiece(number));
    kinds.push_back(kNormal);
    scores.push_back(-static_cast<double>(number));
  }
  gguf::Metadata& metadata = writer_.metadata();
  metadata.Set("tokenizer.ggml.model", Text("llama"));
  metadata.Set("tokenizer.ggml.pre", Text("default"));
  metadata.Set("tokenizer.ggml.tokens",
               {ValueType::kArray, MetadataArray{ValueType::kString, std::move(pieces)}});
  metadata.Set("tokenizer.ggml.scores",
               {ValueType::kArray, MetadataArray{ValueType::kFloat32, std::move(scores)}});
  metadata.Set("tokenizer.ggml.token_type",
               {ValueType::kArray, MetadataArray{ValueType::kInt32, std::move(kinds)}});
  metadata.Set("tokenizer.ggml.bos_token_id", Uint(1));
  metadata.Set("tokenizer.ggml.eos_token_id", Uint(5));
  metadata.Set("tokenizer.ggml.unknown_token_id", Uint(0));
  metadata.Set("tokenizer.ggml.add_bos_token", {ValueType::kBool, true});
  metadata.Set(
      "tokenizer.chat_template",
      Text("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
           "{% else %}<|user|>{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
           "{% if add_generation_prompt %}<|assistant|>{% endif %}"));
}

void SyntheticWriter::CopyVocabulary() {
  const gguf::File file = gguf::File::Open(options_.vocabulary_file);
  const std::vector<std::string>* tokens = file.metadata().FindStrings("tokenizer.ggml.tokens");
  if (tokens == nullptr) {
    throw std::runtime_error(options_.vocabulary_file + " has no tokenizer.ggml.tokens to copy.");
  }
  shape_.vocabulary = static_cast<uint32_t>(tokens->size());
  for (const auto& [key, value] : file.metadata().entries()) {
    if (key.starts_with("tokenizer.")) writer_.metadata().Set(key, value);
  }
}

void SyntheticWriter::AddNorm(const std::string& name, uint32_t size) {
  const std::vector<float> ones(size, 1.0F);
  writer_.AddTensor(name, TensorType::kF32, {size},
                    gguf::EncodeTensor(TensorType::kF32, 1, size, ones));
}

void SyntheticWriter::AddProjection(const std::string& name, uint32_t rows, uint32_t cols) {
  const SyntheticOptions options = options_;
  const auto produce = [options, name, rows, cols](const gguf::Writer::Emit& emit) {
    std::vector<int8_t> trits(size_t{rows} * cols);
    RandomTrits(Mix(options.seed) ^ HashName(name), options.zero_rate, trits);
    // Keeps the norm of what goes through; F16 can hold it, so every format has the same weights.
    // Zeros alone have no norm to keep, but need a scale like any others.
    const double density = std::max(1.0 - options.zero_rate, 1.0 / kZeroSteps);
    const double norm = std::sqrt(density * cols);
    const float scale = gguf::HalfToFloat(gguf::FloatToHalf(static_cast<float>(1.0 / norm)));
    if (gguf::IsTernaryType(options.type)) {
      emit(gguf::EncodeTernary(options.type, rows, cols, trits, gguf::ScaleLayout::kTensor, cols,
                               {&scale, 1}));
      return;
    }
    std::vector<float> values(trits.size());
    for (size_t i = 0; i < trits.size(); ++i) values[i] = static_cast<float>(trits[i]) * scale;
    emit(gguf::EncodeTensor(options.type, rows, cols, values));
  };
  writer_.AddTensor(name, options_.type, {cols, rows},
                    gguf::TensorByteSize(options_.type, rows, cols), produce);
}

void SyntheticWriter::AddEmbedding() {
  const SyntheticOptions options = options_;
  const uint32_t rows = shape_.vocabulary;
  const uint32_t cols = shape_.hidden;
  const auto produce = [options, rows, cols](const gguf::Writer::Emit& emit) {
    constexpr uint32_t kRowsAtOnce = 1024;
    constexpr float kLimit = 1.0F / 32.0F;
    const uint64_t stream = Mix(options.seed) ^ HashName("token_embd.weight");
    for (uint32_t row = 0; row < rows; row += kRowsAtOnce) {
      const uint32_t count = std::min(kRowsAtOnce, rows - row);
      std::vector<float> values(size_t{count} * cols);
      RandomValues(stream, uint64_t{row} * cols, kLimit, values);
      emit(gguf::EncodeTensor(options.embedding_type, count, cols, values));
    }
  };
  writer_.AddTensor("token_embd.weight", options_.embedding_type, {cols, rows},
                    gguf::TensorByteSize(options_.embedding_type, rows, cols), produce);
}

void SyntheticWriter::AddTensors() {
  const uint32_t hidden = shape_.hidden;
  const uint32_t query = shape_.heads * shape_.head_dim();
  const uint32_t kv = shape_.kv_heads * shape_.head_dim();
  AddEmbedding();
  AddNorm("output_norm.weight", hidden);
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    AddNorm(block + "attn_norm.weight", hidden);
    AddNorm(block + "attn_sub_norm.weight", query);
    AddNorm(block + "ffn_norm.weight", hidden);
    AddNorm(block + "ffn_sub_norm.weight", shape_.ffn);
    AddProjection(block + "attn_q.weight", query, hidden);
    AddProjection(block + "attn_k.weight", kv, hidden);
    AddProjection(block + "attn_v.weight", kv, hidden);
    AddProjection(block + "attn_output.weight", hidden, query);
    AddProjection(block + "ffn_gate.weight", shape_.ffn, hidden);
    AddProjection(block + "ffn_up.weight", shape_.ffn, hidden);
    AddProjection(block + "ffn_down.weight", hidden, shape_.ffn);
  }
}

}  // namespace

std::string ShapeNames() {
  std::string names;
  for (const SyntheticShape& shape : kShapes) {
    if (!names.empty()) names += ", ";
    names += shape.name;
  }
  return names;
}

const SyntheticShape& FindShape(const std::string& name) {
  for (const SyntheticShape& shape : kShapes) {
    if (shape.name == name) return shape;
  }
  throw UsageError("The shape must be one of " + ShapeNames() + ", not \"" + name + "\".");
}

void WriteSyntheticModel(const SyntheticOptions& options, const std::string& path) {
  SyntheticWriter(options).Write(path);
}

}  // namespace cli
