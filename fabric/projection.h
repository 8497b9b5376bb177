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

// Computes rows [row_begin, row_end) of `op` for tokens [token_begin, token_end), epilogue
// included.
//
// REQUIRES: op passed CheckOps(); row_begin % 16 == 0; at most kTileRows rows, kTileTokens tokens;
//           group_sums when NeedsGroupSums(); scratch: [kTileFloats].
void ProjectTile(const kernels::KernelTable& kernels, const Matrix& matrix, const ProjectionOp& op,
                 const int32_t* group_sums, uint32_t row_begin, uint32_t row_end,
                 uint32_t token_begin, uint32_t token_end, float* scratch) noexcept;

}  // namespace fabric
