#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/batch.h"

namespace engine {

// One token of a batch, with what the layers need to know about it.
struct StepToken {
  TokenId id = 0;
  uint32_t position = 0;
  uint32_t row = 0;  // index into Batch::rows
};

// Rows [begin, end) of a batch with their tokens laid end to end: the first axis of every
// activation buffer.
struct StepRows {
  const Batch* batch = nullptr;
  size_t begin = 0;
  size_t end = 0;
  std::vector<StepToken> tokens;
  std::vector<uint32_t> first_token;  // of each row; [end - begin]
  // 1 where a NaN or an infinity came up. A byte per token, so that threads never share one.
  std::vector<uint8_t> non_finite;

  void Assign(const Batch& from, size_t begin_row, size_t end_row);
  uint32_t size() const { return static_cast<uint32_t>(tokens.size()); }
  std::span<const BlockId> BlockTable(const StepToken& token) const {
    return batch->rows[token.row].block_table;
  }
};

}  // namespace engine
