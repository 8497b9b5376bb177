#include "fabric/multi_device.h"

#include <algorithm>
#include <functional>
#include <new>
#include <numeric>
#include <utility>

#include "fabric/matrix_store.h"
#include "fabric/panel_layout.h"
#include "fabric/projection.h"

namespace fabric {
namespace {

// Parts of columns end at whole blocks of activations.
constexpr uint32_t kColumnStep = kActivationBlock;

// [begin, end) of part `index` of `count`, in multiples of `step`; empty when there is nothing
// left.
std::pair<uint32_t, uint32_t> ShareOf(uint32_t total, size_t index, size_t count, uint32_t step) {
  const uint64_t steps = (uint64_t{total} + step - 1) / step;
  const auto at = [&](size_t i) {
    return static_cast<uint32_t>(std::min<uint64_t>(steps * i / count * step, total));
  };
  return {at(index), at(index + 1)};
}

// The layout in which parts of a matrix are put together row by row.
TernaryLayout LayoutOfParts(const TernaryMatrix& from) {
  const bool sparse = from.layout() == TernaryLayout::kSparse;
  return sparse ? TernaryLayout::kPanel2Bit : from.layout();
}

// A part in the layout of the whole.
TernaryMatrix AsWhole(const TernaryMatrix& whole, TernaryMatrix part) {
  return part.layout() == whole.layout() ? std::move(part) : CopyTernary(part, whole.layout());
}

TernaryMatrix RowsOfMatrix(const TernaryMatrix& from, uint32_t begin, uint32_t end) {
  TernaryMatrix part(end - begin, from.cols(), from.scale_kind(), from.group(),
                     LayoutOfParts(from));
  std::vector<int8_t> trits(from.cols());
  std::vector<float> scales(from.scales_per_row());
  for (uint32_t row = begin; row < end; ++row) {
    from.GetRow(row, trits);
    for (uint32_t s = 0; s < scales.size(); ++s) scales[s] = from.ScaleAt(row, s * from.group());
    part.SetRow(row - begin, trits, scales);
  }
  return AsWhole(from, std::move(part));
}

// With the scale 1, so that its products are the integer sums.
TernaryMatrix ColumnsOfMatrix(const TernaryMatrix& from, uint32_t begin, uint32_t end) {
  TernaryMatrix part(from.rows(), end - begin, ScaleKind::kTensor, 0, LayoutOfParts(from));
  std::vector<int8_t> trits(from.cols());
  const float one = 1.0F;
  for (uint32_t row = 0; row < from.rows(); ++row) {
    from.GetRow(row, trits);
    part.SetRow(row, std::span(trits).subspan(begin, end - begin), {&one, 1});
  }
  return AsWhole(from, std::move(part));
}

bool RangesMeet(const ProjectionOp& a, uint32_t a_rows, const ProjectionOp& b, uint32_t b_rows) {
  const float* a_end = a.y + (a.x->tokens - 1) * a.y_stride + a_rows;
  const float* b_end = b.y + (b.x->tokens - 1) * b.y_stride + b_rows;
  return std::less<>()(a.y, b_end) && std::less<>()(b.y, a_end);
}

}  // namespace

// Some columns of a batch of codes, padded as kernels read them, with a scale of 1.
struct MultiDevice::ColumnInput {
  ColumnInput(const ActivationView& x, uint32_t begin, uint32_t count)
      : codes(x.tokens * PaddedCols(count)), scales(x.tokens), sums(x.tokens) {
    const size_t stride = PaddedCols(count);
    for (uint32_t token = 0; token < x.tokens; ++token) {
      const int8_t* from = x.codes + token * x.code_stride + begin;
      std::copy(from, from + count, codes.data() + token * stride);
      scales[token] = 1.0F;
      sums[token] = std::accumulate(from, from + count, int32_t{0});
    }
    view = {.kind = ActivationKind::kInt8Token,
            .tokens = x.tokens,
            .cols = count,
            .codes = codes.data(),
            .code_stride = stride,
            .scales = scales.data(),
            .scale_stride = 1,
            .sums = sums.data()};
  }

