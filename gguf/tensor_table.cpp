#include "gguf/tensor_table.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "gguf/error.h"
#include "gguf/quoted.h"
#include "gguf/type_layout.h"

namespace gguf {
namespace {

struct RefusedType {
  uint32_t id;
  std::string_view why;  // completes "tensor x is of type ..."
};

// Types that exist but cannot be read, each with what its owner can do about it.
constexpr std::array kRefusedTypes = {
    RefusedType{37, "37 (I8_S), which holds activations only: convert the model again"},
    RefusedType{38,
                "38 (TL1), whose weights are permuted by a tiling that the file does not record: "
                "use the model's I2_S, TQ1_0 or TQ2_0 file"},
    RefusedType{9, "Q8_1, which is not a storage format: use Q8_0"},
    RefusedType{15, "Q8_K, which is not a storage format: use Q8_0"},
    RefusedType{16, "IQ2_XXS, which is not supported: use a Q or TQ file"},
    RefusedType{17, "IQ2_XS, which is not supported: use a Q or TQ file"},
    RefusedType{18, "IQ3_XXS, which is not supported: use a Q or TQ file"},
    RefusedType{19, "IQ1_S, which is not supported: use a Q or TQ file"},
    RefusedType{21, "IQ3_S, which is not supported: use a Q or TQ file"},
    RefusedType{22, "IQ2_S, which is not supported: use a Q or TQ file"},
    RefusedType{24, "I8, which is not a weight format: expected a float or quantised type"},
    RefusedType{25, "I16, which is not a weight format: expected a float or quantised type"},
    RefusedType{26, "I32, which is not a weight format: expected a float or quantised type"},
    RefusedType{27, "I64, which is not a weight format: expected a float or quantised type"},
    RefusedType{28, "F64, which is not supported: convert the model to F32 or F16"},
    RefusedType{29, "IQ1_M, which is not supported: use a Q or TQ file"},
    RefusedType{40, "NVFP4, which is not supported: use a Q or TQ file"},
};

constexpr std::string_view kTl2 =
    "39 (TL2), whose weights are permuted by a tiling that the file does not record: use the "
    "model's I2_S, TQ1_0 or TQ2_0 file";
constexpr std::string_view kMxfp4 = "39 (MXFP4), which is not supported: use a Q or TQ file";

std::string Shape(const DeclaredTensor& tensor) {
  std::string shape = std::to_string(tensor.extents[0]);
  for (uint32_t i = 1; i < tensor.rank; ++i) shape += " x " + std::to_string(tensor.extents[i]);
  return shape;
}

[[noreturn]] void ThrowRefused(const DeclaredTensor& tensor, std::string_view why) {
  throw FormatError("tensor " + Quoted(tensor.name) + " is of type " + std::string(why));
}

uint64_t Rows(const DeclaredTensor& tensor) {
  return tensor.extents[1] * tensor.extents[2] * tensor.extents[3];
}

// Afterwards no product of extents wraps.
void CheckExtents(const DeclaredTensor& tensor) {
  uint64_t elements = 1;
  for (const uint64_t extent : tensor.extents) {
    if (extent == 0) {
      throw FormatError("tensor " + Quoted(tensor.name) + " has shape " + Shape(tensor) +
                        ": expected extents of at least 1");
    }
    if (__builtin_mul_overflow(elements, extent, &elements)) {
      throw FormatError("tensor " + Quoted(tensor.name) + " has shape " + Shape(tensor) +
                        ": expected fewer than 2^64 elements");
    }
  }
}

std::optional<uint64_t> ByteSize(TensorType type, const DeclaredTensor& tensor,
                                 const ReadOptions& options = {}) {
  return LayoutByteSize(*FindTypeLayout(type, options.i2s_layout), Rows(tensor), tensor.extents[0]);
}

// Resolves types of one file; `spans[i]` is the span of header.tensors[i].
class TypeResolver {
 public:
  TypeResolver(const Header& header, std::string_view architecture, std::span<const uint64_t> spans)
      : header_(header), spans_(spans), bitnet_(architecture.starts_with("bitnet")) {
    for (size_t i = 0; i < header.tensors.size(); ++i) {
      if (header.tensors[i].type_id != kQ2Id) continue;
      const bool g64 = Fills(TensorType::kQ2_0, i);
      const bool g128 = Fills(TensorType::kQ2_0_G128, i);
      if (g128 && !g64) old_q2_file_ = true;
      if (g64 && !g128) new_q2_file_ = true;
    }
  }

  TensorType Resolve(size_t index) const {
    const DeclaredTensor& tensor = header_.tensors[index];
    const auto type = static_cast<TensorType>(tensor.type_id);
    if (tensor.type_id == 39) ThrowRefused(tensor, bitnet_ ? kTl2 : kMxfp4);
    for (const RefusedType& refused : kRefusedTypes) {
      if (refused.id == tensor.type_id) ThrowRefused(tensor, refused.why);
    }
    if (tensor.type_id > 0xffff || FindTypeLayout(type) == nullptr) {
      ThrowRefused(tensor, std::to_string(tensor.type_id) +
                               ", which is unknown: expected a float, Q, TQ, I2_S or IQ*_BN type");
    }
    if (type == TensorType::kQ2_0) return ResolveQ2(index);
    if (type == TensorType::kI2_S) RefuseOldIq4(index);
    if (type == TensorType::kPQ2_0) RefuseShort(index, type, "IQ2_TN");
    if (type == TensorType::kPTQ1_0) RefuseShort(index, type, "IQ1_TN");
    return type;
  }

 private:
  static constexpr uint32_t kQ2Id = 42;

