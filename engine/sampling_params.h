#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/token.h"

namespace engine {

// How the next token is chosen. The order: logit bias and penalties, mask, temperature, top_k,
// top_p, min_p, draw.
struct SamplingParams {
  float temperature = 1.0F;           // 0 = greedy; [0, 2]
  int32_t top_k = 0;                  // 0 or -1 = all
  float top_p = 1.0F;                 // (0, 1]
  float min_p = 0.0F;                 // [0, 1]; relative to the best probability
  float presence_penalty = 0.0F;      // [-2, 2]; over generated tokens
  float frequency_penalty = 0.0F;     // [-2, 2]; over generated tokens
  float repetition_penalty = 1.0F;    // (0, 2]; over prompt and generated tokens
  std::vector<LogitBias> logit_bias;  // each in [-100, 100]
  std::optional<int64_t> seed;        // absent: the server picks one and every request differs
  int32_t logprobs = -1;              // -1 none, else how many alternatives to report, 0..20
  bool ignore_eos = false;
  uint32_t min_tokens = 0;  // end-of-turn tokens are masked before this many

  // Empty when valid; otherwise a sentence naming the parameter, its range and the value. *param
  // gets the parameter's name.
  std::string Validate(uint32_t vocabulary, std::string* param) const;
};

}  // namespace engine