  AlignedBuffer<int8_t> codes;
  AlignedBuffer<float> scales;
  AlignedBuffer<int32_t> sums;
  ActivationView view;
};

MultiDevice::MultiDevice(std::vector<std::unique_ptr<Device>> devices, FabricSplit split,
                         const kernels::KernelTable& kernels)
    : devices_(std::move(devices)),
      split_(split),
      kernels_(kernels),
      part_ops_(devices_.size()),
      tickets_(devices_.size()) {}

LayoutChoice MultiDevice::PreferredLayout(const TernaryUse& use) {
  return devices_.front()->PreferredLayout(use);
}

std::string MultiDevice::LayoutRule() const { return devices_.front()->LayoutRule(); }

const MultiDevice::Shared* MultiDevice::Find(MatrixId id) const noexcept {
  if (id.generation == 0 || id.index >= matrices_.size()) return nullptr;
  const Shared& shared = matrices_[id.index];
  return shared.used && shared.generation == id.generation ? &shared : nullptr;
}

Status MultiDevice::Upload(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), false, id);
}

Status MultiDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), true, id);
}

Status MultiDevice::Store(Matrix matrix, bool on_host, MatrixId* id) {
  if (id == nullptr) return Status::kErrAddr;
  const std::optional<MatrixShape> shape = ShapeOf(matrix);
  if (!shape || shape->rows == 0) return Status::kErrAddr;
  auto slot =
      std::find_if(matrices_.begin(), matrices_.end(), [](const Shared& s) { return !s.used; });
  if (slot == matrices_.end()) slot = matrices_.emplace(matrices_.end());
  slot->shape = *shape;
  Status status = Status::kOk;
  const TernaryMatrix* ternary = AsTernary(matrix);
  slot->shared_out = ternary != nullptr && !on_host;
  if (slot->shared_out) {
    status = UploadParts(*ternary, &*slot);
  } else {
    Part whole{.device = 0, .id = {}, .begin = 0, .count = shape->rows};
    Device& first = *devices_.front();
    status = on_host ? first.UploadToHost(std::move(matrix), &whole.id)
                     : first.Upload(std::move(matrix), &whole.id);
    if (status == Status::kOk) slot->row_parts.push_back(whole);
  }
  if (status != Status::kOk) {
    FreeParts(&*slot);
    return status;
  }
  slot->used = true;
  *id = {static_cast<uint32_t>(slot - matrices_.begin()), slot->generation};
  return Status::kOk;
}

Status MultiDevice::UploadParts(const TernaryMatrix& matrix, Shared* shared) {
  const bool columns = split_ == FabricSplit::kColumns && matrix.scale_kind() != ScaleKind::kGroup;
  if (columns) shared->scales = matrix.CopyScales();
  for (size_t d = 0; d < devices_.size(); ++d) {
    const auto [row_begin, row_end] = ShareOf(matrix.rows(), d, devices_.size(), kPanelRows);
    if (row_begin < row_end) {
      Part part{.device = d, .id = {}, .begin = row_begin, .count = row_end - row_begin};
      const Status status = devices_[d]->Upload(RowsOfMatrix(matrix, row_begin, row_end), &part.id);
      if (status != Status::kOk) return status;
      shared->row_parts.push_back(part);
    }
    const auto [col_begin, col_end] = ShareOf(matrix.cols(), d, devices_.size(), kColumnStep);
    if (columns && col_begin < col_end) {
      Part part{.device = d, .id = {}, .begin = col_begin, .count = col_end - col_begin};
      const Status status =
          devices_[d]->Upload(ColumnsOfMatrix(matrix, col_begin, col_end), &part.id);
      if (status != Status::kOk) return status;
      shared->column_parts.push_back(part);
    }
  }
  return Status::kOk;
}

void MultiDevice::FreeParts(Shared* shared) noexcept {
  for (const Part& part : shared->row_parts) devices_[part.device]->Free(part.id);
  for (const Part& part : shared->column_parts) devices_[part.device]->Free(part.id);
  shared->row_parts.clear();
  shared->column_parts.clear();
  shared->scales.clear();
}

Status MultiDevice::Free(MatrixId id) noexcept {
  if (Find(id) == nullptr) return Status::kErrStale;
  Shared& shared = matrices_[id.index];
  FreeParts(&shared);
  // A slot whose generations are used up is never given out again.
  shared.used = ++shared.generation == 0;
  return Status::kOk;
}

Status MultiDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const auto shape_of = [&](MatrixId id) {
    const Shared* shared = Find(id);
    return shared == nullptr ? std::nullopt : std::optional(shared->shape);
  };
  Status status = ticket == nullptr ? Status::kErrAddr : CheckShapes(shape_of, ops);
  if (status == Status::kOk) {
    try {
      status = Run(ops);
    } catch (const std::bad_alloc&) {
      status = Status::kErrNoMem;
    }
  }
  if (status != Status::kOk) {
    book_.CountFault(status);
    return status;
  }
  *ticket = ++last_ticket_;
  return Status::kOk;
}

