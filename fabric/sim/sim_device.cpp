#include "fabric/sim/sim_device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <utility>

#include "fabric/panel_layout.h"
#include "fabric/seconds_since.h"
#include "fabric/sparse/sparse_lines.h"

namespace fabric::sim {
namespace {

// Below this many multiply-adds waking the team costs more than it saves (a few microseconds).
constexpr uint64_t kInlineWork = 200'000;
// Pieces per worker, so that one that loses its core for a while leaves little behind.
constexpr size_t kPiecesPerWorker = 6;

// Matrices with a larger share of non-zeros are not worth measuring for.
constexpr double kDensestSparse = 0.25;
// Times are measured to some 10 %.
constexpr double kSureOf = 0.9;
// Tables of fewer bytes are made by the calling thread.
constexpr size_t kInlineTableBytes = size_t{64} << 10;
// Dense multiply-adds that take as long as one entry of a sparse matrix.
constexpr uint64_t kWorkPerEntry = 4;

// What one token costs, for comparing with kInlineWork.
uint64_t WorkOf(const Matrix& matrix) {
  const TernaryMatrix* ternary = AsTernary(matrix);
  if (ternary != nullptr && ternary->layout() == TernaryLayout::kSparse) {
    return kWorkPerEntry * ternary->panels().size();
  }
  return uint64_t{RowsOf(matrix)} * ColsOf(matrix);
}

// [begin, end) of the floats that an op writes.
struct OutputRange {
  const float* begin;
  const float* end;
  size_t stride;
  size_t rows;
};

OutputRange OutputOf(const ProjectionOp& op, uint32_t rows) {
  return {op.y, op.y + (op.x->tokens - 1) * op.y_stride + rows, op.y_stride, rows};
}

bool RangesMeet(const float* a_begin, const float* a_end, const float* b_begin,
                const float* b_end) {
  return std::less<>()(a_begin, b_end) && std::less<>()(b_begin, a_end);
}

// Outputs side by side in rows of one stride (Q, K and V in one buffer) do not meet.
bool OutputsMeet(const OutputRange& a, const OutputRange& b) {
  if (!RangesMeet(a.begin, a.end, b.begin, b.end)) return false;
  if (a.stride != b.stride) return true;
  const bool a_first = std::less<>()(a.begin, b.begin);
  const OutputRange& low = a_first ? a : b;
  const OutputRange& high = a_first ? b : a;
  const size_t offset = static_cast<size_t>(high.begin - low.begin) % low.stride;
  return offset < low.rows || offset + high.rows > low.stride;
}

// Sums of codes per scale group: [tokens, scales_per_row].
void SumGroups(const TernaryMatrix& matrix, const ActivationView& x, int32_t* out) {
  for (uint32_t token = 0; token < x.tokens; ++token) {
    const int8_t* codes = x.codes + token * x.code_stride;
    for (uint32_t begin = 0; begin < matrix.cols(); begin += matrix.group()) {
      const uint32_t end = std::min(begin + matrix.group(), matrix.cols());
      *out++ = std::accumulate(codes + begin, codes + end, int32_t{0});
    }
  }
}

}  // namespace

SimDevice::SimDevice(std::string_view name, const FabricOptions& options,
                     const kernels::KernelTable& kernels, WorkerTeam* team)
    : name_(name), options_(options), kernels_(kernels), team_(team) {
  const size_t workers = team == nullptr ? 1 : static_cast<size_t>(team->size());
  scratch_ = AlignedBuffer<float>(workers * kTileFloats);
}

LayoutChoice SimDevice::PreferredLayout(const TernaryUse& use) {
  if (options_.sparse == SparseChoice::kAlways) return {TernaryLayout::kSparse, "asked for"};
  const LayoutChoice dense = DenseLayout(use.activation);
  const bool slow = use.density > kDensestSparse || kernels_.isa == Isa::kScalar ||
                    use.activation != ActivationKind::kInt8Token || use.scales == ScaleKind::kGroup;
  return slow || options_.sparse == SparseChoice::kNever ? dense : SparseOr(use, dense);
}

std::string SimDevice::LayoutRule() const {
  std::string rule = "kernels " + std::string(IsaName(kernels_.isa)) + "; layout " +
                     std::string(options_.layout ? LayoutName(*options_.layout) : "measured") +
                     "; sparse " + std::to_string(static_cast<int>(options_.sparse));
  if (team_ != nullptr) rule += "; threads " + std::to_string(team_->size());
  return rule;
}

LayoutChoice SimDevice::SparseOr(const TernaryUse& use, const LayoutChoice& dense) {
  if (!sparse_) sparse_ = MeasureSparse(kernels_, team_, dense.layout);
  const bool sparse = use.density <= kSureOf * sparse_->both();
  char reason[160];
  std::snprintf(reason, sizeof reason,
                "non-zeros alone are as fast as %s at %.1f %% zeros for one token and %.1f %% for "
                "prompts, so matrices of at least %.1f %% are held so",
                std::string(LayoutName(dense.layout)).c_str(), 100 * (1 - sparse_->one_token),
                100 * (1 - sparse_->prompt), 100 * (1 - kSureOf * sparse_->both()));
  return {sparse ? TernaryLayout::kSparse : dense.layout, reason};
}

LayoutChoice SimDevice::DenseLayout(ActivationKind activation) {
  if (options_.layout) return {*options_.layout, "asked for"};
  // Nobody waits for the speed of the scalar kernels.
  if (kernels_.isa == Isa::kScalar) return {TernaryLayout::kPanel2Bit, "the kernels are scalar"};
  std::optional<LayoutChoice>& measured =
      measured_[activation == ActivationKind::kInt8Block ? 1 : 0];
  if (!measured) measured = MeasureLayouts(kernels_, team_, activation);
  return *measured;
}

Status SimDevice::Upload(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), false, id);
}

