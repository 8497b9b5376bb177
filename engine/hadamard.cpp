#include "engine/hadamard.h"

#include <bit>
#include <optional>

#include "engine/errors.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

constexpr uint64_t kMaxBlock = 1 << 16;
constexpr std::string_view kEmbedding = "token_embd.weight";

[[noreturn]] void Refuse(const std::string& what) {
  throw ModelError("The file's Hadamard rotation cannot be applied: prism.hadamard." + what);
}

void ExpectText(const gguf::Metadata& metadata, const std::string& name,
                const std::string& expected) {
  const std::string* text = metadata.FindString("prism.hadamard." + name);
  if (text != nullptr && *text == expected) return;
  Refuse(name + " must be \"" + expected + "\", but the file " +
         (text == nullptr ? "does not say" : "says \"" + *text + "\"") + ".");
}

uint32_t ReadBlock(const gguf::Metadata& metadata) {
  const uint64_t block = metadata.FindUint("prism.hadamard.block_size").value_or(0);
  if (block < 2 || block > kMaxBlock || !std::has_single_bit(block)) {
    Refuse("block_size must be a power of two from 2 to " + std::to_string(kMaxBlock) +
           ", but the file says " + std::to_string(block) + ".");
  }
  return static_cast<uint32_t>(block);
}

std::map<uint32_t, std::vector<float>> ReadSigns(const gguf::Metadata& metadata, uint32_t block) {
  std::map<uint32_t, std::vector<float>> signs;
  const std::string* mode = metadata.FindString("prism.hadamard.sign_mode");
  if (mode == nullptr || (*mode != "identity" && *mode != "explicit")) {
    Refuse("sign_mode must be \"identity\" or \"explicit\", but the file " +
           (mode == nullptr ? "does not say" : "says \"" + *mode + "\"") + ".");
  }
  if (*mode == "identity") return signs;
  const auto widths = metadata.FindInts("prism.hadamard.sign_widths");
  const auto values = metadata.FindInts("prism.hadamard.sign_values");
  if (!widths || widths->empty() || !values) {
    Refuse("sign_mode is explicit, but sign_widths or sign_values is missing.");
  }
  size_t next = 0;
  for (const int64_t width : *widths) {
    if (width <= 0 || width % block != 0) {
      Refuse("sign_widths must be multiples of the block size " + std::to_string(block) +
             ", but the file has " + std::to_string(width) + ".");
    }
    const auto size = static_cast<uint64_t>(width);
    if (values->size() - next < size) {
      Refuse("sign_values has " + std::to_string(values->size()) +
             " values, fewer than sign_widths add up to.");
    }
    std::vector<float> vector;
    for (size_t i = 0; i < size; ++i) {
      const int64_t sign = (*values)[next + i];
      if (sign != 1 && sign != -1) {
        Refuse("sign_values must be 1 or -1, but the file has " + std::to_string(sign) + ".");
      }
      vector.push_back(static_cast<float>(sign));
    }
    next += size;
    if (!signs.emplace(static_cast<uint32_t>(size), std::move(vector)).second) {
      Refuse("sign_widths has " + std::to_string(size) + " twice.");
    }
  }
  if (next != values->size()) {
    Refuse("sign_values has " + std::to_string(values->size()) +
           " values, but sign_widths add up to " + std::to_string(next) + ".");
  }
  return signs;
}

void CheckTensor(const gguf::File& file, const HadamardRotation& rotation, const std::string& list,
                 const std::string& name) {
  const gguf::TensorInfo* info = file.FindTensor(name);
  if (info == nullptr) Refuse(list + " lists " + name + ", which the file does not have.");
  const auto width = static_cast<uint32_t>(info->cols());
  if (info->rank < 2 || width % rotation.block != 0) {
    Refuse(list + " lists " + name + " of " + std::to_string(info->cols()) +
           " columns, which is not a multiple of the block size " + std::to_string(rotation.block) +
           ".");
  }
  if (!rotation.signs.empty() && !rotation.signs.contains(width)) {
    Refuse("sign_widths has no signs for " + name + " of " + std::to_string(width) + " columns.");
  }
}

}  // namespace

HadamardRotation HadamardRotation::FromGguf(const gguf::File& file) {
  HadamardRotation rotation;
  const gguf::Metadata& metadata = file.metadata();
  if (!metadata.Has("prism.hadamard.version")) return rotation;
  const uint64_t version = metadata.GetUint("prism.hadamard.version");
  if (version != 1) Refuse("version must be 1, but the file says " + std::to_string(version) + ".");
  ExpectText(metadata, "transform", "normalized-sylvester-walsh-hadamard");
  ExpectText(metadata, "axis", "input-last-dimension");
  rotation.block = ReadBlock(metadata);
  rotation.signs = ReadSigns(metadata, rotation.block);
  const auto* names = metadata.FindStrings("prism.hadamard.weight_names");
  if (names == nullptr || names->empty()) Refuse("weight_names is missing.");
  for (const std::string& name : *names) {
    CheckTensor(file, rotation, "weight_names", name);
    rotation.weights.insert(name);
  }
  if (const auto* inverse = metadata.FindStrings("prism.hadamard.inverse_weight_names")) {
    for (const std::string& name : *inverse) {
      if (name != kEmbedding) {
        Refuse("inverse_weight_names lists " + name + "; only " + std::string(kEmbedding) +
               " is looked up by rows.");
      }
      CheckTensor(file, rotation, "inverse_weight_names", name);
      rotation.inverse_embedding = true;
    }
  }
  if (rotation.weights.contains(kEmbedding) && !rotation.inverse_embedding) {
    Refuse("weight_names lists token_embd.weight, but inverse_weight_names does not.");
  }
  rotation.grouped_values = metadata.FindBool("prism.hadamard.gdn_v_grouped").value_or(false);
  return rotation;
}

const float* HadamardRotation::SignsOf(uint32_t width) const noexcept {
  const auto found = signs.find(width);
  return found == signs.end() ? nullptr : found->second.data();
}

void HadamardRotation::Apply(float* x, uint32_t width) const noexcept {
  if (const float* sign = SignsOf(width)) {
    for (uint32_t i = 0; i < width; ++i) x[i] *= sign[i];
  }
  fabric::Hadamard(x, width, block);
}

void HadamardRotation::Invert(float* x, uint32_t width) const noexcept {
  fabric::Hadamard(x, width, block);
  if (const float* sign = SignsOf(width)) {
    for (uint32_t i = 0; i < width; ++i) x[i] *= sign[i];
  }
}

}  // namespace engine
