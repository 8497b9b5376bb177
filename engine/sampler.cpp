#include "engine/sampler.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <utility>

#include "engine/candidates.h"
#include "engine/philox.h"
#include "engine/portable_math.h"
#include "engine/repetition.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Candidates that the nucleus sorts at first; most are smaller.
constexpr size_t kNucleusStep = 64;
// Beyond it a penalty changes nothing any more; the logit stays finite.
constexpr float kMaxDryPenalty = 1e30F;
constexpr double kLn2 = 0.693147180559945309417;
// More surprise than any vocabulary has.
constexpr double kMaxSurpriseBits = 64.0;
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
float SoftmaxWeights(std::span<const float> logits, float best, float temperature, float* weights) {
  // Finite at any temperature, so that the best token's 0 stays 0.
  const float inverse = std::min(1.0F / temperature, 1e30F);
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = (logits[i] - best) * inverse;
  return fabric::ExpShifted(weights, 0.0F, logits.size(), weights);
}

// One more element can be appended without memory.
template <typename T>
void MakeRoom(std::vector<T>* elements) {
  if (elements->size() == elements->capacity()) {
    elements->reserve(std::max<size_t>(16, 2 * elements->size()));
  }
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

uint32_t CandidatesNeeded(const SamplingParams& params, size_t stop_tokens) {
  constexpr size_t kMost = 256;
  const bool penalised = params.repetition_penalty != 1.0F || params.frequency_penalty != 0.0F ||
                         params.presence_penalty != 0.0F || params.dry_multiplier > 0.0F;
  if (params.logprobs >= 0 || penalised || !params.logit_bias.empty()) return 0;
  if (params.mirostat != 0 || params.top_n_sigma > 0.0F) return 0;
  if (params.temperature != 0.0F && params.top_k <= 0) return 0;
  const size_t best = params.temperature == 0.0F ? 1 : static_cast<size_t>(params.top_k);
  return best + stop_tokens <= kMost ? static_cast<uint32_t>(best + stop_tokens) : 0;
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
  if (params_.dry_multiplier > 0.0F) text_.assign(prompt.begin(), prompt.end());
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
  if (params_.top_n_sigma > 0.0F) CutBelowSigma(logits);
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
  if (params_.frequency_penalty != 0.0F || params_.presence_penalty != 0.0F) {
    for (const auto& [token, count] : counts_) {
      Change(logits, token) -=
          static_cast<float>(count) * params_.frequency_penalty + params_.presence_penalty;
    }
  }
  if (params_.dry_multiplier > 0.0F) PenaliseRepetitions(logits);
}

void Sampler::PenaliseRepetitions(std::span<float> logits) {
  std::span<const TokenId> text = text_;
  if (params_.dry_penalty_last_n >= 0) {
    text = text.last(std::min(text.size(), static_cast<size_t>(params_.dry_penalty_last_n)));
  }
  const uint32_t allowed = params_.dry_allowed_length;
  for (const Repetition& repetition : FindRepetitions(text, params_.dry_breakers, allowed)) {
    float penalty = params_.dry_multiplier;
    for (uint32_t n = allowed; n < repetition.length && penalty < kMaxDryPenalty; ++n) {
      penalty *= params_.dry_base;
    }
    Change(logits, repetition.token) -= std::min(penalty, kMaxDryPenalty);
  }
}

// Over the finite logits. The best one always stays.
void Sampler::CutBelowSigma(std::span<float> logits) const {
  double sum = 0.0;
  size_t count = 0;
  float best = kMinusInfinity;
  for (const float logit : logits) {
    if (logit == kMinusInfinity) continue;
    sum += static_cast<double>(logit);
    ++count;
    best = std::max(best, logit);
  }
  if (count == 0) return;
  const double mean = sum / static_cast<double>(count);
  double squares = 0.0;
  for (const float logit : logits) {
    if (logit == kMinusInfinity) continue;
    const double deviation = static_cast<double>(logit) - mean;
    squares += deviation * deviation;
  }
  const double sigma = std::sqrt(squares / static_cast<double>(count));
  const double least = static_cast<double>(best) - static_cast<double>(params_.top_n_sigma) * sigma;
  for (float& logit : logits) {
    if (static_cast<double>(logit) < least) logit = kMinusInfinity;
  }
}

void Sampler::Mask(std::span<float> logits, std::span<const uint64_t> mask) const {
  if (params_.ignore_eos || accepted() < params_.min_tokens) {
    for (const TokenId token : stop_tokens_) logits[static_cast<size_t>(token)] = kMinusInfinity;
  }
  if (mask.empty()) return;
  // A mask may end before the logits do: models pad their vocabulary.
  for (size_t first = 0; first < logits.size(); first += 64) {
    const uint64_t allowed = first / 64 < mask.size() ? mask[first / 64] : 0;
    if (~allowed == 0) continue;
    const size_t end = std::min(first + 64, logits.size());
    for (size_t token = first; token < end; ++token) {
      if (((allowed >> (token % 64)) & 1) == 0) logits[token] = kMinusInfinity;
    }
  }
}

// -1 when no token is left.
TokenId Sampler::Choose(std::span<const float> logits, uint32_t position) {
  bool finite = true;
  const size_t best = fabric::ArgMax(logits.data(), logits.size(), &finite);
  if (logits[best] == kMinusInfinity) return -1;
  if (params_.temperature == 0.0F) return static_cast<TokenId>(best);
  const double uniform = CounterUniform(seed_, choice_, position, 0);
  if (params_.mirostat != 0) return DrawMirostat(logits, logits[best], uniform);
  const bool cut = (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size()) ||
                   params_.top_p < 1.0F || params_.min_p > 0.0F || params_.typical_p < 1.0F ||
                   params_.xtc_probability > 0.0F;
  return cut ? DrawFromBest(logits, logits[best], uniform, position)
             : DrawFromAll(logits, logits[best], uniform);
}

// The sum of all weights; chunk_sums_ gets that of every chunk.
double Sampler::SumWeights(std::span<const float> logits, float best) {
  float weights[kChunk];
  chunk_sums_.clear();
  double total = 0.0;
  for (size_t first = 0; first < logits.size(); first += kChunk) {
    chunk_sums_.push_back(static_cast<double>(
        SoftmaxWeights(Chunk(logits, first), best, params_.temperature, weights)));
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
  SoftmaxWeights(part, best, params_.temperature, weights);
  // Where rounding leaves the target above the chunk's own sum, the chunk's last token is meant.
  TokenId last = -1;
  for (size_t i = 0; i < part.size() && before <= target; ++i) {
    if (weights[i] == 0.0F) continue;
    last = static_cast<TokenId>(chunk * kChunk + i);
    before += static_cast<double>(weights[i]);
  }
  return last;
}

TokenId Sampler::DrawFromBest(std::span<const float> logits, float best, double uniform,
                              uint32_t position) {
  double total = 0.0;
  const bool top_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size();
  weights_.clear();
  if (top_k) {
    candidates_.resize(static_cast<size_t>(params_.top_k));
    SelectBest(logits, {}, candidates_);
    AppendWeights(candidates_.size(), best);
    for (const float weight : weights_) total += static_cast<double>(weight);
  } else {
    total = SumWeights(logits, best);
    // All tokens lighter than this weigh less than 1 - top_p together: the nucleus needs none.
    const double outside =
        (1.0 - static_cast<double>(params_.top_p)) * total / static_cast<double>(logits.size());
    CollectAbove(logits, best, std::max(params_.min_p, static_cast<float>(0.5 * outside)));
  }
  if (top_k || params_.top_p < 1.0F || params_.min_p > 0.0F) {
    CutTail(best, total);
  } else {
    AppendWeights(candidates_.size(), best);
  }
  if (params_.typical_p < 1.0F) KeepTypical(best);
  if (params_.xtc_probability > 0.0F) ExcludeTopChoices(position);
  return DrawCandidate(uniform);
}

// Of the first weights_.size() candidates, each as likely as its weight.
TokenId Sampler::DrawCandidate(double uniform, size_t* index) const {
  double kept = 0.0;
  for (const float weight : weights_) kept += static_cast<double>(weight);
  const double target = uniform * kept;
  double sum = 0.0;
  size_t chosen = 0;
  for (; chosen + 1 < weights_.size(); ++chosen) {
    sum += static_cast<double>(weights_[chosen]);
    if (sum > target) break;
  }
  if (index != nullptr) *index = chosen;
  return candidates_[chosen].token;
}

// Surprise is -log p and the expected one is the entropy: the candidates come nearest first until
// they have typical_p of the probability.
void Sampler::KeepTypical(float best) {
  const size_t count = weights_.size();
  // log of a candidate's weight
  const auto log_weight = [&](size_t i) {
    return static_cast<double>(candidates_[i].logit - best) /
           static_cast<double>(params_.temperature);
  };
  double total = 0.0;
  double mean = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const auto weight = static_cast<double>(weights_[i]);
    total += weight;
    if (weight > 0.0) mean += weight * log_weight(i);
  }
  mean /= total;
  // |-log p - H| = |mean - log weight|: the logarithm of the total is in both.
  std::vector<std::pair<double, size_t>> ranked;
  ranked.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (weights_[i] > 0.0F) ranked.emplace_back(std::abs(mean - log_weight(i)), i);
  }
  std::make_heap(ranked.begin(), ranked.end(), std::greater<>());
  std::vector<Candidate> candidates;
  std::vector<float> weights;
  const double enough = static_cast<double>(params_.typical_p) * total;
  for (double sum = 0.0; !ranked.empty() && (candidates.empty() || sum < enough);) {
    std::pop_heap(ranked.begin(), ranked.end(), std::greater<>());
    const size_t i = ranked.back().second;
    ranked.pop_back();
    candidates.push_back(candidates_[i]);
    weights.push_back(weights_[i]);
    sum += static_cast<double>(weights_[i]);
  }
  candidates_ = std::move(candidates);
  weights_ = std::move(weights);
}

