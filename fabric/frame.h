#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "fabric/status.h"
#include "fabric/ternary_matrix.h"

namespace fabric {

// FrameDescriptor::packing_fmt.
inline constexpr uint16_t kPackingPt5 = 0;
inline constexpr uint16_t kPackingPt5Hardware = 1;

// FrameDescriptor::flags.
inline constexpr uint32_t kFrameRead = 1;
inline constexpr uint32_t kFrameWrite = 2;
inline constexpr uint32_t kFrameCoherent = 4;
inline constexpr uint32_t kFrameCritical = 8;  // fail when a hint is not understood
inline constexpr uint32_t kFramePinned = 16;

// FrameDescriptor::exec_hints: [7:0] kernel, [15:8] quantisation threshold, then single bits. FUSED
// is bit 31 and not 20 as in the public header, where it collides with the convolution stride.
inline constexpr uint32_t kHintKernelMask = 0xFF;
inline constexpr uint32_t kKernelNop = 0x00;  // of weights: no kernel is asked for
inline constexpr uint32_t kKernelTgemm = 0x06;
inline constexpr uint32_t kHintBias = 1U << 16;
inline constexpr uint32_t kHintZeroSkip = 1U << 17;
inline constexpr uint32_t kHintFreeNegation = 1U << 18;
inline constexpr uint32_t kHintWeightBroadcast = 1U << 19;
inline constexpr uint32_t kHintFused = 1U << 31;

// What the C ABI passes for a frame: 48 bytes, little-endian, no padding.
struct FrameDescriptor {
  uint64_t base_addr = 0;  // set by the device
  uint32_t frame_len = 0;  // trits
  uint32_t rows = 0;
  uint32_t cols = 0;
  uint16_t packing_fmt = kPackingPt5;
  uint16_t lane_count = 15;
  uint32_t lane_stride = 0;  // trits from one row to the next
  uint32_t flags = 0;
  uint32_t exec_hints = 0;
  uint8_t version = 1;
  uint8_t tile_mask = 0x0F;
  uint8_t reserved[10] = {};
};
static_assert(sizeof(FrameDescriptor) == 48);
static_assert(offsetof(FrameDescriptor, frame_len) == 8);
static_assert(offsetof(FrameDescriptor, rows) == 12);
static_assert(offsetof(FrameDescriptor, cols) == 16);
static_assert(offsetof(FrameDescriptor, packing_fmt) == 20);
static_assert(offsetof(FrameDescriptor, lane_count) == 22);
static_assert(offsetof(FrameDescriptor, lane_stride) == 24);
static_assert(offsetof(FrameDescriptor, flags) == 28);
static_assert(offsetof(FrameDescriptor, exec_hints) == 32);
static_assert(offsetof(FrameDescriptor, version) == 36);
static_assert(offsetof(FrameDescriptor, tile_mask) == 37);
static_assert(offsetof(FrameDescriptor, reserved) == 38);

// A ternary matrix as a frame: its trits row after row without padding, in PT-5, and its scales.
struct TernaryFrame {
  FrameDescriptor descriptor;
  std::vector<uint8_t> bytes;  // Pt5Bytes(rows * cols)
  ScaleKind scale_kind = ScaleKind::kTensor;
  uint32_t group = 0;         // columns per scale when kGroup
  std::vector<float> scales;  // [1], [rows] or [rows, groups]
};

// packing_fmt: one of the constants above. Errors: std::invalid_argument when the format is unknown
// or the trits do not fit into frame_len.
TernaryFrame ToFrame(const TernaryMatrix& matrix, uint16_t packing_fmt);

// kErrUnsupported when a frame of weights asks for what a product of it cannot do: another kernel,
// a bias, bytes that are reserved, or with kFrameCritical any hint that is not known here.
Status CheckHints(const FrameDescriptor& descriptor);

// The same matrix in a layout that kernels stream. Nothing in the frame is trusted:
//   kErrUnsupported  version, packing_fmt or a shape that TernaryMatrix does not take
//   kErrAddr         lengths, strides or counts that contradict each other
//   kErrPack         an invalid byte
Status FromFrame(const TernaryFrame& frame, TernaryLayout layout,
                 std::optional<TernaryMatrix>* matrix);

}  // namespace fabric
