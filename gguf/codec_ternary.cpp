#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "gguf/bytes.h"
#include "gguf/codec.h"
#include "gguf/error.h"
#include "gguf/quoted.h"
#include "gguf/ternary_format.h"
#include "gguf/writer.h"

namespace gguf {
namespace {

// The widest block; I2_S interleaved by rows has the narrowest (1 column).
constexpr uint32_t kMaxBlockCols = 256;

// Two-bit codes. Runs of 4 * kWidth columns: column l * kWidth + m of a run is field l of byte m,
// field 0 in the lowest bits, or in the highest when kHighFirst. A run takes kWidth bytes of its
// own row; with interleaved rows those of kRows rows follow each other.
template <int kCols, int kWidth, bool kHighFirst, int kRows = 1>
struct TwoBit {
  static constexpr int Shift(int field) { return kHighFirst ? 6 - 2 * field : 2 * field; }

  static bool Unpack(const uint8_t* bytes, uint32_t lane, uint8_t* codes) {
    bytes += lane * kWidth;
    for (int run = 0; run < kCols / (4 * kWidth); ++run) {
      for (int field = 0; field < 4; ++field) {
        for (int m = 0; m < kWidth; ++m) {
          *codes++ = static_cast<uint8_t>((bytes[m] >> Shift(field)) & 3);
        }
      }
      bytes += kWidth * kRows;
    }
    return true;
  }

  static void Pack(const uint8_t* codes, uint32_t lane, uint8_t* bytes) {
    bytes += lane * kWidth;
    for (int run = 0; run < kCols / (4 * kWidth); ++run) {
      for (int field = 0; field < 4; ++field) {
        for (int m = 0; m < kWidth; ++m) {
          bytes[m] = static_cast<uint8_t>(bytes[m] | (*codes++ << Shift(field)));
        }
      }
      bytes += kWidth * kRows;
    }
  }
};

// I2_S interleaved by rows: one byte per column, row `lane` of four in field 3 - lane.
bool UnpackFourRows(const uint8_t* bytes, uint32_t lane, uint8_t* codes) {
  *codes = static_cast<uint8_t>((*bytes >> (6 - 2 * lane)) & 3);
  return true;
}

void PackFourRows(const uint8_t* codes, uint32_t lane, uint8_t* bytes) {
  *bytes = static_cast<uint8_t>(*bytes | (*codes << (6 - 2 * lane)));
}

// Five trits in a byte as a fraction: byte = ceil(q * 256 / 243) where q is the number in base 3,
// so that multiplying by 3 carries out the most significant trit first.
constexpr uint8_t FractionOf(uint32_t base3) {
  return static_cast<uint8_t>((base3 * 256 + 242) / 243);
}

constexpr std::array<uint8_t, 5> kPowersOf3 = {1, 3, 9, 27, 81};

constexpr uint8_t FractionTrit(uint8_t byte, int index) {
  const auto shifted = static_cast<uint8_t>(byte * kPowersOf3[static_cast<size_t>(index)]);
  return static_cast<uint8_t>((shifted * 3) >> 8);
}

// Which bytes an encoder writes for `count` numbers spaced by `step`.
constexpr std::array<bool, 256> FractionsWritten(uint32_t count, uint32_t step) {
  std::array<bool, 256> written = {};
  for (uint32_t q = 0; q < count; ++q) written[FractionOf(q * step)] = true;
  return written;
}

constexpr std::array<bool, 256> kFiveTrits = FractionsWritten(243, 1);
constexpr std::array<bool, 256> kFourHighTrits = FractionsWritten(81, 3);  // the last one absent
constexpr std::array<bool, 256> kFourLowTrits = FractionsWritten(81, 1);   // the first one absent

bool AllWritten(const std::array<bool, 256>& written, const uint8_t* bytes, uint32_t count) {
  bool all = true;
  for (uint32_t i = 0; i < count; ++i) all = all && written[bytes[i]];
  return all;
}

// TQ1_0 and PTQ1_0: three stages of bytes. In a stage of `width` bytes, trit n of byte m is column
// n * width + m; bytes of the last stage hold four trits, the others five.
template <int kFirst, int kSecond, int kLast>
struct StagedBase3 {
  static bool Unpack(const uint8_t* bytes, uint32_t, uint8_t* codes) {
    const bool written = AllWritten(kFiveTrits, bytes, kFirst + kSecond) &&
                         AllWritten(kFourHighTrits, bytes + kFirst + kSecond, kLast);
    codes = UnpackStage<kFirst, 5>(bytes, codes);
    codes = UnpackStage<kSecond, 5>(bytes + kFirst, codes);
    UnpackStage<kLast, 4>(bytes + kFirst + kSecond, codes);
    return written;
  }