// XTC. The second draw of the position decides whether it happens at all.
void Sampler::ExcludeTopChoices(uint32_t position) {
  if (CounterUniform(seed_, choice_, position, 1) >= static_cast<double>(params_.xtc_probability)) {
    return;
  }
  double total = 0.0;
  for (const float weight : weights_) total += static_cast<double>(weight);
  const double least = static_cast<double>(params_.xtc_threshold) * total;
  const auto top = [&](size_t i) { return static_cast<double>(weights_[i]) >= least; };
  size_t count = 0;
  size_t spared = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!top(i)) continue;
    // Of equal ones that with the highest id, the last in rank.
    if (count++ == 0 || BetterCandidate(candidates_[spared], candidates_[i])) spared = i;
  }
  if (count < 2) return;
  size_t kept = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (top(i) && i != spared) continue;
    candidates_[kept] = candidates_[i];
    weights_[kept++] = weights_[i];
  }
  weights_.resize(kept);
}

double Sampler::mirostat_mu() const {
  return mirostat_mu_.empty() ? 2.0 * static_cast<double>(params_.mirostat_tau)
                              : mirostat_mu_.back();
}

// Tokens with more surprise than mu are dropped; Accept() moves mu so that the surprise of what is
// drawn stays near tau.
TokenId Sampler::DrawMirostat(std::span<const float> logits, float best, double uniform) {
  const double total = SumWeights(logits, best);
  const double mu = std::clamp(mirostat_mu(), 0.0, kMaxSurpriseBits);
  const double least = std::min(1.0, total * PortableExp(-mu * kLn2));
  CollectAbove(logits, best, static_cast<float>(least));
  weights_.clear();
  AppendWeights(candidates_.size(), best);
  size_t index = 0;
  const TokenId token = DrawCandidate(uniform, &index);
  double kept = 0.0;
  for (const float weight : weights_) kept += static_cast<double>(weight);
  const double log_weight = static_cast<double>(candidates_[index].logit - best) /
                            static_cast<double>(params_.temperature);
  drawn_ = {token, (PortableLog(kept) - log_weight) / kLn2};
  return token;
}

