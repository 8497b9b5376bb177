#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/batch.h"
#include "engine/sampling_params.h"
#include "engine/token.h"

namespace engine {

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // raw log-softmax at temperature 1, before penalties, bias and masks
};

struct Sample {
  TokenId token = -1;
  TokenLogprob logprob;           // of `token`; when asked for
  std::vector<TokenLogprob> top;  // best first; when asked for
  bool finite = true;             // false: a logit was NaN or all were -infinity; token is -1
};

// Uniform in [0, 1) from (seed, choice, position, draw): a stateless counter-based generator
// (Philox4x32-10, Salmon et al. 2011), so a draw never depends on what was drawn before.
double CounterUniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw);

// How many of the best raw logits decide what Draw() gives, when the others may as well be
// -infinity: 1 for greedy choice, top_k where it cuts, and as many more as there are stop tokens,
// which may be masked. 0 when the whole distribution counts (log-probabilities, penalties, bias,
// sampling that top_k does not cut short) or when they would be too many to be worth it. A caller
// that passes Draw() a mask needs all logits that it allows.
uint32_t CandidatesNeeded(const SamplingParams& params, size_t stop_tokens);

// The state of one sequence's sampling.
//
// Order:   logit bias; repetition penalty (a positive logit is divided by it, another multiplied),
//          frequency and presence penalty; DRY; masks; top_n_sigma; temperature; top_k; top_p over
//          what is left, renormalised; min_p; typical_p; XTC; the draw walks what is left, best
//          first (or by id when no tail was cut off, or by typicality). Equal logits rank by
//          ascending id. Mirostat takes the place of everything after the temperature.
// Cost:    selections are partial: a vocabulary is never sorted whole.
// Threads: one at a time.
class Sampler {
 public:
  // prompt: for the repetition penalty and DRY. choice: index among n choices. stop_tokens: masked
  // until min_tokens were accepted, and always when ignore_eos.
  Sampler(SamplingParams params, std::span<const TokenId> prompt, uint32_t choice,
          std::vector<TokenId> stop_tokens);

  // Draws the token that follows position `position` - 1. Deterministic in the logits, the accepted
  // tokens, seed, choice and position. `logits` is scratch: changed by the call.
  // mask: bit per token, 1 = allowed; empty = all.
  Sample Draw(std::span<float> logits, uint32_t position, std::span<const uint64_t> mask = {});

  // The caller keeps the token: it counts for the penalties from now on. What it throws
  // (std::bad_alloc) changes nothing.
  void Accept(TokenId token);
  // Takes back the last n accepted tokens.
  void Rollback(uint32_t n);

  const SamplingParams& params() const { return params_; }
  uint32_t accepted() const { return static_cast<uint32_t>(history_.size()); }

 private:
  SamplingParams params_;
  uint64_t seed_ = 0;
  uint32_t choice_ = 0;
  std::vector<TokenId> stop_tokens_;
  std::vector<TokenId> prompt_tokens_;            // sorted, unique
  std::vector<TokenId> history_;                  // accepted tokens in order
  std::vector<TokenId> text_;                     // prompt and history_, when DRY looks at them
  std::vector<double> mirostat_mu_;               // after each accepted token
  std::unordered_map<TokenId, uint32_t> counts_;  // of the tokens in history_

  struct RawLogit {
    TokenId token;
    float logit;
  };
  struct Surprise {
    TokenId token = -1;
    double bits = 0;
  };
  void Penalise(std::span<float> logits);
  void PenaliseRepetitions(std::span<float> logits);
  void CutBelowSigma(std::span<float> logits) const;
  void KeepTypical(float best);
  void ExcludeTopChoices(uint32_t position);
  TokenId DrawMirostat(std::span<const float> logits, float best, double uniform);
  TokenId DrawCandidate(double uniform, size_t* index = nullptr) const;
  double mirostat_mu() const;
  void Mask(std::span<float> logits, std::span<const uint64_t> mask) const;
  float& Change(std::span<float> logits, TokenId token);
  TokenId Choose(std::span<const float> logits, uint32_t position);
  double SumWeights(std::span<const float> logits, float best);
  TokenId DrawFromAll(std::span<const float> logits, float best, double uniform);
  TokenId DrawFromBest(std::span<const float> logits, float best, double uniform,
                       uint32_t position);
  void CollectAbove(std::span<const float> logits, float best, float least_weight);
  void CutTail(float best, double total);
  void AppendWeights(size_t end, float best);

  // Scratch of one Draw(), kept for its capacity.
  std::vector<RawLogit> raw_;  // logits as they were before bias and penalties changed them
  std::vector<Candidate> candidates_;
  std::vector<float> weights_;  // of the first candidates
  std::vector<double> chunk_sums_;
  Surprise drawn_;  // of the last Draw() under Mirostat
};

}  // namespace engine