Status SimDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), true, id);
}

Status SimDevice::Store(Matrix matrix, bool on_host, MatrixId* id) {
  if (id == nullptr) return Status::kErrAddr;
  const Status status = PrepareMatrix(&matrix, options_.layout);
  if (status != Status::kOk) return status;
  *id = store_.Add(std::move(matrix), on_host);
  resident_bytes_.store(store_.resident_bytes());
  return Status::kOk;
}

Status SimDevice::Free(MatrixId id) noexcept {
  const Status status = store_.Remove(id);
  resident_bytes_.store(store_.resident_bytes());
  return status;
}

bool SimDevice::OnFabric(MatrixId id) const noexcept {
  return IsTrits(*store_.Find(id)) && !store_.OnHost(id);
}

Residency SimDevice::residency(MatrixId id) const noexcept {
  const bool on_fabric = store_.Find(id) != nullptr && OnFabric(id);
  return {.place = on_fabric ? MatrixPlace::kDevice : MatrixPlace::kHost};
}

Status SimDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const Status status = ticket == nullptr ? Status::kErrAddr : CheckOps(store_, ops);
  if (status != Status::kOk) {
    book_.CountFault(status);
    return status;
  }
  try {
    RunWaves(ops);
  } catch (const std::bad_alloc&) {
    book_.CountFault(Status::kErrNoMem);
    return Status::kErrNoMem;
  }
  *ticket = ++last_ticket_;
  return Status::kOk;
}

// Submit() returns after the work is done, so every ticket that it gave out is complete.
Status SimDevice::Wait(Ticket ticket) noexcept {
  return ticket >= 1 && ticket <= last_ticket_ ? Status::kOk : Status::kErrAddr;
}

// Ops run together until one needs what another of the same wave writes.
void SimDevice::RunWaves(std::span<const ProjectionOp> ops) {
  const auto start = std::chrono::steady_clock::now();
  PrepareOps(ops);
  wave_.clear();
  for (size_t begin = 0; begin < ops.size();) {
    const size_t end = ChainEnd(ops, begin);
    if (ops[begin].x->tokens > 0) {
      if (DependsOnWave(ops, begin, end)) {
        RunWave(ops);
        wave_.clear();
      }
      AddChain(ops, begin, end);
    }
    begin = end;
  }
  RunWave(ops);
  const double seconds = SecondsSince(start);
  Account(ops, seconds);
}