// Submit() returns after the work is done, so every ticket that it gave out is complete.
Status MultiDevice::Wait(Ticket ticket) noexcept {
  return ticket >= 1 && ticket <= last_ticket_ ? Status::kOk : Status::kErrAddr;
}

// Chains by rows wait together for their devices; before anything else, and before an op whose y
// another one writes in other shares, these finish.
Status MultiDevice::Run(std::span<const ProjectionOp> ops) {
  Status status = Status::kOk;
  size_t waiting = 0;  // first op that has not been run
  for (size_t begin = 0; begin < ops.size() && status == Status::kOk;) {
    size_t end = begin + 1;
    while (end < ops.size() && IsChained(ops[end].epilogue)) ++end;
    const auto chain = ops.subspan(begin, end - begin);
    const bool rows = AllShared(chain) && !(chain.size() == 1 && ByColumns(chain[0]));
    if (!rows || Conflicts(ops.subspan(waiting, begin - waiting), chain)) {
      status = Flush();
      waiting = begin;
    }
    if (status != Status::kOk) break;
    if (rows) {
      AddByRows(chain);
    } else {
      for (const ProjectionOp& op : chain) {
        status = ByColumns(op) ? RunByColumns(op) : RunAlone(op, chain.size() > 1);
        if (status != Status::kOk) break;
      }
      waiting = end;
    }
    begin = end;
  }
  if (status == Status::kOk) return Flush();
  for (std::vector<ProjectionOp>& part : part_ops_) part.clear();
  return status;
}

bool MultiDevice::AllShared(std::span<const ProjectionOp> chain) const noexcept {
  return std::all_of(chain.begin(), chain.end(),
                     [&](const ProjectionOp& op) { return Find(op.matrix)->shared_out; });
}

bool MultiDevice::ByColumns(const ProjectionOp& op) const noexcept {
  return !Find(op.matrix)->column_parts.empty() && op.x->kind == ActivationKind::kInt8Token;
}

bool MultiDevice::Conflicts(std::span<const ProjectionOp> waiting,
                            std::span<const ProjectionOp> chain) const noexcept {
  const uint32_t rows = Find(chain[0].matrix)->shape.rows;
  return std::any_of(waiting.begin(), waiting.end(), [&](const ProjectionOp& op) {
    const uint32_t op_rows = Find(op.matrix)->shape.rows;
    const bool same_shares =
        op.y == chain[0].y && op.y_stride == chain[0].y_stride && op_rows == rows;
    return !same_shares && op.x->tokens > 0 && chain[0].x->tokens > 0 &&
           RangesMeet(op, op_rows, chain[0], rows);
  });
}

void MultiDevice::AddByRows(std::span<const ProjectionOp> chain) {
  for (const ProjectionOp& op : chain) {
    for (const Part& part : Find(op.matrix)->row_parts) {
      ProjectionOp slice = op;
      slice.matrix = part.id;
      if (op.y != nullptr) slice.y += part.begin;
      if (op.bias != nullptr) slice.bias += part.begin;
      part_ops_[part.device].push_back(slice);
    }
  }
}

// All devices are given their work before any is waited for.
Status MultiDevice::Flush() {
  Status status = Status::kOk;
  const auto note = [&](Status of_device) {
    if (status == Status::kOk) status = of_device;
  };
  for (size_t d = 0; d < devices_.size(); ++d) {
    tickets_[d] = 0;
    if (part_ops_[d].empty()) continue;
    note(devices_[d]->Submit(part_ops_[d], &tickets_[d]));
  }
  for (size_t d = 0; d < devices_.size(); ++d) {
    if (tickets_[d] != 0) note(devices_[d]->Wait(tickets_[d]));
    part_ops_[d].clear();
  }
  return status;
}

// One op on its own; within a chain whose ops are not all on the same devices, the epilogue runs
// here.
Status MultiDevice::RunAlone(const ProjectionOp& op, bool chained) {
  if (!chained) {
    AddByRows({&op, 1});
    return Flush();
  }
  const uint32_t rows = Find(op.matrix)->shape.rows;
  staging_.resize(size_t{op.x->tokens} * rows);
  const ProjectionOp plain{.matrix = op.matrix, .x = op.x, .y = staging_.data(), .y_stride = rows};
  AddByRows({&plain, 1});
  const Status status = Flush();
  if (status == Status::kOk) Finish(op, rows);
  return status;
}

