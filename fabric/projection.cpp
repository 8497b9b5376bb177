#include "fabric/projection.h"

#include <numeric>

#include "fabric/matrix_store.h"
#include "fabric/panel_layout.h"
#include "fabric/sparse/sparse_lines.h"

namespace fabric {
namespace {

using kernels::TernarySum;

constexpr uint32_t kTokensAhead = 6;

void Touch(const float* y, uint32_t rows) {
  constexpr uint32_t kFloatsPerLine = 16;
  for (uint32_t row = 0; row < rows; row += kFloatsPerLine) __builtin_prefetch(y + row, 1);
}

// How codes are summed: which columns share an integer sum, and which sums share a weight scale.
void DescribeSums(const TernaryMatrix& matrix, const ActivationView& x, const int32_t* group_sums,
                  uint32_t token_begin, kernels::TernaryTile* tile) {
  const bool grouped = matrix.scale_kind() == ScaleKind::kGroup;
  if (x.kind == ActivationKind::kInt8Block) {
    tile->sum = TernarySum::kBlocks;
    tile->segment = kActivationBlock;
    tile->segments_per_scale = grouped ? matrix.group() / kActivationBlock : 0;
    tile->x_scales = x.scales + token_begin * x.scale_stride;
    tile->scale_stride = x.scale_stride;
    tile->x_sums = x.sums + token_begin * x.scale_stride;
    tile->sum_stride = x.scale_stride;
    return;
  }
  tile->x_scales = x.scales + token_begin;
  tile->scale_stride = 1;
  if (grouped) {
    tile->sum = TernarySum::kGroups;
    tile->segment = matrix.group();
    tile->segments_per_scale = 1;
    tile->sum_stride = matrix.scales_per_row();
    tile->x_sums = group_sums + token_begin * tile->sum_stride;
    return;
  }
  tile->sum = TernarySum::kToken;
  tile->x_sums = x.sums + token_begin;
  tile->sum_stride = 1;
}

bool NeedsTables(const TernaryMatrix& matrix, const ActivationView& x) {
  return matrix.layout() == TernaryLayout::kSparse && matrix.scale_kind() != ScaleKind::kGroup &&
         x.kind == ActivationKind::kInt8Token;
}

void RunTernary(const kernels::KernelTable& kernels, const TernaryMatrix& matrix,
                const ActivationView& x, const PreparedInput& input, uint32_t row_begin,
                uint32_t row_end, uint32_t token_begin, uint32_t token_end, float* out,
                size_t out_stride) {
  const uint32_t first_panel = row_begin / kPanelRows;
  const bool one_scale = matrix.scale_kind() == ScaleKind::kTensor;
  kernels::TernaryTile tile;
  tile.panel_count = (row_end - row_begin + kPanelRows - 1) / kPanelRows;
  tile.cols = matrix.cols();
  tile.w_panel_stride = one_scale ? 0 : size_t{matrix.scales_per_row()} * kPanelRows;
  tile.w_scales = matrix.panel_scales().data() + first_panel * tile.w_panel_stride;
  tile.tokens = token_end - token_begin;
  tile.codes = x.codes + token_begin * x.code_stride;
  tile.code_stride = x.code_stride;
  DescribeSums(matrix, x, input.group_sums, token_begin, &tile);
  tile.out = out;
  tile.out_stride = out_stride;
  if (matrix.layout() == TernaryLayout::kSparse) {
    const sparse::LinesView view = sparse::ViewLines(matrix.panels(), matrix.panel_count());
    const size_t table_bytes = sparse::TableBytes(matrix.cols());
    const uint8_t* tables =
        NeedsTables(matrix, x) ? input.tables + token_begin * table_bytes : nullptr;
    kernels.sparse.lines({.tile = tile,
                          .lines = view.lines,
                          .advance = view.advance,
                          .panels = view.panels + first_panel,
                          .tables = tables,
                          .table_stride = table_bytes});
    return;
  }
  tile.panels = matrix.panels().data() + first_panel * matrix.panel_bytes();
  tile.panel_stride = matrix.panel_bytes();
  const bool two_bit = matrix.layout() == TernaryLayout::kPanel2Bit;
  (two_bit ? kernels.ternary.two_bit : kernels.ternary.pt5)(tile);
}

kernels::DenseTileFn DenseKernelOf(const kernels::KernelTable& kernels, DenseType type) {
  switch (type) {
    case DenseType::kF32:
      return kernels.dense.f32;
    case DenseType::kF16:
      return kernels.dense.f16;
    case DenseType::kBF16:
      return kernels.dense.bf16;
  }
  return nullptr;
}

void RunDense(const kernels::KernelTable& kernels, const DenseMatrix& matrix,
              const ActivationView& x, uint32_t row_begin, uint32_t row_end, uint32_t token_begin,
              uint32_t token_end, float* out) {
  kernels::DenseTile tile;
  tile.rows = matrix.Row(row_begin).data();
  tile.row_stride = matrix.row_bytes();
  tile.row_count = row_end - row_begin;
  tile.cols = matrix.cols();
  tile.tokens = token_end - token_begin;
  tile.values = x.values + token_begin * x.value_stride;
  tile.value_stride = x.value_stride;
  tile.out = out;
  tile.out_stride = kTileRows;
  DenseKernelOf(kernels, matrix.type())(tile);
}

void RunQuantized(const kernels::KernelTable& kernels, const QuantizedMatrix& matrix,
                  const ActivationView& x, uint32_t row_begin, uint32_t row_end,
                  uint32_t token_begin, uint32_t token_end, float* out) {
  uint32_t rows[kTileRows];
  std::iota(rows, rows + (row_end - row_begin), row_begin);
  kernels.quantized(QuantizedTileOf(matrix, x, token_begin, token_end,
                                    std::span(rows, row_end - row_begin), out, kTileRows));
}

// Of a tile that takes activations in blocks.
template <class Tile>
void SetTokens(const ActivationView& x, uint32_t begin, uint32_t end, float* out, size_t out_stride,
               Tile* tile) {
  tile->tokens = end - begin;
  tile->codes = x.codes + begin * x.code_stride;
  tile->code_stride = x.code_stride;
  tile->x_scales = x.scales + begin * x.scale_stride;
  tile->x_scale_stride = x.scale_stride;
  tile->out = out;
  tile->out_stride = out_stride;
}

void RunPlanes(const kernels::KernelTable& kernels, const PlaneMatrix& matrix,
               const ActivationView& x, uint32_t row_begin, uint32_t row_end, uint32_t token_begin,
               uint32_t token_end, float* out) {
  kernels::PlaneTile tile =
      matrix.Tile(row_begin / kPanelRows, (row_end - row_begin + kPanelRows - 1) / kPanelRows);
  SetTokens(x, token_begin, token_end, out, kTileRows, &tile);
  kernels.ternary.planes(tile);
}

}  // namespace

kernels::TileEpilogue TileEpilogueOf(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kStore:
      return kernels::TileEpilogue::kStore;
    case Epilogue::kAdd:
      return kernels::TileEpilogue::kAdd;
    case Epilogue::kReluSquaredMul:
      return kernels::TileEpilogue::kReluSquaredMul;
    case Epilogue::kSiluMul:
      return kernels::TileEpilogue::kSiluMul;
    case Epilogue::kGeluMul:
      return kernels::TileEpilogue::kGeluMul;
  }
  return kernels::TileEpilogue::kStore;
}

