#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gguf/codec.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"

namespace support {

// Every type that a small valid file can hold, for tests that visit them all.
inline constexpr gguf::TensorType kAllTypes[] = {
    gguf::TensorType::kF32,    gguf::TensorType::kF16,       gguf::TensorType::kBF16,
    gguf::TensorType::kQ4_0,   gguf::TensorType::kQ4_1,      gguf::TensorType::kQ5_0,
    gguf::TensorType::kQ5_1,   gguf::TensorType::kQ8_0,      gguf::TensorType::kQ2_K,
    gguf::TensorType::kQ3_K,   gguf::TensorType::kQ4_K,      gguf::TensorType::kQ5_K,
    gguf::TensorType::kQ6_K,   gguf::TensorType::kIQ4_NL,    gguf::TensorType::kIQ4_XS,
    gguf::TensorType::kTQ1_0,  gguf::TensorType::kTQ2_0,     gguf::TensorType::kI2_S,
    gguf::TensorType::kQ1_0,   gguf::TensorType::kQ2_0,      gguf::TensorType::kQ2_0_G128,
    gguf::TensorType::kPQ2_0,  gguf::TensorType::kPTQ1_0,    gguf::TensorType::kIQ1_BN,
    gguf::TensorType::kIQ2_BN, gguf::TensorType::kIQ2_BN_R4,
};

// A valid file with one [4, 256] tensor per type, all zero bytes, and every kind of metadata.
inline std::vector<std::byte> EveryTypeFile() {
  gguf::Writer writer;
  gguf::Metadata& metadata = writer.metadata();
  metadata.Set("general.architecture", TextValue("bitnet-b1.58"));
  metadata.Set("general.file_type", UintValue(40));
  metadata.Set("scale", {gguf::ValueType::kFloat32, 0.5});
  metadata.Set("flag", {gguf::ValueType::kBool, true});
  metadata.Set("tokens",
               {gguf::ValueType::kArray,
                gguf::MetadataArray{gguf::ValueType::kString,
                                    std::vector<std::string>{"<s>", "</s>", "\xe2\x96\x81the"}}});
  metadata.Set("scores",
               {gguf::ValueType::kArray,
                gguf::MetadataArray{gguf::ValueType::kFloat32, std::vector<double>{0, -1, -2}}});
  metadata.Set("nested",
               {gguf::ValueType::kArray,
                gguf::MetadataArray{gguf::ValueType::kArray,
                                    std::vector<gguf::MetadataArray>{
                                        {gguf::ValueType::kInt8, std::vector<int64_t>{-3, 4}}}}});
  for (const gguf::TensorType type : kAllTypes) {
    const uint64_t size = gguf::TensorByteSize(type, 4, 256);
    writer.AddTensor("t." + std::to_string(static_cast<uint32_t>(type)), type, {256, 4},
                     std::vector<std::byte>(size));
  }
  return writer.Serialize();
}

// Small files to start mutating from: name and bytes.
inline std::vector<std::pair<std::string, std::vector<std::byte>>> SeedFiles() {
  std::vector<std::pair<std::string, std::vector<std::byte>>> seeds;
  seeds.emplace_back("every_type", EveryTypeFile());
  for (const gguf::TensorType type : kAllTypes) {
    gguf::Writer writer;
    writer.metadata().Set("general.architecture", TextValue("llama"));
    writer.AddTensor("t", type, {256, 4},
                     std::vector<std::byte>(gguf::TensorByteSize(type, 4, 256)));
    seeds.emplace_back("type_" + std::string(gguf::TypeName(type)), writer.Serialize());
  }
  seeds.emplace_back("empty", GgufBuilder(0, 0).bytes());
  GgufBuilder aligned(2, 1);
  aligned.Uint32("general.alignment", 8).Tensor("a", {2}, 0, 0).Tensor("b", {1}, 0, 8).Data(12, 8);
  seeds.emplace_back("aligned", aligned.bytes());
  return seeds;
}

// Reads everything that a parsed file offers. For sanitizers, and for the promise that a file which
// was accepted can be read: throws only FormatError.
inline void ReadWholeFile(const gguf::File& file) {
  for (const auto& [key, value] : file.metadata().entries()) {
    if (!file.metadata().Has(key)) throw std::logic_error("an entry cannot be found");
  }
  for (const gguf::TensorInfo& info : file.tensors()) {
    const std::span<const std::byte> bytes = file.TensorBytes(info);
    if (bytes.size() != info.byte_size)
      throw std::logic_error("a tensor's bytes are not all there");
    if (file.FindTensor(info.name) != &info) throw std::logic_error("a tensor cannot be found");
    std::vector<float> row(info.cols());
    for (const uint64_t index : {uint64_t{0}, info.rows() - 1}) {
      gguf::DequantizeRow(info, bytes, file.options(), index, row);
      if (!gguf::TernaryDecoder::Accepts(info, bytes)) continue;
      const gguf::TernaryDecoder decoder(info, bytes, file.options());
      std::vector<int8_t> trits(info.cols());
      std::vector<float> scales(decoder.scales_per_row());
      try {
        decoder.DecodeRow(index, trits, scales);
      } catch (const gguf::FormatError&) {
        continue;  // a byte that no encoder writes
      }
      for (uint64_t col = 0; col < info.cols(); ++col) {
        const float weight = scales[col / decoder.group()] * static_cast<float>(trits[col]);
        if (weight != row[col]) throw std::logic_error("decoder and dequantiser disagree");
      }
    }
  }
}

// The file written again. What its reader accepts, the writer must be able to write.
inline std::vector<std::byte> Rewrite(const gguf::File& file) {
  gguf::Writer writer;
  for (const auto& [key, value] : file.metadata().entries()) writer.metadata().Set(key, value);
  for (const gguf::TensorInfo& info : file.tensors()) {
    const std::span<const std::byte> bytes = file.TensorBytes(info);
    writer.AddTensor(info.name, info.type, {info.extents.begin(), info.extents.begin() + info.rank},
                     {bytes.begin(), bytes.end()});
  }
  return writer.Serialize();
}

// Throws std::logic_error unless a file survives being written and read again. Only for files that
// were read with the default options: the writer writes the published I2_S layout.
inline void CheckRewrite(const gguf::File& file) {
  const std::vector<std::byte> once = Rewrite(file);
  const gguf::File copy = gguf::File::Parse(once, file.options());
  // A float32 NaN may come back with other bits the first time, so the second copy is compared.
  if (Rewrite(copy) != once) throw std::logic_error("a copy of a copy differs");
  if (copy.tensors().size() != file.tensors().size()) throw std::logic_error("tensors are missing");
  for (const gguf::TensorInfo& info : file.tensors()) {
    // Padding can make a small tensor of id 42 fit both of its meanings (docs/ternary_format.md).
    if (info.type == gguf::TensorType::kQ2_0 || info.type == gguf::TensorType::kQ2_0_G128) continue;
    const gguf::TensorInfo* same = copy.FindTensor(info.name);
    if (same == nullptr || same->type != info.type || same->extents != info.extents ||
        !std::ranges::equal(copy.TensorBytes(*same), file.TensorBytes(info))) {
      throw std::logic_error("a tensor changed");
    }
  }
}

}  // namespace support