void SimDevice::PrepareOps(std::span<const ProjectionOp> ops) {
  states_.clear();
  size_t sums = 0;
  size_t counts = 0;
  size_t table_bytes = 0;
  for (const ProjectionOp& op : ops) {
    const Matrix* matrix = store_.Find(op.matrix);
    const OpState state{
        .matrix = matrix, .on_fabric = OnFabric(op.matrix), .group_sums = sums, .activity = counts};
    if (NeedsGroupSums(*state.matrix, *op.x)) {
      sums += size_t{op.x->tokens} * AsTernary(*state.matrix)->scales_per_row();
    }
    if (state.on_fabric) counts += TritsOf(*matrix).size() * op.x->tokens;
    states_.push_back(state);
    states_.back().tables = AddTables(ops, states_.size() - 1, &table_bytes);
  }
  if (group_sums_.size() < sums) group_sums_.resize(sums);
  if (activity_.size() < counts) activity_.resize(counts);
  if (tables_.size() < table_bytes) tables_ = AlignedBuffer<uint8_t>(table_bytes);
  size_t made = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (NeedsTables(*states_[i].matrix, *ops[i].x) && states_[i].tables == made) {
      MakeTables(*ops[i].x, tables_.data() + made);
      made += ops[i].x->tokens * sparse::TableBytes(ops[i].x->cols);
    }
  }
  for (size_t i = 0; i < ops.size(); ++i) {
    if (!NeedsGroupSums(*states_[i].matrix, *ops[i].x)) continue;
    SumGroups(*AsTernary(*states_[i].matrix), *ops[i].x,
              group_sums_.data() + states_[i].group_sums);
  }
}

// Where the tables of an op are: with those of an earlier op of the same input, or at the end.
size_t SimDevice::AddTables(std::span<const ProjectionOp> ops, size_t op, size_t* bytes) const {
  const ActivationView& x = *ops[op].x;
  if (!NeedsTables(*states_[op].matrix, x)) return 0;
  for (size_t i = 0; i < op; ++i) {
    if (ops[i].x == &x && NeedsTables(*states_[i].matrix, x)) return states_[i].tables;
  }
  const size_t begin = *bytes;
  *bytes += x.tokens * sparse::TableBytes(x.cols);
  return begin;
}

void SimDevice::MakeTables(const ActivationView& x, uint8_t* tables) {
  const size_t bytes = sparse::TableBytes(x.cols);
  const auto make = [&](int, size_t begin, size_t end) {
    for (size_t token = begin; token < end; ++token) {
      sparse::MakeTable(x.codes + token * x.code_stride, x.cols, tables + token * bytes);
    }
  };
  if (team_ == nullptr || x.tokens * bytes < kInlineTableBytes) {
    make(0, 0, x.tokens);
  } else {
    team_->ParallelFor(x.tokens, 1, std::ref(make));
  }
}

PreparedInput SimDevice::InputOf(const OpState& state) const {
  return {.group_sums = group_sums_.data() + state.group_sums,
          .tables = tables_.data() + state.tables};
}

size_t SimDevice::ChainEnd(std::span<const ProjectionOp> ops, size_t begin) const {
  size_t end = begin + 1;
  while (end < ops.size() && IsChained(ops[end].epilogue)) ++end;
  return end;
}

void SimDevice::AddChain(std::span<const ProjectionOp> ops, size_t begin, size_t end) {
  Chain chain{.op_begin = begin,
              .op_end = end,
              .rows = RowsOf(*states_[begin].matrix),
              .tokens = ops[begin].x->tokens};
  const size_t workers = team_ == nullptr ? 1 : static_cast<size_t>(team_->size());
  const size_t wanted =
      (chain.rows + workers * kPiecesPerWorker - 1) / (workers * kPiecesPerWorker);
  const size_t rounded = (wanted + kPanelRows - 1) / kPanelRows * kPanelRows;
  chain.piece_rows = static_cast<uint32_t>(std::min<size_t>(rounded, kTileRows));
  chain.pieces = (chain.rows + chain.piece_rows - 1) / chain.piece_rows;
  if (!wave_.empty()) chain.piece_begin = wave_.back().piece_begin + wave_.back().pieces;
  wave_.push_back(chain);
}

bool SimDevice::DependsOnWave(std::span<const ProjectionOp> ops, size_t begin, size_t end) const {
  for (const Chain& chain : wave_) {
    const OutputRange written = OutputOf(ops[chain.op_begin], chain.rows);
    for (size_t i = begin; i < end; ++i) {
      if (OutputsMeet(written, OutputOf(ops[i], RowsOf(*states_[i].matrix)))) return true;
      const ActivationView& x = *ops[i].x;
      if (x.kind != ActivationKind::kFloat) continue;
      const float* read_end = x.values + (x.tokens - 1) * x.value_stride + x.cols;
      if (RangesMeet(written.begin, written.end, x.values, read_end)) return true;
    }
  }
  return false;
}