  static void Pack(const uint8_t* codes, uint32_t, uint8_t* bytes) {
    codes = PackStage<kFirst, 5>(codes, bytes);
    codes = PackStage<kSecond, 5>(codes, bytes + kFirst);
    PackStage<kLast, 4>(codes, bytes + kFirst + kSecond);
  }

 private:
  template <int kWidth, int kTrits>
  static uint8_t* UnpackStage(const uint8_t* bytes, uint8_t* codes) {
    for (int n = 0; n < kTrits; ++n) {
      for (int m = 0; m < kWidth; ++m) *codes++ = FractionTrit(bytes[m], n);
    }
    return codes;
  }

  template <int kWidth, int kTrits>
  static const uint8_t* PackStage(const uint8_t* codes, uint8_t* bytes) {
    for (int m = 0; m < kWidth; ++m) {
      uint32_t base3 = 0;
      for (int n = 0; n < 5; ++n) base3 = base3 * 3 + (n < kTrits ? codes[n * kWidth + m] : 0u);
      bytes[m] = FractionOf(base3);
    }
    return codes + kTrits * kWidth;
  }
};

// IQ1_BN: 64 columns in 13 bytes. Of every 16, three bytes hold five trits each, first one least
// significant; the 16th trits of the four share the last byte.
bool UnpackIq1Bn(const uint8_t* bytes, uint32_t, uint8_t* codes) {
  const uint8_t extra = bytes[12];
  for (int group = 0; group < 4; ++group) {
    for (int k = 0; k < 3; ++k) {
      for (int j = 0; j < 5; ++j) *codes++ = FractionTrit(bytes[3 * group + k], 4 - j);
    }
    *codes++ = FractionTrit(extra, 4 - group);
  }
  return AllWritten(kFiveTrits, bytes, 12) && kFourLowTrits[extra];
}

void PackIq1Bn(const uint8_t* codes, uint32_t, uint8_t* bytes) {
  uint32_t extra = 0;
  for (size_t group = 0; group < 4; ++group, codes += 16) {
    for (size_t k = 0; k < 3; ++k) {
      uint32_t base3 = 0;
      for (size_t j = 0; j < 5; ++j) base3 += codes[5 * k + j] * kPowersOf3[j];
      bytes[3 * group + k] = FractionOf(base3);
    }
    extra += codes[15] * kPowersOf3[group];
  }
  bytes[12] = FractionOf(extra);
}

// Q1_0: column j is bit j % 8 of byte j / 8; a set bit is +1, a clear one -1.
bool UnpackQ1_0(const uint8_t* bytes, uint32_t, uint8_t* codes) {
  for (uint32_t j = 0; j < 128; ++j) {
    codes[j] = static_cast<uint8_t>(((bytes[j / 8] >> (j % 8)) & 1) * 2);
  }
  return true;
}

void PackQ1_0(const uint8_t* codes, uint32_t, uint8_t* bytes) {
  for (uint32_t j = 0; j < 128; ++j) {
    bytes[j / 8] = static_cast<uint8_t>(bytes[j / 8] | ((codes[j] >> 1) << (j % 8)));
  }
}

template <typename Codec>
constexpr TernaryFormat InBlock(TensorType type, uint32_t code_offset, uint32_t scale_offset) {
  return {type, ScalePlace::kHalfInBlock, code_offset, scale_offset, Codec::Unpack, Codec::Pack};
}

template <typename Codec>
constexpr TernaryFormat Outside(TensorType type, ScalePlace place) {
  return {type, place, 0, 0, Codec::Unpack, Codec::Pack};
}

struct FourRows {
  static constexpr auto Unpack = UnpackFourRows;
  static constexpr auto Pack = PackFourRows;
};
struct Iq1Bn {
  static constexpr auto Unpack = UnpackIq1Bn;
  static constexpr auto Pack = PackIq1Bn;
};
struct Q1 {
  static constexpr auto Unpack = UnpackQ1_0;
  static constexpr auto Pack = PackQ1_0;
};

using Q2Of64 = TwoBit<64, 1, false>;
using Q2Of128 = TwoBit<128, 1, false>;

// The I2_S layouts stand in the order of I2SLayout.
constexpr std::array kFormats = {
    InBlock<StagedBase3<32, 16, 4>>(TensorType::kTQ1_0, 0, 52),
    InBlock<TwoBit<256, 32, false>>(TensorType::kTQ2_0, 0, 64),
    Outside<TwoBit<128, 32, true>>(TensorType::kI2_S, ScalePlace::kFloatInTail),
    Outside<TwoBit<64, 16, true>>(TensorType::kI2_S, ScalePlace::kFloatInTail),
    Outside<FourRows>(TensorType::kI2_S, ScalePlace::kFloatInTail),
    InBlock<Q1>(TensorType::kQ1_0, 2, 0),
    InBlock<Q2Of64>(TensorType::kQ2_0, 2, 0),
    InBlock<Q2Of128>(TensorType::kQ2_0_G128, 2, 0),
    InBlock<Q2Of128>(TensorType::kPQ2_0, 2, 0),
    InBlock<StagedBase3<16, 8, 2>>(TensorType::kPTQ1_0, 0, 26),
    Outside<Iq1Bn>(TensorType::kIQ1_BN, ScalePlace::kHalfInHeader),
    Outside<TwoBit<64, 16, false>>(TensorType::kIQ2_BN, ScalePlace::kFloatInHeader),
    Outside<TwoBit<64, 4, false, 4>>(TensorType::kIQ2_BN_R4, ScalePlace::kFloatInHeader),
};

bool IsHalf(ScalePlace place) {
  return place == ScalePlace::kHalfInBlock || place == ScalePlace::kHalfInHeader;
}

ScaleLayout LayoutOf(ScalePlace place) {
  if (place == ScalePlace::kHalfInBlock) return ScaleLayout::kGroup;
  return place == ScalePlace::kFloatInTail ? ScaleLayout::kTensor : ScaleLayout::kRow;
}

// Where one row lies. Byte is uint8_t or const uint8_t.
template <typename Byte>
struct RowPlace {
  Byte* header;       // of its row group
  Byte* first_block;  // of its row group
  Byte* tail;         // of the tensor
  uint32_t lane;      // the row's number in its group
  uint64_t blocks;
};

template <typename Byte>
RowPlace<Byte> PlaceRow(const TypeLayout& layout, uint64_t rows, uint64_t cols, uint64_t row,
                        Byte* data) {
  const uint64_t blocks = cols / layout.block_cols;
  const uint64_t group_bytes = layout.header_bytes + blocks * layout.block_bytes;
  Byte* header = data + row / layout.group_rows * group_bytes;
  return {header, header + layout.header_bytes, data + rows / layout.group_rows * group_bytes,
          static_cast<uint32_t>(row % layout.group_rows), blocks};
}

// The scale of one block of a placed row.
float LoadScale(const TernaryFormat& format, const RowPlace<const uint8_t>& place,
                const uint8_t* block) {
  switch (format.scale_place) {
    case ScalePlace::kHalfInBlock:
      return LoadHalf(block + format.scale_offset);
    case ScalePlace::kHalfInHeader:
      return LoadHalf(place.header);
    case ScalePlace::kFloatInHeader:
      return Load<float>(place.header + 4 * place.lane);
    case ScalePlace::kFloatInTail:
      break;
  }
  return Load<float>(place.tail);
}

void StoreScale(const TernaryFormat& format, const RowPlace<uint8_t>& place, uint8_t* block,
                float scale) {
  switch (format.scale_place) {
    case ScalePlace::kHalfInBlock:
      return StoreHalf(scale, block + format.scale_offset);
    case ScalePlace::kHalfInHeader:
      return StoreHalf(scale, place.header);
    case ScalePlace::kFloatInHeader:
      return Store(scale, place.header + 4 * place.lane);
    case ScalePlace::kFloatInTail:
      return Store(scale, place.tail);
  }
}

// The one scale that a range of weights was given. Scales of sub-ranges that are all zero matter
// only when there are no others.
class ScaleMerger {
 public:
  // Returns false when the scales differ.
  bool Add(float scale, bool any_nonzero) {
    if (!any_nonzero) {
      idle_ = !idle_ || SameBits(*idle_, scale) ? scale : 0.0f;
      return true;
    }
    if (used_ && !SameBits(*used_, scale)) return false;
    used_ = scale;
    return true;
  }

