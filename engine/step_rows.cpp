#include "engine/step_rows.h"

namespace engine {

void StepRows::Assign(const Batch& from, size_t begin_row, size_t end_row) {
  batch = &from;
  begin = begin_row;
  end = end_row;
  tokens.clear();
  first_token.clear();
  for (size_t row = begin; row < end; ++row) {
    const BatchRow& source = from.rows[row];
    first_token.push_back(size());
    for (size_t i = 0; i < source.tokens.size(); ++i) {
      tokens.push_back({.id = source.tokens[i],
                        .position = source.first_position + static_cast<uint32_t>(i),
                        .row = static_cast<uint32_t>(row)});
    }
  }
  non_finite.assign(tokens.size(), 0);
}

}  // namespace engine