// staging_: [tokens, rows], what the epilogue is applied to.
void MultiDevice::Finish(const ProjectionOp& op, uint32_t rows) noexcept {
  for (uint32_t token = 0; token < op.x->tokens; ++token) {
    kernels_.floats.apply_epilogue(TileEpilogueOf(op.epilogue),
                                   staging_.data() + size_t{token} * rows, op.bias, rows,
                                   op.y + token * op.y_stride);
  }
}

Status MultiDevice::RunByColumns(const ProjectionOp& op) {
  const Shared& shared = *Find(op.matrix);
  const uint32_t rows = shared.shape.rows;
  const size_t size = size_t{op.x->tokens} * rows;
  std::vector<ColumnInput> inputs;
  inputs.reserve(shared.column_parts.size());
  staging_.resize(size);
  partial_.resize(size * shared.column_parts.size());
  for (const Part& part : shared.column_parts) {
    float* y = partial_.data() + inputs.size() * size;
    inputs.emplace_back(*op.x, part.begin, part.count);
    part_ops_[part.device].push_back(
        {.matrix = part.id, .x = &inputs.back().view, .y = y, .y_stride = rows});
  }
  const Status status = Flush();
  if (status != Status::kOk) return status;
  Reduce(op, shared);
  Finish(op, rows);
  return Status::kOk;
}

// Integer sums of all parts, then the scale, as on one device.
void MultiDevice::Reduce(const ProjectionOp& op, const Shared& shared) noexcept {
  const uint32_t rows = shared.shape.rows;
  const size_t size = size_t{op.x->tokens} * rows;
  for (uint32_t token = 0; token < op.x->tokens; ++token) {
    const float s = op.x->scales[token];
    for (uint32_t row = 0; row < rows; ++row) {
      const size_t at = size_t{token} * rows + row;
      int32_t total = 0;
      for (size_t part = 0; part < shared.column_parts.size(); ++part) {
        total += static_cast<int32_t>(partial_[part * size + at]);
      }
      const float w = shared.scales.size() == 1 ? shared.scales[0] : shared.scales[row];
      staging_[at] = static_cast<float>(total) * (w / s);
    }
  }
}

DeviceCounters MultiDevice::Counters() const noexcept {
  DeviceCounters sum = book_.Read();
  uint64_t gated = 0;
  uint64_t column_skip = 0;
  for (const auto& device : devices_) {
    const DeviceCounters counters = device->Counters();
    AddCounters(counters, &sum);
    gated = std::max(gated, counters.cycles_gated);
    column_skip = std::max(column_skip, counters.cycles_column_skip);
  }
  sum.cycles_gated = gated;
  sum.cycles_column_skip = column_skip;
  return sum;
}

size_t MultiDevice::resident_bytes() const noexcept {
  size_t bytes = 0;
  for (const auto& device : devices_) bytes += device->resident_bytes();
  return bytes;
}

PoolFacts MultiDevice::pool() const noexcept {
  PoolFacts facts = devices_.front()->pool();
  facts.bytes *= devices_.size();
  return facts;
}

Residency MultiDevice::residency(MatrixId id) const noexcept {
  const Shared* shared = Find(id);
  Residency furthest{.place = MatrixPlace::kHost};
  if (shared == nullptr) return furthest;
  for (const std::vector<Part>* parts : {&shared->row_parts, &shared->column_parts}) {
    for (const Part& part : *parts) {
      const Residency of_part = devices_[part.device]->residency(part.id);
      furthest.place = std::max(furthest.place, of_part.place);
      furthest.pinned = of_part.pinned;  // all parts or none
    }
  }
  return furthest;
}

void MultiDevice::Settle() noexcept {
  for (const auto& device : devices_) device->Settle();
}

// All parts or none.
Status MultiDevice::SetPinned(MatrixId id, bool pinned) noexcept {
  const Shared* shared = Find(id);
  if (shared == nullptr) return Status::kErrStale;
  const auto set = [&](bool value) {
    Status status = Status::kOk;
    for (const std::vector<Part>* parts : {&shared->row_parts, &shared->column_parts}) {
      for (const Part& part : *parts) {
        const Status of_part = devices_[part.device]->SetPinned(part.id, value);
        if (status == Status::kOk) status = of_part;
      }
    }
    return status;
  };
  const Status status = set(pinned);
  if (status != Status::kOk && pinned) set(false);
  return status;
}

bool MultiDevice::in_service() const noexcept {
  return std::all_of(devices_.begin(), devices_.end(),
                     [](const auto& device) { return device->in_service(); });
}

}  // namespace fabric