  float scale() const { return used_ ? *used_ : idle_.value_or(0.0f); }

 private:
  static bool SameBits(float a, float b) {
    return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
  }

  std::optional<float> used_;
  std::optional<float> idle_;
};

// Trits and their scales as EncodeTernary() takes them.
struct TernarySource {
  uint64_t rows;
  uint64_t cols;
  std::span<const int8_t> trits;
  ScaleLayout layout;
  uint64_t group;  // cols unless kGroup
  std::span<const float> scales;

  float Scale(uint64_t row, uint64_t col) const {
    if (layout == ScaleLayout::kTensor) return scales[0];
    return scales[row * ((cols + group - 1) / group) + col / group];
  }

  // Merges the scales of columns [begin, end) of a row.
  bool Merge(uint64_t row, uint64_t begin, uint64_t end, ScaleMerger& merger) const {
    for (uint64_t col = begin; col < end;) {
      const uint64_t stop = std::min(end, (col / group + 1) * group);
      const auto part = trits.subspan(row * cols + col, stop - col);
      const bool any = std::any_of(part.begin(), part.end(), [](int8_t t) { return t != 0; });
      if (!merger.Add(Scale(row, col), any)) return false;
      col = stop;
    }
    return true;
  }
};

[[noreturn]] void ThrowScales(const TypeLayout& layout, const char* range) {
  throw FormatError(std::string(layout.name) + " holds one scale per " + range +
                    ", but the weights have several: choose a type with smaller groups");
}

void CheckScale(const TernaryFormat& format, const TypeLayout& layout, float scale) {
  if (!std::isfinite(scale)) {
    throw FormatError("a ternary scale is " + std::to_string(scale) + ": expected a finite number");
  }
  if (IsHalf(format.scale_place) && RoundToHalf(scale) != scale) {
    throw FormatError("the scale " + std::to_string(scale) + " is not exact in the float16 that " +
                      std::string(layout.name) + " stores");
  }
}

// Codes of trits[0 .. n), checked for what the type can hold.
void ToCodes(std::span<const int8_t> trits, bool binary, uint8_t* codes) {
  for (const int8_t trit : trits) {
    if (trit < -1 || trit > 1) {
      throw FormatError("a trit is " + std::to_string(trit) + ": expected -1, 0 or 1");
    }
    if (binary && trit == 0) throw FormatError("Q1_0 holds -1 and 1 only, but a weight is 0");
    *codes++ = static_cast<uint8_t>(trit + 1);
  }
}

// The scale of the whole tensor or row when the type keeps it there.
float MergeAll(const TernarySource& source, uint64_t first_row, uint64_t last_row,
               const TypeLayout& layout, const char* range) {
  ScaleMerger merger;
  for (uint64_t row = first_row; row < last_row; ++row) {
    if (!source.Merge(row, 0, source.cols, merger)) ThrowScales(layout, range);
  }
  return merger.scale();
}

void EncodeTernaryRow(const TernaryFormat& format, const TypeLayout& layout,
                      const TernarySource& source, uint64_t row, float tensor_scale,
                      uint8_t* data) {
  const auto place = PlaceRow(layout, source.rows, source.cols, row, data);
  const bool in_block = format.scale_place == ScalePlace::kHalfInBlock;
  float scale = tensor_scale;
  if (!in_block && format.scale_place != ScalePlace::kFloatInTail) {
    scale = MergeAll(source, row, row + 1, layout, "row");
  }
  if (!in_block) {
    CheckScale(format, layout, scale);
    StoreScale(format, place, place.first_block, scale);
  }
  std::array<uint8_t, kMaxBlockCols> codes;
  uint8_t* block = place.first_block;
  for (uint64_t b = 0; b < place.blocks; ++b, block += layout.block_bytes) {
    const uint64_t col = b * layout.block_cols;
    ToCodes(source.trits.subspan(row * source.cols + col, layout.block_cols),
            format.type == TensorType::kQ1_0, codes.data());
    format.pack(codes.data(), place.lane, block + format.code_offset);
    if (!in_block) continue;
    ScaleMerger merger;
    if (!source.Merge(row, col, col + layout.block_cols, merger)) ThrowScales(layout, "block");
    CheckScale(format, layout, merger.scale());
    StoreScale(format, place, block, merger.scale());
  }
}

float LargestMagnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) {
      throw FormatError("a weight is " + std::to_string(value) + ": expected finite numbers");
    }
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

int8_t NearestTrit(float value, float scale) {
  if (std::fabs(value) < 0.5f * scale || scale == 0) return 0;
  return value < 0 ? int8_t{-1} : int8_t{1};
}

// Returns false when a code is 3.
bool ToTrits(const uint8_t* codes, uint32_t count, int8_t* trits) {
  uint8_t both_bits = 0;
  for (uint32_t i = 0; i < count; ++i) {
    both_bits = static_cast<uint8_t>(both_bits | (codes[i] & (codes[i] >> 1)));
    trits[i] = static_cast<int8_t>(codes[i] - 1);
  }
  return both_bits == 0;
}

[[noreturn]] void ThrowMalformed(const TensorInfo& info, uint64_t row, const char* what) {
  throw FormatError("tensor " + Quoted(info.name) + " of type " + std::string(TypeName(info.type)) +
                    ", row " + std::to_string(row) + ": " + what);
}

}  // namespace

