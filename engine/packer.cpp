#include "engine/packer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/record.h"
#include "engine/tensor_reading.h"
#include "fabric/coarse_screen.h"
#include "fabric/parallel.h"
#include "fabric/strict_screen.h"
#include "gguf/codec.h"

namespace engine {
namespace {

// The scales of a ternary tensor, reduced to the fewest that say the same.
struct CollapsedScales {
  fabric::ScaleKind kind = fabric::ScaleKind::kTensor;
  std::vector<float> scales;  // kTensor: [1], kRow: [rows], kGroup: [rows, scales_per_row]
  uint64_t zeros = 0;         // trits that are 0
};

// Scales and zero counts of every group, as decoded.
struct GroupTable {
  std::vector<float> scales;    // [rows, scales_per_row]
  std::vector<uint8_t> active;  // parallel: 1 when some trit of the group is not 0
  uint64_t zeros = 0;
};

// In bytes first, a vector of them at a time: a counter of 64 bits would take eight times as long.
uint64_t CountZeros(std::span<const int8_t> trits) {
  constexpr size_t kLanes = 32;
  constexpr size_t kRounds = 255;
  uint64_t zeros = 0;
  while (trits.size() >= kLanes) {
    const size_t rounds = std::min(kRounds, trits.size() / kLanes);
    std::array<uint8_t, kLanes> counts = {};
    for (size_t round = 0; round < rounds; ++round) {
      const int8_t* trit = trits.data() + round * kLanes;
      for (size_t i = 0; i < kLanes; ++i) {
        counts[i] = static_cast<uint8_t>(counts[i] + (trit[i] == 0 ? 1 : 0));
      }
    }
    zeros += std::accumulate(counts.begin(), counts.end(), uint64_t{0});
    trits = trits.subspan(rounds * kLanes);
  }
  return zeros + static_cast<uint64_t>(std::count(trits.begin(), trits.end(), int8_t{0}));
}

GroupTable ReadGroups(const gguf::TensorInfo& info, const gguf::TernaryDecoder& decoder,
                      const RowRange& rows) {
  const size_t per_row = decoder.scales_per_row();
  const size_t group = decoder.group();
  GroupTable table;
  table.scales.resize(rows.count * per_row);
  table.active.resize(rows.count * per_row);
  std::atomic<uint64_t> zeros = 0;
  fabric::ParallelFor(rows.count, kDecodedRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(info.cols());
    uint64_t task_zeros = 0;
    for (size_t row = begin; row < end; ++row) {
      decoder.DecodeRow(rows.first + row, trits,
                        std::span(table.scales).subspan(row * per_row, per_row));
      for (size_t g = 0; g < per_row; ++g) {
        const size_t first = g * group;
        const size_t last = std::min(first + group, trits.size());
        const uint64_t group_zeros = CountZeros(std::span(trits).subspan(first, last - first));
        table.active[row * per_row + g] = group_zeros < last - first ? 1 : 0;
        task_zeros += group_zeros;
      }
    }
    zeros += task_zeros;
  });
  table.zeros = zeros;
  return table;
}

// The one scale of groups [begin, end) that are active, 0 when none is; nullopt when they differ.
std::optional<float> CommonScale(const GroupTable& table, size_t begin, size_t end) {
  std::optional<float> common;
  for (size_t i = begin; i < end; ++i) {
    if (table.active[i] == 0) continue;
    if (!common) common = table.scales[i];
    if (table.scales[i] != *common) return std::nullopt;
  }
  return common.value_or(0.0F);
}

CollapsedScales CollapseScales(GroupTable table, size_t rows, size_t per_row) {
  CollapsedScales collapsed;
  collapsed.zeros = table.zeros;
  if (const auto common = CommonScale(table, 0, table.scales.size())) {
    collapsed.scales = {*common};
    return collapsed;
  }
  collapsed.kind = fabric::ScaleKind::kRow;
  for (size_t row = 0; row < rows; ++row) {
    const auto common = CommonScale(table, row * per_row, (row + 1) * per_row);
    if (!common) {
      collapsed.kind = fabric::ScaleKind::kGroup;
      collapsed.scales = std::move(table.scales);
      return collapsed;
    }
    collapsed.scales.push_back(*common);
  }
  return collapsed;
}

fabric::TernaryMatrix FillTernary(const gguf::TernaryDecoder& decoder, const RowRange& rows,
                                  uint32_t cols, const CollapsedScales& collapsed,
                                  fabric::TernaryLayout layout) {
  const size_t per_row = decoder.scales_per_row();
  if (layout == fabric::TernaryLayout::kSparse) {
    return fabric::TernaryMatrix::PackSparse(
        rows.count, cols, collapsed.kind, decoder.group(), collapsed.scales,
        [&](uint32_t row, std::span<int8_t> trits) {
          std::vector<float> file_scales(per_row);
          decoder.DecodeRow(rows.first + row, trits, file_scales);
        });
  }
  fabric::TernaryMatrix matrix(rows.count, cols, collapsed.kind, decoder.group(), layout);
  fabric::ParallelFor(rows.count, kDecodedRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(cols);
    std::vector<float> file_scales(per_row);
    const std::span<const float> scales(collapsed.scales);
    for (size_t row = begin; row < end; ++row) {
      decoder.DecodeRow(rows.first + row, trits, file_scales);
      const auto of_row = collapsed.kind == fabric::ScaleKind::kTensor ? scales
                          : collapsed.kind == fabric::ScaleKind::kRow
                              ? scales.subspan(row, 1)
                              : scales.subspan(row * per_row, per_row);
      matrix.SetRow(static_cast<uint32_t>(row), trits, of_row);
    }
  });
  return matrix;
}

