#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/sparse_tile.h"
#include "fabric/sparse/trit_planes.h"
#include "fabric/ternary_matrix.h"

namespace fabric::sparse {

// The non-zeros of a pruned ternary matrix, packed for kernels: compressed rows whose entries are
// one byte each (fabric/kernels/sparse_tile.h has the layout). Its bytes are proportional to the
// non-zeros, so it pays from about 90 % zeros; absmean-ternarised weights (30-45 % zeros) are
// smaller and faster in the dense layouts.
//
// Ownership: owns. Move-only.  Threads: immutable.
class SparseMatrix {
 public:
  explicit SparseMatrix(const TritPlanes& planes);

  uint32_t rows() const { return rows_; }
  uint32_t cols() const { return cols_; }
  uint32_t panel_count() const;
  uint64_t nonzeros() const { return nonzeros_; }
  size_t bytes() const;  // lines, advance bits and panel offsets
  TritPlanes ToPlanes() const;

  // Codes as kernels look them up: tables of 127 codes and a zero.
  size_t table_bytes() const { return size_t{blocks_} * kernels::kSparseTableBytes; }
  // codes: [cols()]; table: [table_bytes()], 64-byte aligned.
  void MakeTable(const int8_t* codes, int8_t* table) const noexcept;

  // sums[token][row] for panels [panel_begin, panel_end): writes 16 sums per panel, rows past
  // rows() included (zero). tables: [tokens, table_bytes()], from MakeTable(); sums: [tokens,
  // sum_stride].
  void Multiply(const kernels::SparseKernels& kernels, uint32_t panel_begin, uint32_t panel_end,
                const int8_t* tables, uint32_t tokens, int32_t* sums,
                size_t sum_stride) const noexcept;

 private:
  uint32_t rows_;
  uint32_t cols_;
  uint32_t blocks_;
  uint64_t nonzeros_;
  AlignedBuffer<uint8_t> lines_;
  AlignedBuffer<uint64_t> advance_;
  AlignedBuffer<kernels::SparsePanel> panels_;  // [panel_count]
};

// sums[token][row] of planes, rows [row_begin, row_end). codes are readable up to a multiple of 64.
void Multiply(const TritPlanes& planes, const kernels::SparseKernels& kernels, uint32_t row_begin,
              uint32_t row_end, const int8_t* codes, size_t code_stride, uint32_t tokens,
              int32_t* sums, size_t sum_stride) noexcept;

}  // namespace fabric::sparse