const TernaryFormat* FindTernaryFormat(TensorType type, I2SLayout i2s_layout) {
  for (size_t i = 0; i < kFormats.size(); ++i) {
    if (kFormats[i].type != type) continue;
    return &kFormats[i + (type == TensorType::kI2_S ? static_cast<size_t>(i2s_layout) : 0)];
  }
  return nullptr;
}

std::optional<TernaryScales> TernaryScalesOf(TensorType type) {
  const TernaryFormat* format = FindTernaryFormat(type, I2SLayout::kX86);
  if (format == nullptr) return std::nullopt;
  const ScaleLayout layout = LayoutOf(format->scale_place);
  return TernaryScales{layout, layout == ScaleLayout::kGroup ? FindTypeLayout(type)->block_cols : 0,
                       IsHalf(format->scale_place)};
}

void DequantizeTernaryRow(const TernaryFormat& format, const TensorInfo& info,
                          std::span<const std::byte> bytes, const ReadOptions& options,
                          uint64_t row, std::span<float> out) {
  const TypeLayout& layout = *FindTypeLayout(info.type, options.i2s_layout);
  const auto place = PlaceRow(layout, info.rows(), info.cols(), row,
                              reinterpret_cast<const uint8_t*>(bytes.data()));
  std::array<uint8_t, kMaxBlockCols> codes;
  const uint8_t* block = place.first_block;
  float* values = out.data();
  for (uint64_t b = 0; b < place.blocks; ++b, block += layout.block_bytes) {
    const float scale = LoadScale(format, place, block);
    format.unpack(block + format.code_offset, place.lane, codes.data());
    for (uint32_t i = 0; i < layout.block_cols; ++i) {
      *values++ = scale * static_cast<float>(codes[i] - 1);
    }
  }
}