// The name of a matrix in the cache: a stack has many.
std::string NameOf(const gguf::TensorInfo& info, const RowRange& rows) {
  return rows.count == info.rows() ? info.name : info.name + "#" + std::to_string(rows.first);
}

// What a ternary matrix has beside its memory.
std::string FactsOf(const PackedTernary& packed) {
  RecordWriter record;
  record.Add(static_cast<uint8_t>(packed.matrix.layout()));
  record.Add(static_cast<uint8_t>(packed.matrix.scale_kind()));
  record.Add(packed.matrix.group());
  record.Add(packed.zeros);
  record.AddText(packed.reason);
  return {reinterpret_cast<const char*>(record.bytes().data()), record.bytes().size()};
}

// A matrix of such facts, to be filled. Errors: std::out_of_range, std::invalid_argument.
PackedTernary BlankTernary(const std::string& facts, uint32_t rows, uint32_t cols) {
  RecordReader record(std::as_bytes(std::span(facts)));
  const auto layout = record.Take<uint8_t>();
  const auto kind = record.Take<uint8_t>();
  if (layout > static_cast<uint8_t>(fabric::TernaryLayout::kPanelPt5) ||
      kind > static_cast<uint8_t>(fabric::ScaleKind::kGroup)) {
    throw std::invalid_argument("no such layout or kind of scales");
  }
  const auto group = record.Take<uint32_t>();
  const auto zeros = record.Take<uint64_t>();
  return {.matrix = {rows, cols, static_cast<fabric::ScaleKind>(kind), group,
                     static_cast<fabric::TernaryLayout>(layout)},
          .zeros = zeros,
          .reason = record.TakeText()};
}

}  // namespace

PackedTernary Packer::Ternary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                              fabric::ActivationKind activation) {
  const std::string name = NameOf(info, rows);
  if (const auto facts = cache_.FindFacts(name)) {
    try {
      PackedTernary packed = BlankTernary(*facts, rows.count, static_cast<uint32_t>(info.cols()));
      cache_.Read(name, packed.matrix.Memory());
      return packed;
    } catch (const std::logic_error& error) {
      throw PackedCacheError("The packed cache has bad facts of " + name + ": " + error.what() +
                             ".");
    }
  }
  PackedTernary packed = PackTernary(info, rows, factor, activation);
  // One of non-zeros alone says where its lines begin, so it is not believed from a file.
  if (packed.matrix.layout() != fabric::TernaryLayout::kSparse) {
    packed.matrix.CountNonZeros();
    cache_.Keep(name, FactsOf(packed), packed.matrix.Memory());
  }
  return packed;
}

PackedTernary Packer::PackTernary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                                  fabric::ActivationKind activation) {
  const gguf::TernaryDecoder decoder(info, file_.TensorBytes(info), file_.options());
  const size_t per_row = decoder.scales_per_row();
  CollapsedScales collapsed = CollapseScales(ReadGroups(info, decoder, rows), rows.count, per_row);
  for (float& scale : collapsed.scales) {
    scale *= factor;
    if (!std::isfinite(scale)) {
      throw ModelError("Tensor " + info.name + " has a scale that is not finite.");
    }
  }
  const auto cols = static_cast<uint32_t>(info.cols());
  const double weights = static_cast<double>(rows.count) * cols;
  const double density = 1.0 - static_cast<double>(collapsed.zeros) / weights;
  fabric::LayoutChoice choice = device_.PreferredLayout({activation, collapsed.kind, density});
  return {.matrix = FillTernary(decoder, rows, cols, collapsed, choice.layout),
          .zeros = collapsed.zeros,
          .reason = std::move(choice.reason)};
}

template <typename Blank, typename Make>
auto Packer::ReadOrMake(const std::string& name, const Blank& blank, const Make& make) {
  if (cache_.FindFacts(name)) {
    auto read = blank();
    cache_.Read(name, read.Memory());
    return read;
  }
  auto made = make();
  cache_.Keep(name, {}, made.Memory());
  return made;
}

fabric::QuantizedMatrix Packer::Quantized(const gguf::TensorInfo& info, const RowRange& rows,
                                          fabric::QuantizedType type) {
  const auto cols = static_cast<uint32_t>(info.cols());
  return ReadOrMake(
      NameOf(info, rows), [&] { return fabric::QuantizedMatrix(type, rows.count, cols); },
      [&] { return ReadQuantized(file_, info, rows.first, rows.count, type); });
}

fabric::RowSketch Packer::StrictSketch(const fabric::QuantizedMatrix& matrix) {
  return ReadOrMake(
      "head#strict", [&] { return fabric::StrictScreen::Blank(matrix); },
      [&] { return fabric::StrictScreen::Measure(matrix); });
}

fabric::RowSketch Packer::CoarseSketch(const fabric::Matrix& matrix) {
  return ReadOrMake(
      "head#screened", [&] { return fabric::CoarseScreen::Blank(matrix); },
      [&] { return fabric::CoarseScreen::Measure(matrix); });
}

}  // namespace engine