void SimDevice::RunWave(std::span<const ProjectionOp> ops) {
  if (wave_.empty()) return;
  uint64_t work = 0;
  for (const Chain& chain : wave_) {
    for (size_t i = chain.op_begin; i < chain.op_end; ++i) {
      work += WorkOf(*states_[i].matrix) * chain.tokens;
    }
  }
  const size_t pieces = wave_.back().piece_begin + wave_.back().pieces;
  const auto run = [&](int worker, size_t begin, size_t end) {
    float* scratch = scratch_.data() + static_cast<size_t>(worker) * kTileFloats;
    for (size_t piece = begin; piece < end; ++piece) RunPiece(ops, piece, scratch);
  };
  if (team_ == nullptr || work < kInlineWork) {
    run(0, 0, pieces);
  } else {
    team_->ParallelFor(pieces, 1, std::ref(run));
  }
}

void SimDevice::RunPiece(std::span<const ProjectionOp> ops, size_t piece, float* scratch) noexcept {
  const Chain* chain = wave_.data();
  while (piece >= chain->piece_begin + chain->pieces) ++chain;
  const size_t index = piece - chain->piece_begin;
  const auto row_begin = static_cast<uint32_t>(index * chain->piece_rows);
  const uint32_t row_end = std::min(row_begin + chain->piece_rows, chain->rows);
  for (uint32_t token = 0; token < chain->tokens; token += kTileTokens) {
    const uint32_t token_end = std::min(token + kTileTokens, chain->tokens);
    for (size_t i = chain->op_begin; i < chain->op_end; ++i) {
      ProjectTile(kernels_, *states_[i].matrix, ops[i], InputOf(states_[i]), row_begin, row_end,
                  token, token_end, scratch);
    }
  }
  if (!options_.account) return;
  // The account of a token is made by whoever has the piece that its number falls on.
  for (size_t token = index; token < chain->tokens; token += chain->pieces) {
    for (size_t i = chain->op_begin; i < chain->op_end; ++i) {
      CountActivity(ops[i], states_[i], static_cast<uint32_t>(token));
    }
  }
}

void SimDevice::CountActivity(const ProjectionOp& op, const OpState& state,
                              uint32_t token) noexcept {
  if (!state.on_fabric) return;
  size_t at = state.activity + token;
  for (const TernaryMatrix& plane : TritsOf(*state.matrix)) {
    activity_[at] = kernels_.ternary.count_activity(
        op.x->codes + token * op.x->code_stride, plane.nonzeros_per_column().data(), plane.cols());
    at += op.x->tokens;
  }
}

// Wall time is shared between ops on the Fabric and others by the bytes that they streamed.
void SimDevice::Account(std::span<const ProjectionOp> ops, double seconds) {
  DeviceCounters delta;
  for (size_t i = 0; i < ops.size(); ++i) {
    const uint32_t tokens = ops[i].x->tokens;
    if (tokens == 0) continue;
    const uint64_t bytes = BytesOf(*states_[i].matrix);
    if (!states_[i].on_fabric) {
      delta.dense_bytes += bytes;
      continue;
    }
    if (options_.account) AccountPlanes(states_[i], tokens, &delta);
    delta.weight_bytes += bytes;
  }
  const uint64_t bytes = delta.weight_bytes + delta.dense_bytes;
  if (bytes > 0) {
    delta.fabric_seconds =
        seconds * (static_cast<double>(delta.weight_bytes) / static_cast<double>(bytes));
    delta.host_seconds = seconds - delta.fabric_seconds;
  }
  book_.Add(delta);
}

// Each plane is a product of its own.
void SimDevice::AccountPlanes(const OpState& state, uint32_t tokens, DeviceCounters* delta) const {
  const kernels::ActivityCount* counts = activity_.data() + state.activity;
  for (const TernaryMatrix& plane : TritsOf(*state.matrix)) {
    kernels::ActivityCount activity;
    for (uint32_t token = 0; token < tokens; ++token) {
      activity.active_ops += counts[token].active_ops;
      activity.active_columns += counts[token].active_columns;
    }
    counts += tokens;
    AddCounters(
        AccountOf(options_.geometry, options_.energy, plane.rows(), plane.cols(), tokens, activity),
        delta);
  }
}

}  // namespace fabric::sim