bool TernaryDecoder::Accepts(const TensorInfo& info, std::span<const std::byte> bytes) {
  if (IsTernaryType(info.type)) return true;
  const TernaryFormat* format = FindTernaryFormat(info.type, I2SLayout::kX86);
  if (format == nullptr) return false;
  // Only the four-level types come here; code 3 is both bits of a field.
  const TypeLayout& layout = *FindTypeLayout(info.type);
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  uint32_t both_bits = 0;
  for (uint64_t at = 0; at < bytes.size(); at += layout.block_bytes) {
    for (uint32_t i = format->code_offset; i < layout.block_bytes; ++i) {
      const uint32_t byte = data[at + i];
      both_bits |= byte & (byte >> 1) & 0x55;
    }
  }
  return both_bits == 0;
}

TernaryDecoder::TernaryDecoder(const TensorInfo& info, std::span<const std::byte> bytes,
                               const ReadOptions& options)
    : info_(info), bytes_(bytes), options_(options) {
  const TernaryFormat* format = FindTernaryFormat(info.type, options.i2s_layout);
  if (format == nullptr) {
    throw FormatError("tensor " + Quoted(info.name) + " is of type " +
                      std::string(TypeName(info.type)) + ": expected a ternary type");
  }
  assert(bytes.size() == info.byte_size);
  if (info.cols() > std::numeric_limits<uint32_t>::max()) {
    throw FormatError("tensor " + Quoted(info.name) + " has " + std::to_string(info.cols()) +
                      " columns: expected fewer than 2^32");
  }
  layout_ = LayoutOf(format->scale_place);
  group_ = layout_ == ScaleLayout::kGroup ? FindTypeLayout(info.type)->block_cols
                                          : static_cast<uint32_t>(info.cols());
}

uint64_t TernaryDecoder::scales_per_row() const {
  return layout_ == ScaleLayout::kGroup ? info_.cols() / group_ : 1;
}