  // True when the tensor as `type`, padded to the alignment, is exactly as long as its span.
  bool Fills(TensorType type, size_t index) const {
    const auto size = ByteSize(type, header_.tensors[index]);
    if (!size || *size > spans_[index]) return false;
    const uint64_t mask = header_.alignment - 1;
    return ((*size + mask) & ~mask) == ((spans_[index] + mask) & ~mask);
  }

  TensorType ResolveQ2(size_t index) const {
    const bool g64 = Fills(TensorType::kQ2_0, index);
    const bool g128 = Fills(TensorType::kQ2_0_G128, index);
    if (g128 != g64) return g128 ? TensorType::kQ2_0_G128 : TensorType::kQ2_0;
    // A small tensor may fit both ways: the file's other tensors tell.
    return old_q2_file_ && !new_q2_file_ ? TensorType::kQ2_0_G128 : TensorType::kQ2_0;
  }

  void RefuseOldIq4(size_t index) const {
    const DeclaredTensor& tensor = header_.tensors[index];
    if (!bitnet_ && Fills(TensorType::kIQ4_NL, index) && !Fills(TensorType::kI2_S, index)) {
      ThrowRefused(tensor,
                   "36 with the size of IQ4_NL_4_4, which was withdrawn: convert the "
                   "model again to IQ4_NL");
    }
  }

  void RefuseShort(size_t index, TensorType type, std::string_view other) const {
    const DeclaredTensor& tensor = header_.tensors[index];
    const auto size = ByteSize(type, tensor);
    if (!size || *size <= spans_[index]) return;
    ThrowRefused(tensor, std::string(TypeName(type)) + " and needs " + std::to_string(*size) +
                             " bytes, but " + std::to_string(spans_[index]) +
                             " are there: the file is damaged, or the type is the withdrawn " +
                             std::string(other) + ", which must be converted again");
  }

  const Header& header_;
  std::span<const uint64_t> spans_;
  bool bitnet_;
  bool old_q2_file_ = false;
  bool new_q2_file_ = false;
};

// Distance from each tensor's offset to the next one's, or to the end of the file.
std::vector<uint64_t> Spans(const Header& header, uint64_t data_bytes) {
  std::vector<size_t> order(header.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return header.tensors[a].offset < header.tensors[b].offset;
  });
  std::vector<uint64_t> spans(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const DeclaredTensor& tensor = header.tensors[order[i]];
    if (tensor.offset % header.alignment != 0) {
      throw FormatError("tensor " + Quoted(tensor.name) + " is at offset " +
                        std::to_string(tensor.offset) + ": expected a multiple of the alignment " +
                        std::to_string(header.alignment));
    }
    if (tensor.offset >= data_bytes) {
      throw FormatError("tensor " + Quoted(tensor.name) + " is at offset " +
                        std::to_string(tensor.offset) + ", but the file has only " +
                        std::to_string(data_bytes) +
                        " bytes of tensor data: it is truncated or its table is damaged");
    }
    const uint64_t end = i + 1 < order.size()
                             ? std::min(header.tensors[order[i + 1]].offset, data_bytes)
                             : data_bytes;
    spans[order[i]] = end - tensor.offset;
  }
  return spans;
}

void RefuseDuplicateNames(const std::vector<DeclaredTensor>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const DeclaredTensor& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto duplicate = std::adjacent_find(names.begin(), names.end());
  if (duplicate != names.end()) {
    throw FormatError("tensor " + Quoted(*duplicate) +
                      " occurs more than once: expected unique names");
  }
}

uint64_t CheckedByteSize(TensorType type, const DeclaredTensor& tensor, uint64_t span,
                         const ReadOptions& options) {
  const TypeLayout& layout = *FindTypeLayout(type, options.i2s_layout);
  if (tensor.extents[0] % layout.block_cols != 0 || Rows(tensor) % layout.group_rows != 0) {
    throw FormatError("tensor " + Quoted(tensor.name) + " of type " + std::string(layout.name) +
                      " has shape " + Shape(tensor) + ": expected a multiple of " +
                      std::to_string(layout.block_cols) + " columns and of " +
                      std::to_string(layout.group_rows) + " rows");
  }
  const auto size = ByteSize(type, tensor, options);
  if (!size || *size > span) {
    throw FormatError("tensor " + Quoted(tensor.name) + " of type " + std::string(layout.name) +
                      " and shape " + Shape(tensor) + " needs " +
                      (size ? std::to_string(*size) : "more than 2^64") + " bytes, but only " +
                      std::to_string(span) +
                      " lie before the next tensor or the end of the file: it is truncated or "
                      "its table is damaged");
  }
  return *size;
}

}  // namespace

std::vector<TensorInfo> ResolveTensors(const Header& header, std::string_view architecture,
                                       uint64_t file_bytes, uint32_t part,
                                       const ReadOptions& options) {
  RefuseDuplicateNames(header.tensors);
  for (const DeclaredTensor& tensor : header.tensors) CheckExtents(tensor);
  const uint64_t data_bytes = file_bytes > header.data_offset ? file_bytes - header.data_offset : 0;
  const std::vector<uint64_t> spans = Spans(header, data_bytes);
  const TypeResolver resolver(header, architecture, spans);

  std::vector<TensorInfo> tensors;
  tensors.reserve(header.tensors.size());
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const DeclaredTensor& declared = header.tensors[i];
    TensorInfo info;
    info.name = declared.name;
    info.type = resolver.Resolve(i);
    info.extents = declared.extents;
    info.rank = std::max(declared.rank, 1u);
    info.offset = header.data_offset + declared.offset;  // inside the file, see Spans()
    info.byte_size = CheckedByteSize(info.type, declared, spans[i], options);
    info.part = part;
    tensors.push_back(std::move(info));
  }
  return tensors;
}

}  // namespace gguf