// candidates_: the tokens of at least this weight, in no order; the best has weight 1.
void Sampler::CollectAbove(std::span<const float> logits, float best, float least_weight) {
  float weights[kChunk];
  candidates_.clear();
  for (size_t first = 0; first < logits.size(); first += kChunk) {
    const std::span<const float> part = Chunk(logits, first);
    SoftmaxWeights(part, best, params_.temperature, weights);
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
    SoftmaxWeights({logits, count}, best, params_.temperature, weights_.data() + first);
    first += count;
  }
}

// All or nothing: where memory is short nothing has changed.
void Sampler::Accept(TokenId token) {
  MakeRoom(&history_);
  if (params_.dry_multiplier > 0.0F) MakeRoom(&text_);
  if (params_.mirostat != 0) MakeRoom(&mirostat_mu_);
  ++counts_[token];
  history_.push_back(token);
  if (params_.dry_multiplier > 0.0F) text_.push_back(token);
  if (params_.mirostat == 0) return;
  // A token that was not drawn here says nothing about the surprise.
  const double error =
      drawn_.token == token ? drawn_.bits - static_cast<double>(params_.mirostat_tau) : 0.0;
  mirostat_mu_.push_back(mirostat_mu() - static_cast<double>(params_.mirostat_eta) * error);
}

void Sampler::Rollback(uint32_t n) {
  for (; n > 0; --n) {
    const auto count = counts_.find(history_.back());
    if (--count->second == 0) counts_.erase(count);
    history_.pop_back();
    if (!text_.empty()) text_.pop_back();
    if (!mirostat_mu_.empty()) mirostat_mu_.pop_back();
  }
}

}  // namespace engine