void TernaryDecoder::DecodeRow(uint64_t row, std::span<int8_t> trits,
                               std::span<float> scales) const {
  assert(row < info_.rows() && trits.size() == info_.cols() && scales.size() == scales_per_row());
  const TernaryFormat& format = *FindTernaryFormat(info_.type, options_.i2s_layout);
  const TypeLayout& layout = *FindTypeLayout(info_.type, options_.i2s_layout);
  const auto place = PlaceRow(layout, info_.rows(), info_.cols(), row,
                              reinterpret_cast<const uint8_t*>(bytes_.data()));
  std::array<uint8_t, kMaxBlockCols> codes;
  const uint8_t* block = place.first_block;
  int8_t* trit = trits.data();
  for (uint64_t b = 0; b < place.blocks; ++b, block += layout.block_bytes) {
    if (!format.unpack(block + format.code_offset, place.lane, codes.data())) {
      ThrowMalformed(info_, row, "a byte is none that an encoder writes: the file is damaged");
    }
    if (!ToTrits(codes.data(), layout.block_cols, trit))
      ThrowMalformed(info_, row, "a code is 3: expected 0, 1 or 2");
    trit += layout.block_cols;
    const float scale = LoadScale(format, place, block);
    if (!std::isfinite(scale)) ThrowMalformed(info_, row, "a scale is not finite");
    scales[layout_ == ScaleLayout::kGroup ? b : 0] = scale;
  }
}

std::vector<std::byte> EncodeTernary(TensorType type, uint64_t rows, uint64_t cols,
                                     std::span<const int8_t> trits, ScaleLayout layout,
                                     uint32_t group, std::span<const float> scales,
                                     I2SLayout i2s_layout) {
  const TernaryFormat* format = FindTernaryFormat(type, i2s_layout);
  if (format == nullptr) {
    throw FormatError(std::string(TypeName(type)) + " is not a ternary type");
  }
  const uint64_t scale_group = layout == ScaleLayout::kGroup ? group : cols;
  const TernarySource source = {rows, cols, trits, layout, scale_group, scales};
  assert(trits.size() == rows * cols && scale_group > 0);
  assert(scales.size() ==
         (layout == ScaleLayout::kTensor ? 1 : rows * ((cols + scale_group - 1) / scale_group)));
  const TypeLayout& type_layout = *FindTypeLayout(type, i2s_layout);
  const auto size = LayoutByteSize(type_layout, rows, cols);
  if (!size) {
    throw FormatError(std::to_string(rows) + " rows of " + std::to_string(cols) +
                      " columns do not fit " + std::string(type_layout.name) +
                      ": expected a multiple of " + std::to_string(type_layout.block_cols) +
                      " columns and of " + std::to_string(type_layout.group_rows) + " rows");
  }
  std::vector<std::byte> bytes(*size);
  const float tensor_scale = format->scale_place == ScalePlace::kFloatInTail
                                 ? MergeAll(source, 0, rows, type_layout, "tensor")
                                 : 0.0f;
  for (uint64_t row = 0; row < rows; ++row) {
    EncodeTernaryRow(*format, type_layout, source, row, tensor_scale,
                     reinterpret_cast<uint8_t*>(bytes.data()));
  }
  return bytes;
}

std::vector<std::byte> EncodeTernaryFromFloats(TensorType type, uint64_t rows, uint64_t cols,
                                               std::span<const float> values) {
  const TernaryFormat& format = *FindTernaryFormat(type, I2SLayout::kX86);
  const ScaleLayout layout = LayoutOf(format.scale_place);
  const uint64_t group = layout == ScaleLayout::kGroup ? FindTypeLayout(type)->block_cols : cols;
  const uint64_t range = layout == ScaleLayout::kTensor ? values.size() : group;

  std::vector<float> scales;
  std::vector<int8_t> trits(values.size());
  for (uint64_t begin = 0; begin < values.size(); begin += range) {
    const auto part = values.subspan(begin, range);
    const float largest = LargestMagnitude(part);
    for (uint64_t i = 0; i < range; ++i) {
      const bool binary = type == TensorType::kQ1_0;
      trits[begin + i] =
          binary ? (part[i] < 0 ? int8_t{-1} : int8_t{1}) : NearestTrit(part[i], largest);
    }
    scales.push_back(IsHalf(format.scale_place) ? RoundToHalf(largest) : largest);
  }
  return EncodeTernary(type, rows, cols, trits, layout, static_cast<uint32_t>(group), scales);
}

}  // namespace gguf
