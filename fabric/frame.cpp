#include "fabric/frame.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>

#include "fabric/matrix_store.h"
#include "fabric/pt5.h"

namespace fabric {
namespace {

constexpr uint8_t kVersion = 1;

bool KnownPacking(uint16_t format) {
  return format == kPackingPt5 || format == kPackingPt5Hardware;
}

Pt5Alphabet AlphabetOf(uint16_t format) {
  return format == kPackingPt5Hardware ? Pt5Alphabet::kHardware : Pt5Alphabet::kCanonical;
}

// Numbers of a frame that must agree with each other, in 64 bits so that none wraps.
bool LengthsAgree(const TernaryFrame& frame) {
  const FrameDescriptor& d = frame.descriptor;
  const uint64_t trits = uint64_t{d.rows} * d.cols;
  return d.frame_len == trits && d.lane_stride == d.cols && frame.bytes.size() == Pt5Bytes(trits);
}

size_t ScaleCount(const TernaryMatrix& matrix) {
  if (matrix.scale_kind() == ScaleKind::kTensor) return 1;
  return size_t{matrix.rows()} * matrix.scales_per_row();
}

}  // namespace

TernaryFrame ToFrame(const TernaryMatrix& matrix, uint16_t packing_fmt) {
  const uint64_t trits = uint64_t{matrix.rows()} * matrix.cols();
  if (!KnownPacking(packing_fmt)) {
    throw std::invalid_argument("The packing format " + std::to_string(packing_fmt) +
                                " is not known; expected 0 (PT-5) or 1 (PT-5, hardware alphabet).");
  }
  if (trits > std::numeric_limits<uint32_t>::max()) {
    throw std::invalid_argument("A frame holds fewer than 2^32 trits, not " +
                                std::to_string(trits) + ".");
  }
  TernaryFrame frame;
  frame.descriptor.frame_len = static_cast<uint32_t>(trits);
  frame.descriptor.rows = matrix.rows();
  frame.descriptor.cols = matrix.cols();
  frame.descriptor.packing_fmt = packing_fmt;
  frame.descriptor.lane_stride = matrix.cols();
  frame.scale_kind = matrix.scale_kind();
  frame.group = matrix.group();
  frame.scales = matrix.CopyScales();
  std::vector<int8_t> all(trits);
  for (uint32_t row = 0; row < matrix.rows(); ++row) {
    matrix.GetRow(row, std::span(all).subspan(size_t{row} * matrix.cols(), matrix.cols()));
  }
  frame.bytes.resize(Pt5Bytes(trits));
  PackPt5(all, AlphabetOf(packing_fmt), frame.bytes);
  return frame;
}

Status CheckHints(const FrameDescriptor& descriptor) {
  constexpr uint32_t kKnown =
      kHintKernelMask | kHintZeroSkip | kHintFreeNegation | kHintWeightBroadcast | kHintFused;
  const uint32_t kernel = descriptor.exec_hints & kHintKernelMask;
  const bool critical = (descriptor.flags & kFrameCritical) != 0;
  if (kernel != kKernelNop && kernel != kKernelTgemm) return Status::kErrUnsupported;
  if ((descriptor.exec_hints & kHintBias) != 0) return Status::kErrUnsupported;
  if (critical && (descriptor.exec_hints & ~kKnown) != 0) return Status::kErrUnsupported;
  const auto& reserved = descriptor.reserved;
  const bool clear =
      std::all_of(std::begin(reserved), std::end(reserved), [](uint8_t byte) { return byte == 0; });
  return clear ? Status::kOk : Status::kErrUnsupported;
}

Status FromFrame(const TernaryFrame& frame, TernaryLayout layout,
                 std::optional<TernaryMatrix>* matrix) {
  const FrameDescriptor& d = frame.descriptor;
  if (d.version != kVersion || !KnownPacking(d.packing_fmt)) return Status::kErrUnsupported;
  if (!LengthsAgree(frame)) return Status::kErrAddr;
  std::vector<int8_t> trits(d.frame_len);
  const Status status = UnpackPt5(frame.bytes, AlphabetOf(d.packing_fmt), trits);
  if (status != Status::kOk) return status;
  try {
    const bool sparse = layout == TernaryLayout::kSparse;
    TernaryMatrix result(d.rows, d.cols, frame.scale_kind, frame.group,
                         sparse ? TernaryLayout::kPanel2Bit : layout);
    if (frame.scales.size() != ScaleCount(result)) return Status::kErrAddr;
    const size_t per_row = result.scales_per_row();
    for (uint32_t row = 0; row < d.rows; ++row) {
      const size_t first = frame.scale_kind == ScaleKind::kTensor ? 0 : row * per_row;
      result.SetRow(row, std::span(trits).subspan(size_t{row} * d.cols, d.cols),
                    std::span(frame.scales).subspan(first, per_row));
    }
    matrix->emplace(sparse ? CopyTernary(result, layout) : std::move(result));
  } catch (const std::invalid_argument&) {
    return Status::kErrUnsupported;
  }
  return Status::kOk;
}

}  // namespace fabric
