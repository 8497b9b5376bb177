#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gguf/metadata.h"

namespace gguf {

// One row of the tensor table as the file states it; nothing but its encoding has been checked.
struct DeclaredTensor {
  std::string name;
  uint32_t type_id = 0;
  uint32_t rank = 0;
  std::array<uint64_t, 4> extents = {1, 1, 1, 1};
  uint64_t offset = 0;  // relative to the data section
};

// Everything in front of the tensor data of one file (part):
//
//   header := "GGUF" u32 version  u64 tensor_count  u64 kv_count
//             kv[kv_count] tensor[tensor_count] padding to the alignment
//   kv     := string key, u32 value_type, value
//   tensor := string name, u32 rank, u64 extent[rank], u32 type, u64 offset
//   string := u64 length, bytes;   array := u32 element_type, u64 count, values
struct Header {
  uint32_t version = 0;
  uint32_t alignment = 0;
  Metadata metadata;
  std::vector<DeclaredTensor> tensors;
  uint64_t data_offset = 0;  // of the data section; may lie past the end of a file without tensors
};

// Errors: FormatError. Every count is held against the bytes that are left before anything is
// reserved, so memory stays within a small multiple of the file's size.
Header ParseHeader(std::span<const std::byte> bytes);

}  // namespace gguf
