#include "gguf/codec.h"

#include <cassert>
#include <cmath>
#include <string>

#include "gguf/block_codec.h"
#include "gguf/error.h"
#include "gguf/ternary_format.h"
#include "gguf/type_layout.h"
#include "gguf/writer.h"

namespace gguf {
namespace {

const BlockCodec* FindBlockCodec(TensorType type) {
  for (const auto find : {FindFloatCodec, FindLegacyCodec, FindKQuantCodec}) {
    if (const BlockCodec* codec = find(type)) return codec;
  }
  return nullptr;
}

// Every type but F32 and BF16 keeps values or scales as float16.
void CheckRange(TensorType type, std::span<const float> values) {
  constexpr float kLargestHalf = 65504.0f;
  if (type == TensorType::kF32 || type == TensorType::kBF16) return;
  for (const float value : values) {
    if (std::fabs(value) <= kLargestHalf) continue;  // false for NaN
    throw FormatError("a weight is " + std::to_string(value) + ": " + std::string(TypeName(type)) +
                      " holds numbers up to 65504");
  }
}

}  // namespace

void DequantizeRow(const TensorInfo& info, std::span<const std::byte> bytes,
                   const ReadOptions& options, uint64_t row, std::span<float> out) {
  assert(row < info.rows() && out.size() == info.cols() && bytes.size() == info.byte_size);
  if (const TernaryFormat* format = FindTernaryFormat(info.type, options.i2s_layout)) {
    return DequantizeTernaryRow(*format, info, bytes, options, row, out);
  }
  const BlockCodec* codec = FindBlockCodec(info.type);
  if (codec == nullptr) {
    throw FormatError("tensor type " + std::string(TypeName(info.type)) + " has no decoder");
  }
  const TypeLayout& layout = *FindTypeLayout(info.type);
  const uint64_t blocks_per_row = info.cols() / layout.block_cols;
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  codec->decode(data + row * blocks_per_row * layout.block_bytes, blocks_per_row, out.data());
}

bool HasBlockCodes(TensorType type) {
  const BlockCodec* codec = FindBlockCodec(type);
  return codec != nullptr && codec->split != nullptr;
}

void ReadBlockCodes(const TensorInfo& info, std::span<const std::byte> bytes, uint64_t row,
                    BlockCodes* out) {
  assert(HasBlockCodes(info.type) && row < info.rows() && bytes.size() == info.byte_size);
  const BlockCodec& codec = *FindBlockCodec(info.type);
  const TypeLayout& layout = *FindTypeLayout(info.type);
  const uint64_t blocks = info.cols() / layout.block_cols;
  out->codes.resize(info.cols());
  out->sub_scales.resize(codec.sub_block == 0 ? 0 : info.cols() / codec.sub_block);
  out->sub_mins.resize(codec.mins ? out->sub_scales.size() : 0);
  out->scales.resize(blocks);
  out->mins.resize(codec.mins ? blocks : 0);
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  codec.split(data + row * blocks * layout.block_bytes, blocks,
              {.codes = out->codes.data(),
               .sub_scales = out->sub_scales.data(),
               .sub_mins = out->sub_mins.data(),
               .scales = out->scales.data(),
               .mins = out->mins.data()});
}

std::vector<std::byte> EncodeTensor(TensorType type, uint64_t rows, uint64_t cols,
                                    std::span<const float> values) {
  assert(values.size() == rows * cols);
  const uint64_t size = TensorByteSize(type, rows, cols);
  if (FindTernaryFormat(type, I2SLayout::kX86) != nullptr) {
    return EncodeTernaryFromFloats(type, rows, cols, values);
  }
  const BlockCodec* codec = FindBlockCodec(type);
  assert(codec != nullptr);  // each type is of a family
  CheckRange(type, values);
  std::vector<std::byte> bytes(size);
  codec->encode(values.data(), rows * cols / FindTypeLayout(type)->block_cols,
                reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes;
}

}  // namespace gguf
