#include <bit>
#include <cstring>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"
#include "gguf/codec.h"

namespace gguf {
namespace {

// Local, so that position-independent code may still inline it into the loops below.
float WidenHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  // With the fields moved to where a float has them, only the bias of the exponent differs; the
  // multiplication corrects it, is exact, and normalises subnormals. No branch, so loops vectorise.
  const uint32_t moved = magnitude << 13;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(moved) * 0x1p112f);
  const uint32_t bits = magnitude >= 0x7c00 ? moved | 0x7f800000 : finite;
  return std::bit_cast<float>(sign | bits);
}

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  // A NaN whose payload lies in the low half would round to infinity: make it quiet instead.
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  const uint32_t round = 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>((bits + round) >> 16);
}

void DecodeF32(const uint8_t* blocks, uint64_t count, float* out) {
  std::memcpy(out, blocks, count * sizeof(float));
}

void EncodeF32(const float* values, uint64_t count, uint8_t* blocks) {
  std::memcpy(blocks, values, count * sizeof(float));
}

template <float (*kConvert)(uint16_t)>
void DecodeTwoByte(const uint8_t* blocks, uint64_t count, float* out) {
  for (uint64_t i = 0; i < count; ++i) out[i] = kConvert(Load<uint16_t>(blocks + 2 * i));
}

template <uint16_t (*kConvert)(float)>
void EncodeTwoByte(const float* values, uint64_t count, uint8_t* blocks) {
  for (uint64_t i = 0; i < count; ++i) Store(kConvert(values[i]), blocks + 2 * i);
}

constexpr BlockCodec kFloatCodecs[] = {
    {TensorType::kF32, DecodeF32, EncodeF32},
    {TensorType::kF16, DecodeTwoByte<WidenHalf>, EncodeTwoByte<FloatToHalf>},
    {TensorType::kBF16, DecodeTwoByte<Bf16ToFloat>, EncodeTwoByte<FloatToBf16>},
};

}  // namespace

float HalfToFloat(uint16_t half) { return WidenHalf(half); }

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) {
    return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x1ff));
  }
  // Half of the way from the largest half (65504) to the next power of two rounds to infinity.
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude >= 0x38800000) {  // 2^-14: a normal half
    const uint32_t round = 0xfff + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + round) >> 13));
  }
  // Adding 0.5 puts the subnormal's last bit at the last bit of the float, which rounds to even.
  const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
  return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000));
}

const BlockCodec* FindFloatCodec(TensorType type) {
  for (const BlockCodec& codec : kFloatCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
