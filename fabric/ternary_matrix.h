#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "fabric/aligned_buffer.h"
#include "fabric/sparse/sparse_lines.h"

namespace fabric {

// How many weights share a scale.
enum class ScaleKind : uint8_t { kTensor, kRow, kGroup };

// The bytes that a kernel streams. All hold the same trits; conversion is lossless.
enum class TernaryLayout : uint8_t {
  kPanel2Bit,  // 16-row panels, 2 bits per weight: four codes of a byte are columns c, c+4, c+8,
               // c+12
  kPanelPt5,   // 16-row panels, 1.6 bits per weight: the five base-3 digits of a byte are columns
               // c, c+4, c+8, c+12, c+16
  kSparse,  // the non-zeros alone, a byte each (fabric/sparse/sparse_lines.h): of pruned matrices
};

// The name in options and reports: "2bit", "pt5", "sparse".
std::string_view LayoutName(TernaryLayout layout);

// A [rows, cols] matrix with entries in {-1, 0, +1} and one float scale per tensor, row or group of
// columns: W[r][c] = scale * trit.
//
// Layout:    Panels of 16 rows (fabric/panel_layout.h), or their non-zeros. The bytes do not depend
// on the CPU: what is
//            packed on one machine is read on any other.
// Shape:     rows = output features, cols = input features. Any rows >= 1 and 1 <= cols < 2^17 (so
//            that an int32 holds any dot product); tails are padded inside with zero trits.
// Ownership: owns its panels and scales, or views an image that must outlive it (ViewImage()).
//            Move-only.
// Threads:   immutable once packed; SetRow() may run concurrently for different rows.
// Errors:    the constructor throws std::invalid_argument on a shape outside the above.
class TernaryMatrix {
 public:
  // group: columns per scale; a multiple of 32, ignored unless kind is kGroup. layout: not kSparse,
  // which cannot be filled row by row.
  TernaryMatrix(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group, TernaryLayout layout);
  // In kSparse, non-zeros counted. scales: as CopyScales() gives them; row_of is called for every
  // row, from several threads at once.
  static TernaryMatrix PackSparse(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group,
                                  std::span<const float> scales, const sparse::RowOfTrits& row_of);
  TernaryMatrix(TernaryMatrix&&) noexcept = default;
  TernaryMatrix& operator=(TernaryMatrix&&) noexcept = default;

  // trits: [cols] of -1, 0, 1.  scales: [1] for kTensor (all rows alike) and kRow,
  // [scales_per_row()] for kGroup.  REQUIRES: not kSparse.
  void SetRow(uint32_t row, std::span<const int8_t> trits, std::span<const float> scales);
  // The inverse of SetRow for the trits; out: [cols].
  void GetRow(uint32_t row, std::span<int8_t> trits) const;

  uint32_t rows() const { return rows_; }
  uint32_t cols() const { return cols_; }
  ScaleKind scale_kind() const { return kind_; }
  uint32_t group() const { return group_; }
  TernaryLayout layout() const { return layout_; }
  uint32_t scales_per_row() const;  // 1 unless kGroup
  // As SetRow() took them: kTensor [1], kRow [rows], kGroup [rows, scales_per_row()].
  std::vector<float> CopyScales() const;
  float ScaleAt(uint32_t row, uint32_t col) const;
  // [panel_count(), panel_bytes()]; of kSparse, what sparse::ViewLines() takes.
  std::span<const uint8_t> panels() const { return panels_; }
  uint32_t panel_count() const;
  size_t panel_bytes() const;  // REQUIRES: not kSparse
  // What the kernels read: 16 floats per panel and scale, [panel_count(), scales_per_row(), 16];
  // one entry of 16 equal floats for kTensor.
  std::span<const float> panel_scales() const { return scales_; }
  size_t bytes() const;

  // The panels, and from the next multiple of 64 bytes on the scales, as one piece of memory.
  size_t image_bytes() const;
  // out: [image_bytes()].
  void CopyImage(uint8_t* out) const;
  // A matrix of this one's shape that has its weights in `image`, 64-byte aligned, and shares the
  // counts below. This one and the image outlive it.
  TernaryMatrix ViewImage(std::span<uint8_t> image) const;
  // Panels, scales and the counts below. What is filled with the memory of a matrix of the same
  // shape, kinds and layout is that matrix. REQUIRES: not kSparse, owns its weights.
  std::array<std::span<std::byte>, 3> Memory();
  // Frees the weights. What is left can be asked for its shape, bytes and counts, and for views.
  void DropWeights();

  // Non-zero weights per column, for the exact skip account: [cols], empty before CountNonZeros();
  // Device::Upload() computes them when they are missing.
  void CountNonZeros();
  std::span<const uint32_t> nonzeros_per_column() const { return nonzeros_; }

 private:
  // Without panels.
  TernaryMatrix(TernaryLayout layout, uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group);
  void SetScales(uint32_t row, std::span<const float> scales);
  // Without anything.
  TernaryMatrix() = default;
  size_t scale_entries() const;
  size_t ScalesInImage() const;  // where they begin

  uint32_t rows_ = 0;
  uint32_t cols_ = 0;
  ScaleKind kind_ = ScaleKind::kTensor;
  uint32_t group_ = 0;
  TernaryLayout layout_ = TernaryLayout::kPanel2Bit;
  AlignedBuffer<uint8_t> panels_;
  size_t panels_size_ = 0;  // also after DropWeights()
  AlignedBuffer<float> scales_;
  AlignedBuffer<uint32_t> nonzeros_;
};

}  // namespace fabric
