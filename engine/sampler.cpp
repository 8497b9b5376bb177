#include "engine/sampler.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <random>

#include "engine/candidates.h"
#include "engine/philox.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Candidates that the nucleus sorts at first; most are smaller.
constexpr size_t kNucleusStep = 64;
// Logits that are turned into weights at a time, on the stack.
constexpr size_t kChunk = 1024;

// Different for every sampler whose request names no seed.
uint64_t FreshSeed() {
  static const uint64_t process = (uint64_t{std::random_device{}()} << 32) | std::random_device{}();
  static std::atomic<uint64_t> counter = 0;
  return process + 0x9E3779B97F4A7C15ULL * ++counter;
}

// True when no value is NaN or +infinity; -infinity is a token that cannot come.
bool Usable(std::span<const float> logits) {
  constexpr uint32_t kInfinity = 0x7f800000;
  uint32_t bad = 0;
  for (const float logit : logits) {
    const auto bits = std::bit_cast<uint32_t>(logit);
    bad |= (bits & 0x7fffffffU) > kInfinity || bits == kInfinity ? 1U : 0U;
  }
  return bad == 0;
}

// weights[i] = exp((logits[i] - best) / temperature); returns their sum in a fixed order.
float Weights(std::span<const float> logits, float best, float temperature, float* weights) {
  const float inverse = 1.0F / temperature;
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = (logits[i] - best) * inverse;
  return fabric::ExpShifted(weights, 0.0F, logits.size(), weights);
}

std::span<const float> Chunk(std::span<const float> logits, size_t first) {
  return logits.subspan(first, std::min(kChunk, logits.size() - first));
}

}  // namespace

double CounterUniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw) {
  const auto words = Philox4x32({position, choice, draw, 0},
                                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(SamplingParams params, std::span<const TokenId> prompt, uint32_t choice,
                 std::vector<TokenId> stop_tokens)
    : params_(std::move(params)),
      seed_(params_.seed ? static_cast<uint64_t>(*params_.seed) : FreshSeed()),
      choice_(choice),
      stop_tokens_(std::move(stop_tokens)),
      prompt_tokens_(prompt.begin(), prompt.end()) {
  std::sort(prompt_tokens_.begin(), prompt_tokens_.end());
  prompt_tokens_.erase(std::unique(prompt_tokens_.begin(), prompt_tokens_.end()),
                       prompt_tokens_.end());
}

Sample Sampler::Draw(std::span<float> logits, uint32_t position, std::span<const uint64_t> mask) {
  Sample sample;
  if (!Usable(logits)) {
    sample.finite = false;
    return sample;
  }
  const bool report = params_.logprobs >= 0;
  const float log_sum = report ? fabric::LogSumExp(logits.data(), logits.size()) : 0.0F;
  if (params_.logprobs > 0) {
    candidates_.resize(std::min(static_cast<size_t>(params_.logprobs), logits.size()));
    SelectBest(logits, {}, candidates_);
    for (const Candidate& candidate : candidates_) {
      sample.top.push_back({candidate.token, candidate.logit - log_sum});
    }
  }

  raw_.clear();
  Penalise(logits);
  Mask(logits, mask);
  sample.token = Choose(logits, position);
  if (sample.token < 0) {
    sample.finite = false;
    return sample;
  }
  if (report) {
    float logit = logits[static_cast<size_t>(sample.token)];
    const auto changed = std::find_if(
        raw_.begin(), raw_.end(), [&](const RawLogit& raw) { return raw.token == sample.token; });
    if (changed != raw_.end()) logit = changed->logit;
    sample.logprob = {sample.token, logit - log_sum};
  }
  return sample;
}

// A logit about to be changed. Its raw value is remembered for the report; of several, the first
// counts.
float& Sampler::Change(std::span<float> logits, TokenId token) {
  float& logit = logits[static_cast<size_t>(token)];
  raw_.push_back({token, logit});
  return logit;
}

void Sampler::Penalise(std::span<float> logits) {
  for (const LogitBias& bias : params_.logit_bias) Change(logits, bias.token) += bias.bias;
  if (params_.repetition_penalty != 1.0F) {
    const auto penalise = [&](TokenId token) {
      float& logit = Change(logits, token);
      logit =
          logit > 0.0F ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    };
    for (const TokenId token : prompt_tokens_) penalise(token);
    for (const auto& [token, count] : counts_) {
      if (!std::binary_search(prompt_tokens_.begin(), prompt_tokens_.end(), token)) {
        penalise(token);
      }
    }
  }
  if (params_.frequency_penalty == 0.0F && params_.presence_penalty == 0.0F) return;
  for (const auto& [token, count] : counts_) {
    Change(logits, token) -=
        static_cast<float>(count) * params_.frequency_penalty + params_.presence_penalty;
  }
}

void Sampler::Mask(std::span<float> logits, std::span<const uint64_t> mask) const {
  if (params_.ignore_eos || accepted() < params_.min_tokens) {
    for (const TokenId token : stop_tokens_) logits[static_cast<size_t>(token)] = kMinusInfinity;
  }
  if (mask.empty()) return;
  for (size_t token = 0; token < logits.size(); ++token) {
    if (((mask[token / 64] >> (token % 64)) & 1) == 0) logits[token] = kMinusInfinity;
  }
}

// -1 when no token is left.
TokenId Sampler::Choose(std::span<const float> logits, uint32_t position) {
  bool finite = true;
  const size_t best = fabric::ArgMax(logits.data(), logits.size(), &finite);
  if (logits[best] == kMinusInfinity) return -1;
  if (params_.temperature == 0.0F) return static_cast<TokenId>(best);
  const double uniform = CounterUniform(seed_, choice_, position, 0);
  const bool cut = (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size()) ||
                   params_.top_p < 1.0F || params_.min_p > 0.0F;
  return cut ? DrawFromBest(logits, logits[best], uniform)
             : DrawFromAll(logits, logits[best], uniform);
}

// The sum of all weights; chunk_sums_ gets that of every chunk.
double Sampler::SumWeights(std::span<const float> logits, float best) {
  float weights[kChunk];
  chunk_sums_.clear();
  double total = 0.0;
  for (size_t first = 0; first < logits.size(); first += kChunk) {
    chunk_sums_.push_back(
        static_cast<double>(Weights(Chunk(logits, first), best, params_.temperature, weights)));
    total += chunk_sums_.back();
  }
  return total;
}

// Finds the chunk first, then the token in it, so that no vector of weights is kept.
TokenId Sampler::DrawFromAll(std::span<const float> logits, float best, double uniform) {
  const double target = uniform * SumWeights(logits, best);
  double sum = 0.0;
  double before = 0.0;
  size_t chunk = 0;
  for (size_t i = 0; i < chunk_sums_.size() && sum <= target; ++i) {
    if (chunk_sums_[i] == 0.0) continue;
    chunk = i;
    before = sum;
    sum += chunk_sums_[i];
  }
  float weights[kChunk];
  const std::span<const float> part = Chunk(logits, chunk * kChunk);
  Weights(part, best, params_.temperature, weights);
  // Where rounding leaves the target above the chunk's own sum, the chunk's last token is meant.
  TokenId last = -1;
  for (size_t i = 0; i < part.size() && before <= target; ++i) {
    if (weights[i] == 0.0F) continue;
    last = static_cast<TokenId>(chunk * kChunk + i);
    before += static_cast<double>(weights[i]);
  }
  return last;
}

TokenId Sampler::DrawFromBest(std::span<const float> logits, float best, double uniform) {
  double total = 0.0;
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size()) {
    candidates_.resize(static_cast<size_t>(params_.top_k));
    SelectBest(logits, {}, candidates_);
    weights_.clear();
    AppendWeights(candidates_.size(), best);
    for (const float weight : weights_) total += static_cast<double>(weight);
  } else {
    total = SumWeights(logits, best);
    // All tokens lighter than this weigh less than 1 - top_p together: the nucleus needs none.
    const double outside =
        (1.0 - static_cast<double>(params_.top_p)) * total / static_cast<double>(logits.size());
    CollectAbove(logits, best, std::max(params_.min_p, static_cast<float>(0.5 * outside)));
  }
  CutTail(best, total);

  double kept = 0.0;
  for (const float weight : weights_) kept += static_cast<double>(weight);
  const double target = uniform * kept;
  double sum = 0.0;
  size_t chosen = 0;
  for (; chosen + 1 < weights_.size(); ++chosen) {
    sum += static_cast<double>(weights_[chosen]);
    if (sum > target) break;
  }
  return candidates_[chosen].token;
}

// candidates_: the tokens of at least this weight, in no order; the best has weight 1.
void Sampler::CollectAbove(std::span<const float> logits, float best, float least_weight) {
  float weights[kChunk];
  candidates_.clear();
  for (size_t first = 0; first < logits.size(); first += kChunk) {
    const std::span<const float> part = Chunk(logits, first);
    Weights(part, best, params_.temperature, weights);
    for (size_t i = 0; i < part.size(); ++i) {
      if (weights[i] < least_weight || weights[i] == 0.0F) continue;
      candidates_.push_back({static_cast<TokenId>(first + i), part[i]});
    }
  }
}

// Sorts candidates_ best first until their weights reach top_p of `total` or fall below min_p;
// weights_ gets those that stay, at least one.
void Sampler::CutTail(float best, double total) {
  const double enough =
      params_.top_p < 1.0F ? static_cast<double>(params_.top_p) * total : 2.0 * total;
  weights_.clear();
  double sum = 0.0;
  size_t step = kNucleusStep;
  size_t done = 0;
  while (done < candidates_.size()) {
    const size_t end = std::min(done + step, candidates_.size());
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(done),
                      candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(),
                      BetterCandidate);
    AppendWeights(end, best);
    for (; done < end; ++done) {
      sum += static_cast<double>(weights_[done]);
      if (weights_[done] == 0.0F || weights_[done] < params_.min_p) {
        weights_.resize(std::max<size_t>(1, done));
        return;
      }
      if (sum >= enough) {
        weights_.resize(done + 1);
        return;
      }
    }
    step *= 2;
  }
}

// Extends weights_ to the first `end` candidates.
void Sampler::AppendWeights(size_t end, float best) {
  float logits[kChunk];
  size_t first = weights_.size();
  weights_.resize(end);
  while (first < end) {
    const size_t count = std::min(kChunk, end - first);
    for (size_t i = 0; i < count; ++i) logits[i] = candidates_[first + i].logit;
    Weights({logits, count}, best, params_.temperature, weights_.data() + first);
    first += count;
  }
}

void Sampler::Accept(TokenId token) {
  history_.push_back(token);
  try {
    ++counts_[token];
  } catch (...) {
    history_.pop_back();
    throw;
  }
}

void Sampler::Rollback(uint32_t n) {
  for (; n > 0; --n) {
    const auto count = counts_.find(history_.back());
    if (--count->second == 0) counts_.erase(count);
    history_.pop_back();
  }
}

}  // namespace engine
