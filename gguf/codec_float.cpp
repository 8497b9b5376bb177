#include <bit>
#include <cstring>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"
#include "gguf/codec.h"

namespace gguf {
namespace {

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

constexpr BlockCodec kCodecs[] = {
    {TensorType::kF32, DecodeF32, EncodeF32},
    {TensorType::kF16, DecodeTwoByte<HalfToFloat>, EncodeTwoByte<FloatToHalf>},
    {TensorType::kBF16, DecodeTwoByte<Bf16ToFloat>, EncodeTwoByte<FloatToBf16>},
};

}  // namespace

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Subnormal: mantissa * 2^-24, exact in float32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

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
  for (const BlockCodec& codec : kCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