kernels::QuantizedTile QuantizedTileOf(const QuantizedMatrix& matrix, const ActivationView& x,
                                       uint32_t token_begin, uint32_t token_end,
                                       std::span<const uint32_t> rows, float* out,
                                       size_t out_stride) noexcept {
  kernels::QuantizedTile tile = matrix.Tile();
  tile.rows = rows.data();
  tile.row_count = static_cast<uint32_t>(rows.size());
  SetTokens(x, token_begin, token_end, out, out_stride, &tile);
  return tile;
}

void ProjectRows(const kernels::KernelTable& kernels, const Matrix& matrix, const ActivationView& x,
                 uint32_t token, std::span<const uint32_t> rows, float* out) noexcept {
  if (const QuantizedMatrix* quantized = AsQuantized(matrix)) {
    return kernels.quantized(
        QuantizedTileOf(*quantized, x, token, token + 1, rows, out, kTileRows));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    RunDense(kernels, *AsDense(matrix), x, rows[i], rows[i] + 1, token, token + 1, out + i);
  }
}

bool NeedsGroupSums(const Matrix& matrix, const ActivationView& x) noexcept {
  const TernaryMatrix* ternary = AsTernary(matrix);
  return ternary != nullptr && ternary->scale_kind() == ScaleKind::kGroup &&
         x.kind == ActivationKind::kInt8Token;
}

bool NeedsTables(const Matrix& matrix, const ActivationView& x) noexcept {
  const TernaryMatrix* ternary = AsTernary(matrix);
  return ternary != nullptr && NeedsTables(*ternary, x);
}

void ProjectTile(const kernels::KernelTable& kernels, const Matrix& matrix, const ProjectionOp& op,
                 const PreparedInput& input, uint32_t row_begin, uint32_t row_end,
                 uint32_t token_begin, uint32_t token_end, float* scratch) noexcept {
  // Kernels write whole panels; where that is all that is wanted, there is nothing to do after
  // them.
  const TernaryMatrix* ternary = AsTernary(matrix);
  const bool whole_panels = (row_end - row_begin) % kPanelRows == 0;
  if (ternary != nullptr && whole_panels && op.epilogue == Epilogue::kStore && op.bias == nullptr) {
    RunTernary(kernels, *ternary, *op.x, input, row_begin, row_end, token_begin, token_end,
               op.y + token_begin * op.y_stride + row_begin, op.y_stride);
    return;
  }
  if (const PlaneMatrix* planes = AsPlanes(matrix)) {
    RunPlanes(kernels, *planes, *op.x, row_begin, row_end, token_begin, token_end, scratch);
  } else if (ternary != nullptr) {
    RunTernary(kernels, *ternary, *op.x, input, row_begin, row_end, token_begin, token_end, scratch,
               kTileRows);
  } else if (const DenseMatrix* dense = AsDense(matrix)) {
    RunDense(kernels, *dense, *op.x, row_begin, row_end, token_begin, token_end, scratch);
  } else {
    RunQuantized(kernels, *AsQuantized(matrix), *op.x, row_begin, row_end, token_begin, token_end,
                 scratch);
  }
  const kernels::TileEpilogue epilogue = TileEpilogueOf(op.epilogue);
  const float* bias = op.bias == nullptr ? nullptr : op.bias + row_begin;
  for (uint32_t token = token_begin; token < token_end; ++token) {
    float* y = op.y + token * op.y_stride + row_begin;
    // Rows of y lie pages apart, where no hardware prefetcher looks.
    if (token + kTokensAhead < token_end)
      Touch(y + kTokensAhead * op.y_stride, row_end - row_begin);
    kernels.floats.apply_epilogue(epilogue, scratch + size_t{token - token_begin} * kTileRows, bias,
                                  row_end - row_begin, y);
  }
}

}  // namespace fabric
