#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/token.h"

namespace engine {

// How the next token is chosen. The order: logit bias and penalties, DRY, mask, top_n_sigma,
// temperature, top_k, top_p, min_p, typical_p, XTC, draw. Mirostat takes the place of what follows
// the temperature.
struct SamplingParams {
  float temperature = 1.0F;         // 0 = greedy; [0, 2]
  int32_t top_k = 0;                // 0 or -1 = all
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1]; relative to the best probability
  float presence_penalty = 0.0F;    // [-2, 2]; over generated tokens
  float frequency_penalty = 0.0F;   // [-2, 2]; over generated tokens
  float repetition_penalty = 1.0F;  // (0, 2]; over prompt and generated tokens
  // Keeps the tokens whose surprise is nearest to the expected one, up to this probability; (0, 1]
  // (Meister et al. 2022, "Locally typical sampling").
  float typical_p = 1.0F;
  // Drops logits further below the best than so many standard deviations; 0 = off; [0, 100]
  // (Tang et al. 2024, "Top-nsigma").
  float top_n_sigma = 0.0F;
  // With this probability drops all tokens that are at least as likely as the threshold, but for
  // the least likely of them. Each in [0, 1].
  float xtc_probability = 0.0F;
  float xtc_threshold = 0.1F;
  // "Don't repeat yourself": a token that would continue a repetition of n tokens loses
  // dry_multiplier * dry_base ^ (n - dry_allowed_length).
  float dry_multiplier = 0.0F;  // 0 = off; [0, 100]
  float dry_base = 1.75F;       // [1, 100]
  uint32_t dry_allowed_length = 2;
  int32_t dry_penalty_last_n = -1;    // tokens looked at; -1 = all
  std::vector<TokenId> dry_breakers;  // end a repetition; ascending
  // 0 = off, 2 = Mirostat 2.0 (Basu et al. 2021): keeps the surprise near tau, in bits.
  int32_t mirostat = 0;
  float mirostat_tau = 5.0F;          // (0, 20]
  float mirostat_eta = 0.1F;          // [0, 1]
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
