#pragma once

#include <cstdint>
#include <span>

#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"

namespace fabric {

// Rows and tokens that one call of a kernel takes at most: the float tile between kernel and
// epilogue (16 KiB) stays in the first-level cache.
inline constexpr uint32_t kTileRows = 64;
inline constexpr uint32_t kTileTokens = 64;
inline constexpr uint32_t kTileFloats = kTileRows * kTileTokens;

// Whether a projection needs the sums of codes per scale group, [tokens, scales_per_row()]: an
// ActivationView of one scale per token has only the total.
bool NeedsGroupSums(const Matrix& matrix, const ActivationView& x) noexcept;

kernels::TileEpilogue TileEpilogueOf(Epilogue epilogue);

// Whether a projection needs its codes as tables, [tokens, sparse::TableBytes(cols)].
bool NeedsTables(const Matrix& matrix, const ActivationView& x) noexcept;

// What is made of the activations of an op before its tiles run.
struct PreparedInput {
  const int32_t* group_sums = nullptr;  // when NeedsGroupSums()
  const uint8_t* tables = nullptr;      // when NeedsTables(); 64-byte aligned
};

// Some rows of a quantised matrix and tokens [token_begin, token_end) of x, for the kernels.
// rows: borrowed.
kernels::QuantizedTile QuantizedTileOf(const QuantizedMatrix& matrix, const ActivationView& x,
                                       uint32_t token_begin, uint32_t token_end,
                                       std::span<const uint32_t> rows, float* out,
                                       size_t out_stride) noexcept;

// The projections of listed rows of one token, with the bits of a full one. out: [rows.size()],
// written up to a multiple of 16.
// REQUIRES: a dense or a quantised matrix, x of its kind; at most kTileRows rows.
void ProjectRows(const kernels::KernelTable& kernels, const Matrix& matrix, const ActivationView& x,
                 uint32_t token, std::span<const uint32_t> rows, float* out) noexcept;

// Computes rows [row_begin, row_end) of `op` for tokens [token_begin, token_end), epilogue
// included.
//
// REQUIRES: op passed CheckOps(); row_begin % 16 == 0; at most kTileRows rows, kTileTokens tokens;
//           input has what the op needs; scratch: [kTileFloats].
void ProjectTile(const kernels::KernelTable& kernels, const Matrix& matrix, const ProjectionOp& op,
                 const PreparedInput& input, uint32_t row_begin, uint32_t row_end,
                 uint32_t token_begin, uint32_t token_end, float* scratch) noexcept;

}  // namespace fabric
