#include "engine/importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "engine/errors.h"
#include "engine/tensor_reading.h"
#include "gguf/reader.h"
#include "gguf/writer.h"

namespace engine {
namespace {

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";

// Of a tensor of finite floats from 0 on.
std::vector<float> ReadFloats(const gguf::File& file, const gguf::TensorInfo& info) {
  std::vector<float> values(info.elements());
  if (info.type != gguf::TensorType::kF32) {
    throw ModelError("Tensor " + info.name + " of an importance matrix must be F32, but it is " +
                     std::string(gguf::TypeName(info.type)) + ".");
  }
  std::memcpy(values.data(), file.TensorBytes(info).data(), values.size() * sizeof(float));
  if (!std::all_of(values.begin(), values.end(),
                   [](float value) { return std::isfinite(value) && value >= 0; })) {
    throw ModelError("Tensor " + info.name +
                     " of an importance matrix holds a value that is negative or not finite.");
  }
  return values;
}

std::vector<std::byte> BytesOf(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

gguf::MetadataValue Text(std::string text) {
  return {.type = gguf::ValueType::kString, .value = std::move(text)};
}

gguf::MetadataValue Number(uint32_t number) {
  return {.type = gguf::ValueType::kUint32, .value = uint64_t{number}};
}

}  // namespace

Importance Importance::Read(const std::string& path) {
  const gguf::File file = gguf::File::Open(path);
  const std::string* type = file.metadata().FindString("general.type");
  if (type == nullptr || *type != "imatrix") {
    throw ModelError(path + " is no importance matrix: its general.type must be \"imatrix\", but " +
                     (type == nullptr ? "it has none." : "it is \"" + *type + "\"."));
  }
  Importance importance;
  for (const gguf::TensorInfo& info : file.tensors()) {
    if (!info.name.ends_with(kSums)) continue;
    const std::string name = info.name.substr(0, info.name.size() - kSums.size());
    const gguf::TensorInfo* counts = file.FindTensor(name + std::string(kCounts));
    if (counts == nullptr || counts->elements() != info.rows()) {
      throw ModelError("The importance matrix " + path + " must have " + name +
                       ".counts with as many values as " + info.name + " has rows, " +
                       std::to_string(info.rows()) + ".");
    }
    importance.tensors_[name] = {.cols = static_cast<uint32_t>(info.cols()),
                                 .sums = ReadFloats(file, info),
                                 .counts = ReadFloats(file, *counts)};
  }
  return importance;
}

void Importance::Write(const std::string& path, const std::string& text, uint32_t chunks,
                       uint32_t chunk_tokens) const {
  gguf::Writer writer;
  writer.metadata().Set("general.type", Text("imatrix"));
  writer.metadata().Set("imatrix.datasets",
                        {.type = gguf::ValueType::kArray,
                         .value = gguf::MetadataArray{.element_type = gguf::ValueType::kString,
                                                      .values = std::vector<std::string>{text}}});
  writer.metadata().Set("imatrix.chunk_count", Number(chunks));
  writer.metadata().Set("imatrix.chunk_size", Number(chunk_tokens));
  for (const auto& [name, tensor] : tensors_) {
    const uint64_t matrices = tensor.counts.size();
    writer.AddTensor(name + std::string(kSums), gguf::TensorType::kF32, {tensor.cols, matrices},
                     BytesOf(tensor.sums));
    writer.AddTensor(name + std::string(kCounts), gguf::TensorType::kF32, {1, matrices},
                     BytesOf(tensor.counts));
  }
  writer.WriteFile(path);
}

void Importance::Add(const std::string& tensor, const std::vector<double>& sums, uint64_t tokens) {
  Tensor& entry = tensors_[tensor];
  entry.cols = static_cast<uint32_t>(sums.size());
  for (const double sum : sums) entry.sums.push_back(static_cast<float>(sum));
  entry.counts.push_back(static_cast<float>(tokens));
}

std::vector<float> Importance::MeanSquares(std::string_view tensor, uint32_t matrix,
                                           uint32_t matrices, uint32_t cols) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) return {};
  const Tensor& entry = found->second;
  if (entry.cols != cols || entry.counts.size() != matrices) {
    throw ModelError("The importance matrix has " + ShapeName(entry.counts.size(), entry.cols) +
                     " values for tensor " + std::string(tensor) + ", which takes " +
                     ShapeName(matrices, cols) + " (matrices x columns): is it of this model?");
  }
  if (entry.counts[matrix] == 0) return {};
  std::vector<float> means(cols);
  std::transform(entry.sums.begin() + static_cast<ptrdiff_t>(size_t{matrix} * cols),
                 entry.sums.begin() + static_cast<ptrdiff_t>((size_t{matrix} + 1) * cols),
                 means.begin(), [&](float sum) { return sum / entry.counts[matrix]; });
  return means;
}

}  // namespace engine
