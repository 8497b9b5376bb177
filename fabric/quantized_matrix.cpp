#include "fabric/quantized_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <stdexcept>
#include <string>

#include "fabric/half.h"

namespace fabric {
namespace {

using kernels::kMaxPlanes;
using kernels::kPlaneUnit;
using kernels::QuantizedFormat;

struct NamedFormat {
  std::string_view name;
  QuantizedFormat format;
};

// In the order of QuantizedType.
constexpr std::array kFormats = {
    NamedFormat{"q4_0", {.planes = {4}, .zero = 8}},
    NamedFormat{"q4_1", {.planes = {4}, .mins = true}},
    NamedFormat{"q5_0", {.planes = {4, 1}, .zero = 16}},
    NamedFormat{"q5_1", {.planes = {4, 1}, .mins = true}},
    NamedFormat{"q8_0", {.planes = {4, 4}, .zero = 128}},
    NamedFormat{"iq4_nl", {.planes = {4}, .zero = 128, .nonlinear = true}},
    NamedFormat{
        "q2_k",
        {.planes = {2}, .sub_block = 16, .super_block = 256, .sub_scales = true, .mins = true}},
    NamedFormat{
        "q3_k",
        {.planes = {2, 1}, .zero = 4, .sub_block = 16, .super_block = 256, .sub_scales = true}},
    NamedFormat{"q4_k", {.planes = {4}, .super_block = 256, .sub_scales = true, .mins = true}},
    NamedFormat{"q5_k", {.planes = {4, 1}, .super_block = 256, .sub_scales = true, .mins = true}},
    NamedFormat{
        "q6_k",
        {.planes = {4, 2}, .zero = 32, .sub_block = 16, .super_block = 256, .sub_scales = true}},
    NamedFormat{
        "iq4_xs",
        {.planes = {4}, .zero = 128, .super_block = 256, .sub_scales = true, .nonlinear = true}},
};

// Kernels read vectors of 16 bytes of which the last may lie behind the last row.
constexpr size_t kOverread = 64;

void WritePlane(std::span<const uint8_t> codes, uint32_t row, uint32_t bits, uint32_t shift,
                uint8_t* plane) {
  const auto cols = static_cast<uint32_t>(codes.size());
  const auto mask = static_cast<uint8_t>((1U << bits) - 1);
  const uint32_t unit_cols = 8 * kPlaneUnit / bits;
  for (uint32_t first = 0; first < cols; first += unit_cols) {
    std::array<uint8_t, kPlaneUnit> unit = {};
    for (uint32_t field = 0; field < 8 && first + field / bits * kPlaneUnit < cols; field += bits) {
      const uint8_t* from = codes.data() + first + field / bits * kPlaneUnit;
      for (uint32_t m = 0; m < kPlaneUnit; ++m) {
        const auto value = static_cast<uint8_t>(static_cast<uint8_t>(from[m] >> shift) & mask);
        unit[m] = static_cast<uint8_t>(unit[m] | static_cast<uint8_t>(value << field));
      }
    }
    std::copy(unit.begin(), unit.end(), plane + kernels::PlaneOffset(bits, cols, row, first));
  }
}

}  // namespace

const QuantizedFormat& FormatOf(QuantizedType type) {
  return kFormats[static_cast<size_t>(type)].format;
}

std::string_view QuantizedTypeName(QuantizedType type) {
  return kFormats[static_cast<size_t>(type)].name;
}

QuantizedMatrix::QuantizedMatrix(QuantizedType type, uint32_t rows, uint32_t cols)
    : type_(type), rows_(rows), cols_(cols) {
  const QuantizedFormat& f = format();
  if (rows == 0 || cols == 0 || cols % f.super_block != 0) {
    throw std::invalid_argument("A " + std::string(QuantizedTypeName(type)) +
                                " matrix has at least one row and a multiple of " +
                                std::to_string(f.super_block) + " columns, but it is " +
                                std::to_string(rows) + " x " + std::to_string(cols) + ".");
  }
  for (uint32_t p = 0; p < kMaxPlanes && f.planes[p] != 0; ++p) {
    const size_t all_rows =
        (size_t{rows} + kernels::kBrickRows - 1) / kernels::kBrickRows * kernels::kBrickRows;
    planes_[p] = AlignedBuffer<uint8_t>(all_rows * kernels::PlaneRowBytes(f.planes[p], cols));
  }
  sub_stride_ = f.sub_scales ? cols / f.sub_block : 0;
  scale_stride_ = cols / f.super_block;
  scales_ = AlignedBuffer<uint16_t>(rows * scale_stride_ + kOverread);
  if (f.sub_scales) sub_scales_ = AlignedBuffer<int8_t>(rows * sub_stride_ + kOverread);
  if (!f.mins) return;
  mins_ = AlignedBuffer<uint16_t>(rows * scale_stride_ + kOverread);
  if (f.sub_scales) sub_mins_ = AlignedBuffer<int8_t>(rows * sub_stride_ + kOverread);
}

void QuantizedMatrix::SetRow(uint32_t row, const QuantizedRow& values) {
  const QuantizedFormat& f = format();
  assert(row < rows_ && values.codes.size() == cols_ && values.scales.size() == scale_stride_);
  assert(values.sub_scales.size() == sub_stride_);
  assert(values.mins.size() == (f.mins ? scale_stride_ : 0));
  assert(values.sub_mins.size() == (f.mins ? sub_stride_ : 0));
  uint32_t shift = CodeBits(f);
  for (uint32_t p = 0; p < kMaxPlanes && f.planes[p] != 0; ++p) {
    shift -= f.planes[p];
    WritePlane(values.codes, row, f.planes[p], shift, planes_[p].data());
  }
  std::copy(values.sub_scales.begin(), values.sub_scales.end(),
            sub_scales_.data() + row * sub_stride_);
  std::copy(values.sub_mins.begin(), values.sub_mins.end(), sub_mins_.data() + row * sub_stride_);
  std::copy(values.scales.begin(), values.scales.end(), scales_.data() + row * scale_stride_);
  std::copy(values.mins.begin(), values.mins.end(), mins_.data() + row * scale_stride_);
}

std::array<std::span<std::byte>, kMaxPlanes + 4> QuantizedMatrix::Memory() {
  static_assert(kMaxPlanes == 2);
  return {AsBytes(planes_[0]), AsBytes(planes_[1]), AsBytes(sub_scales_),
          AsBytes(sub_mins_),  AsBytes(scales_),    AsBytes(mins_)};
}

// Those of one sub-block, which lies in one unit of each plane.
void QuantizedMatrix::GetCodes(uint32_t row, uint32_t first, std::span<uint8_t> codes) const {
  const QuantizedFormat& f = format();
  std::fill(codes.begin(), codes.end(), uint8_t{0});
  for (uint32_t p = 0; p < kMaxPlanes && f.planes[p] != 0; ++p) {
    const uint32_t bits = f.planes[p];
    const uint8_t* unit = planes_[p].data() + kernels::PlaneOffset(bits, cols_, row, first);
    for (uint32_t i = 0; i < codes.size(); ++i) {
      codes[i] =
          static_cast<uint8_t>(codes[i] << bits | kernels::PlaneField(unit, bits, first + i));
    }
  }
  if (!f.nonlinear) return;
  for (uint8_t& code : codes) code = kernels::kNonlinearLevels[code];
}

void QuantizedMatrix::GetLevels(uint32_t row, std::span<int16_t> out) const {
  assert(row < rows_ && out.size() == cols_);
  const QuantizedFormat& f = format();
  std::array<uint8_t, kernels::kQuantizedBlock> buffer;
  const std::span codes = std::span(buffer).first(f.sub_block);
  for (uint32_t first = 0; first < cols_; first += f.sub_block) {
    GetCodes(row, first, codes);
    for (uint32_t i = 0; i < codes.size(); ++i) {
      out[first + i] = static_cast<int16_t>(codes[i] - f.zero);
    }
  }
}

QuantizedMatrix QuantizedMatrix::CopyRows(std::span<const uint32_t> rows) const {
  QuantizedMatrix copy(type_, static_cast<uint32_t>(rows.size()), cols_);
  const auto copy_part = [](const auto& from, uint32_t from_row, size_t stride, uint32_t to_row,
                            auto* to) {
    if (from.empty()) return;
    std::copy_n(from.data() + from_row * stride, stride, to->data() + to_row * stride);
  };
  for (uint32_t to = 0; to < rows.size(); ++to) {
    const uint32_t from = rows[to];
    assert(from < rows_);
    for (uint32_t p = 0; p < kMaxPlanes && format().planes[p] != 0; ++p) {
      const uint32_t bits = format().planes[p];
      for (uint32_t col = 0; col < cols_; col += 8 * kPlaneUnit / bits) {
        std::copy_n(planes_[p].data() + kernels::PlaneOffset(bits, cols_, from, col), kPlaneUnit,
                    copy.planes_[p].data() + kernels::PlaneOffset(bits, cols_, to, col));
      }
    }
    copy_part(sub_scales_, from, sub_stride_, to, &copy.sub_scales_);
    copy_part(sub_mins_, from, sub_stride_, to, &copy.sub_mins_);
    copy_part(scales_, from, scale_stride_, to, &copy.scales_);
    copy_part(mins_, from, scale_stride_, to, &copy.mins_);
  }
  return copy;
}

// The roundings of the file formats' own definition: scale * sub_scale, times the integer, minus
// min * -sub_min (or plus min), which also settles the signs of zeros.
void QuantizedMatrix::GetRow(uint32_t row, std::span<float> out) const {
  assert(row < rows_ && out.size() == cols_);
  const QuantizedFormat& f = format();
  std::array<uint8_t, kernels::kQuantizedBlock> buffer;
  const std::span codes = std::span(buffer).first(f.sub_block);
  for (uint32_t first = 0; first < cols_; first += f.sub_block) {
    const size_t super = row * scale_stride_ + first / f.super_block;
    const size_t sub = row * sub_stride_ + first / f.sub_block;
    float scale = HalfToFloat(scales_[super]);
    float min = f.mins ? HalfToFloat(mins_[super]) : 0.0F;
    if (f.sub_scales) scale *= static_cast<float>(sub_scales_[sub]);
    if (f.sub_scales && f.mins) min = -(min * static_cast<float>(-sub_mins_[sub]));
    GetCodes(row, first, codes);
    for (uint32_t i = 0; i < codes.size(); ++i) {
      const float weight = scale * static_cast<float>(codes[i] - f.zero);
      out[first + i] = f.mins ? weight + min : weight;
    }
  }
}

size_t QuantizedMatrix::bytes() const {
  size_t bytes = sub_scales_.size() + sub_mins_.size() + 2 * (scales_.size() + mins_.size());
  for (const auto& plane : planes_) bytes += plane.size();
  return bytes;
}

size_t QuantizedMatrix::bytes_read(uint32_t planes) const {
  size_t bytes = this->bytes();
  for (uint32_t p = planes; planes != 0 && p < kMaxPlanes; ++p) bytes -= planes_[p].size();
  return bytes;
}

kernels::QuantizedTile QuantizedMatrix::Tile() const {
  kernels::QuantizedTile tile;
  tile.format = format();
  for (uint32_t p = 0; p < kMaxPlanes; ++p) {
    tile.planes[p] = planes_[p].data();
  }
  tile.sub_scales = sub_scales_.data();
  tile.sub_mins = sub_mins_.data();
  tile.sub_stride = sub_stride_;
  tile.scales = scales_.data();
  tile.mins = mins_.data();
  tile.scale_stride = scale_stride_;
  tile.cols = cols_;
  return tile;
}

}  // namespace fabric
