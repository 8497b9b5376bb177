// The sampler draws from exactly the distribution that its parameters describe, depends on seed,
// choice and position only, and takes back what it accepted.

#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "engine/candidates.h"

namespace engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

SamplingParams Seeded(int64_t seed = 1) {
  SamplingParams params;
  params.seed = seed;
  return params;
}

SamplingParams Cut(float temperature, int32_t top_k = 0, float top_p = 1.0F, float min_p = 0.0F) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  return params;
}

TokenId DrawToken(Sampler& sampler, std::vector<float> logits, uint32_t position = 0,
                  std::span<const uint64_t> mask = {}) {
  return sampler.Draw(logits, position, mask).token;
}

// What the parameters describe, by full sorts in double: probability per token that may come.
std::map<TokenId, double> Reference(const std::vector<float>& logits,
                                    const SamplingParams& params) {
  std::vector<std::pair<double, TokenId>> ranked;
  for (size_t i = 0; i < logits.size(); ++i) {
    ranked.push_back({static_cast<double>(logits[i]), static_cast<TokenId>(i)});
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  if (params.top_k > 0) ranked.resize(std::min(ranked.size(), static_cast<size_t>(params.top_k)));
  const double best = ranked[0].first;
  double total = 0;
  for (auto& [value, token] : ranked) {
    value = std::exp((value - best) / static_cast<double>(params.temperature));
    total += value;
  }
  std::map<TokenId, double> kept;
  double sum = 0;
  double kept_sum = 0;
  for (const auto& [weight, token] : ranked) {
    if (weight < static_cast<double>(params.min_p)) break;
    kept[token] = weight;
    kept_sum += weight;
    sum += weight;
    if (params.top_p < 1.0F && sum >= static_cast<double>(params.top_p) * total) break;
  }
  for (auto& [token, weight] : kept) weight /= kept_sum;
  return kept;
}

void CheckDistribution(const std::vector<float>& logits, SamplingParams params) {
  params.seed = 99;
  const std::map<TokenId, double> expected = Reference(logits, params);
  constexpr int kDraws = 10'000;
  std::map<TokenId, int> counts;
  Sampler sampler(params, {}, 0, {});
  for (uint32_t position = 0; position < kDraws; ++position) {
    ++counts[DrawToken(sampler, logits, position)];
  }
  for (const auto& [token, count] : counts) {
    ASSERT_TRUE(expected.contains(token)) << "token " << token << " may not come";
  }
  double chi_squared = 0;
  int freedom = -1;
  for (const auto& [token, probability] : expected) {
    const double mean = probability * kDraws;
    if (mean < 5) continue;
    const int count = counts.contains(token) ? counts[token] : 0;
    chi_squared += (count - mean) * (count - mean) / mean;
    ++freedom;
  }
  // Mean plus five standard deviations of the chi-squared distribution.
  EXPECT_LT(chi_squared, freedom + 5 * std::sqrt(2.0 * freedom) + 3);
}

TEST(Sampler, DrawsFromTheDescribedDistribution) {
  const std::vector<float> small = RandomLogits(40, 1);
  const std::vector<float> large = RandomLogits(1500, 2);
  CheckDistribution(small, Cut(1.0F));
  CheckDistribution(large, Cut(1.0F));
  CheckDistribution(small, Cut(0.5F));
  CheckDistribution(small, Cut(1.7F, 7));
  CheckDistribution(small, Cut(1.0F, 0, 0.8F));
  CheckDistribution(large, Cut(1.0F, 0, 0.3F));
  CheckDistribution(large, Cut(1.0F, 100, 0.6F));
  CheckDistribution(small, Cut(1.0F, 0, 1.0F, 0.1F));
  CheckDistribution(large, Cut(0.7F, 500, 0.9F, 0.02F));
}

TEST(Sampler, TinyTopPIsGreedy) {
  const std::vector<float> logits = RandomLogits(300, 3);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  SamplingParams params = Seeded();
  params.top_p = 1e-6F;
  Sampler sampler(params, {}, 0, {});
  for (uint32_t position = 0; position < 50; ++position) {
    EXPECT_EQ(DrawToken(sampler, logits, position), best);
  }
}

TEST(Sampler, TinyTemperatureIsGreedy) {
  const std::vector<float> logits = RandomLogits(300, 3);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const float temperature : {1e-10F, 1e-39F, std::numeric_limits<float>::denorm_min()}) {
    for (SamplingParams params : {Cut(temperature), Cut(temperature, 5, 0.9F, 0.1F)}) {
      for (const float typical_p : {1.0F, 0.5F}) {
        params.typical_p = typical_p;
        params.seed = 1;
        Sampler sampler(params, {}, 0, {});
        EXPECT_EQ(DrawToken(sampler, logits), best) << temperature;
      }
    }
    SamplingParams mirostat = Cut(temperature);
    mirostat.mirostat = 2;
    Sampler sampler(mirostat, {}, 0, {});
    EXPECT_EQ(DrawToken(sampler, logits), best) << temperature;
  }
}

TEST(Sampler, GreedyTakesTheLowestOfEqualLogits) {
  SamplingParams params;
  params.temperature = 0.0F;
  Sampler sampler(params, {}, 0, {});
  EXPECT_EQ(DrawToken(sampler, {1.0F, 3.0F, 2.0F, 3.0F}), 1);
  params.top_k = 1;
  params.temperature = 1.0F;
  Sampler top_one(params, {}, 0, {});
  EXPECT_EQ(DrawToken(top_one, {1.0F, 3.0F, 2.0F, 3.0F}), 1);
}

TEST(Sampler, DrawDependsOnSeedChoiceAndPositionOnly) {
  const std::vector<float> logits(1000, 0.0F);
  Sampler first(Seeded(5), {}, 0, {});
  Sampler second(Seeded(5), {}, 0, {});
  Sampler other_seed(Seeded(6), {}, 0, {});
  Sampler other_choice(Seeded(5), {}, 1, {});
  int equal_seed = 0;
  int equal_choice = 0;
  std::vector<TokenId> forward;
  for (uint32_t position = 0; position < 100; ++position) {
    forward.push_back(DrawToken(first, logits, position));
    equal_seed += DrawToken(other_seed, logits, position) == forward.back() ? 1 : 0;
    equal_choice += DrawToken(other_choice, logits, position) == forward.back() ? 1 : 0;
  }
  for (uint32_t position = 100; position-- > 0;) {
    EXPECT_EQ(DrawToken(second, logits, position), forward[position]);
  }
  EXPECT_LT(equal_seed, 5);
  EXPECT_LT(equal_choice, 5);
}

TEST(Sampler, WithoutASeedSamplersDiffer) {
  const std::vector<float> logits(100'000, 0.0F);
  Sampler first({}, {}, 0, {});
  Sampler second({}, {}, 0, {});
  int equal = 0;
  for (uint32_t position = 0; position < 20; ++position) {
    equal += DrawToken(first, logits, position) == DrawToken(second, logits, position) ? 1 : 0;
  }
  EXPECT_LT(equal, 5);
}

TEST(Sampler, PenaltiesFollowTheirFormulas) {
  SamplingParams params;
  params.temperature = 0.0F;
  params.frequency_penalty = 0.5F;
  params.presence_penalty = 0.25F;
  params.repetition_penalty = 1.5F;
  params.logit_bias = {{.token = 4, .bias = 1.0F}};
  const std::vector<TokenId> prompt = {0, 0, 1};
  Sampler sampler(params, prompt, 0, {});
  sampler.Accept(2);
  sampler.Accept(2);
  sampler.Accept(1);
  std::vector<float> logits = {3.0F, -2.0F, 6.0F, 1.0F, -1.0F};
  sampler.Draw(logits, 0);
  EXPECT_EQ(logits[0], 3.0F / 1.5F);                       // prompt: repetition only
  EXPECT_EQ(logits[1], -2.0F * 1.5F - (0.5F + 0.25F));     // both: repetition once
  EXPECT_EQ(logits[2], 6.0F / 1.5F - (2 * 0.5F + 0.25F));  // generated twice
  EXPECT_EQ(logits[3], 1.0F);
  EXPECT_EQ(logits[4], 0.0F);  // bias
}

TEST(Sampler, RollbackRestoresEveryDraw) {
  SamplingParams params = Seeded();
  params.frequency_penalty = 1.0F;
  params.presence_penalty = 0.3F;
  params.repetition_penalty = 1.2F;
  params.min_tokens = 4;
  params.dry_multiplier = 0.5F;
  params.dry_allowed_length = 1;
  const std::vector<TokenId> prompt = {1, 2};
  Sampler straight(params, prompt, 0, {9});
  Sampler wandering(params, prompt, 0, {9});
  std::mt19937_64 random(4);
  const std::vector<float> logits = RandomLogits(50, 8);
  for (uint32_t position = 0; position < 60; ++position) {
    const auto detour = static_cast<uint32_t>(random() % 6);
    for (uint32_t i = 0; i < detour; ++i) wandering.Accept(static_cast<TokenId>(random() % 50));
    wandering.Rollback(detour);
    std::vector<float> first = logits;
    std::vector<float> second = logits;
    const Sample expected = straight.Draw(first, position);
    const Sample found = wandering.Draw(second, position);
    ASSERT_EQ(found.token, expected.token);
    ASSERT_EQ(first, second);
    straight.Accept(expected.token);
    wandering.Accept(expected.token);
    ASSERT_EQ(wandering.accepted(), straight.accepted());
  }
}

TEST(Sampler, RollbackRestoresMirostat) {
  SamplingParams params = Seeded(5);
  params.mirostat = 2;
  params.mirostat_tau = 2.0F;
  params.mirostat_eta = 0.5F;
  Sampler straight(params, {}, 0, {});
  Sampler wandering(params, {}, 0, {});
  std::mt19937_64 random(4);
  const std::vector<float> logits = RandomLogits(50, 8);
  for (uint32_t position = 0; position < 60; ++position) {
    const auto detour = static_cast<uint32_t>(random() % 4);
    for (uint32_t i = 0; i < detour; ++i) {
      wandering.Accept(DrawToken(wandering, logits, position + i));
    }
    wandering.Rollback(detour);
    const TokenId token = DrawToken(straight, logits, position);
    ASSERT_EQ(DrawToken(wandering, logits, position), token);
    straight.Accept(token);
    wandering.Accept(token);
  }
}

// Frequencies of many draws at different positions.
std::map<TokenId, double> Frequencies(const SamplingParams& params,
                                      const std::vector<float>& logits) {
  constexpr uint32_t kDraws = 20'000;
  Sampler sampler(params, {}, 0, {});
  std::map<TokenId, double> counts;
  for (uint32_t position = 0; position < kDraws; ++position) {
    counts[DrawToken(sampler, logits, position)] += 1.0 / kDraws;
  }
  return counts;
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Sampler, TypicalKeepsWhatIsNearestToTheEntropy) {
  // Entropy 1.28: surprises are 0.69, 1.39, 2.30, 2.53, 2.66, so token 1 is the most typical one
  // and token 0 the next.
  const std::vector<float> logits = LogitsOf({0.5, 0.25, 0.1, 0.08, 0.07});
  SamplingParams params = Seeded();
  params.typical_p = 0.2F;
  EXPECT_EQ(Frequencies(params, logits).size(), 1U);
  EXPECT_TRUE(Frequencies(params, logits).contains(1));
  params.typical_p = 0.7F;
  const auto two = Frequencies(params, logits);
  ASSERT_EQ(two.size(), 2U);
  EXPECT_NEAR(two.at(0), 0.5 / 0.75, 0.02);
  EXPECT_NEAR(two.at(1), 0.25 / 0.75, 0.02);
}

TEST(Sampler, XtcDropsTheTopButItsLeast) {
  const std::vector<float> logits = LogitsOf({0.4, 0.3, 0.2, 0.06, 0.04});
  SamplingParams params = Seeded();
  params.xtc_probability = 1.0F;
  params.xtc_threshold = 0.1F;
  const auto always = Frequencies(params, logits);
  EXPECT_FALSE(always.contains(0));
  EXPECT_FALSE(always.contains(1));
  EXPECT_NEAR(always.at(2), 0.2 / 0.3, 0.02);
  params.xtc_probability = 0.5F;
  EXPECT_NEAR(Frequencies(params, logits).at(0), 0.2, 0.02);
  // One token alone above the threshold stays.
  params.xtc_probability = 1.0F;
  params.xtc_threshold = 0.35F;
  EXPECT_NEAR(Frequencies(params, logits).at(0), 0.4, 0.02);
}

TEST(Sampler, TopNSigmaDropsWhatIsFarBelowTheBest) {
  // Mean 0, standard deviation 2.
  const std::vector<float> logits = {4.0F, 0.0F, -2.0F, -2.0F, 0.0F, 2.0F, -2.0F, 0.0F};
  SamplingParams params = Seeded();
  params.top_n_sigma = 1.1F;
  const auto kept = Frequencies(params, logits);
  EXPECT_EQ(kept.size(), 2U);
  EXPECT_TRUE(kept.contains(0));
  EXPECT_TRUE(kept.contains(5));
}

TEST(Sampler, DryPenalisesTheContinuationOfARepetition) {
  SamplingParams params;
  params.temperature = 0;
  params.dry_multiplier = 2.0F;
  params.dry_base = 3.0F;
  params.dry_allowed_length = 2;
  // "1 2 3 4" came before; after "1 2 3" again, 4 would repeat three tokens: 2 * 3^(3-2) = 6.
  Sampler sampler(params, std::vector<TokenId>{1, 2, 3, 4, 9, 1, 2}, 0, {});
  sampler.Accept(3);
  std::vector<float> logits = {0, 0, 0, 0, 5.5F, 0};
  EXPECT_EQ(DrawToken(sampler, logits), 0);
  logits[4] = 6.5F;
  EXPECT_EQ(DrawToken(sampler, logits), 4);
  logits[4] = 0.1F;
  sampler.Rollback(1);
  EXPECT_EQ(DrawToken(sampler, logits), 4);
}

// The paper's algorithm in double, fed with what the sampler draws: nothing beyond mu is drawn, and
// the surprise of what is drawn settles at tau.
TEST(Sampler, MirostatKeepsTheSurpriseNearItsTarget) {
  const std::vector<float> logits = RandomLogits(2000, 21);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  const auto probability = [&](size_t i) {
    return std::exp(static_cast<double>(logits[i])) / total;
  };
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const double tau : {2.0, 4.0, 6.0}) {
    SamplingParams params = Seeded();
    params.mirostat = 2;
    params.mirostat_tau = static_cast<float>(tau);
    Sampler sampler(params, {}, 0, {});
    double mu = 2 * tau;
    double sum = 0;
    constexpr uint32_t kDraws = 3000;
    for (uint32_t position = 0; position < kDraws; ++position) {
      const auto token = static_cast<size_t>(DrawToken(sampler, logits, position));
      double kept = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
        const bool keeps = -std::log2(probability(i)) <= mu || static_cast<ptrdiff_t>(i) == best;
        if (keeps) kept += probability(i);
      }
      EXPECT_TRUE(-std::log2(probability(token)) <= mu + 1e-3 ||
                  static_cast<ptrdiff_t>(token) == best);
      const double surprise = -std::log2(probability(token) / kept);
      mu -= static_cast<double>(params.mirostat_eta) * (surprise - tau);
      sum += position < kDraws / 2 ? 0.0 : surprise;
      sampler.Accept(static_cast<TokenId>(token));
    }
    EXPECT_NEAR(sum / (kDraws / 2), tau, 0.2);
  }
}

TEST(Sampler, MirostatTargetsOrderTheSurprise) {
  const std::vector<float> logits = RandomLogits(2000, 22);
  const auto distinct = [&](float tau) {
    SamplingParams params = Seeded();
    params.mirostat = 2;
    params.mirostat_tau = tau;
    Sampler sampler(params, {}, 0, {});
    std::map<TokenId, int> counts;
    for (uint32_t position = 0; position < 2000; ++position) {
      const TokenId token = DrawToken(sampler, logits, position);
      ++counts[token];
      sampler.Accept(token);
    }
    return counts.size();
  };
  EXPECT_LT(distinct(1.0F), distinct(4.0F));
  EXPECT_LT(distinct(4.0F), distinct(8.0F));
}

TEST(Sampler, StopTokensAreMaskedUntilMinTokensAndForeverWhenIgnored) {
  SamplingParams params;
  params.temperature = 0.0F;
  params.min_tokens = 2;
  const std::vector<float> logits = {0.0F, 5.0F, 1.0F};
  Sampler sampler(params, {}, 0, {1});
  EXPECT_EQ(DrawToken(sampler, logits), 2);
  sampler.Accept(2);
  EXPECT_EQ(DrawToken(sampler, logits), 2);
  sampler.Accept(2);
  EXPECT_EQ(DrawToken(sampler, logits), 1);
  params.min_tokens = 0;
  params.ignore_eos = true;
  Sampler ignoring(params, {}, 0, {1});
  EXPECT_EQ(DrawToken(ignoring, logits), 2);
}

TEST(Sampler, TheCandidatesThatItNeedsDecideTheDraw) {
  std::vector<SamplingParams> cases = {Cut(0.0F), Cut(0.7F, 1), Cut(1.0F, 40, 0.9F, 0.01F),
                                       Cut(1.5F, 100, 1.0F, 0.05F)};
  cases.push_back(Cut(0.0F));
  cases.back().ignore_eos = true;
  cases.push_back(Cut(1.0F, 20));
  cases.back().min_tokens = 5;
  for (SamplingParams& params : cases) {
    params.seed = 3;
    const std::vector<TokenId> stop = {7, 11, 12};
    const uint32_t needed = CandidatesNeeded(params, stop.size());
    ASSERT_GT(needed, 0U);
    Sampler whole(params, {}, 0, stop);
    Sampler sparse(params, {}, 0, stop);
    for (uint32_t position = 0; position < 200; ++position) {
      std::vector<float> logits = RandomLogits(500, position);
      // Stop tokens among the best, and ties.
      logits[7] = logits[12] = logits[400] = logits[401] = 9.0F;
      std::vector<Candidate> best(needed);
      SelectBest(logits, {}, best);
      std::vector<float> few(logits.size(), -kInfinity);
      for (const Candidate& candidate : best) {
        few[static_cast<size_t>(candidate.token)] = candidate.logit;
      }
      ASSERT_EQ(DrawToken(sparse, few, position), DrawToken(whole, logits, position));
    }
  }
}

TEST(Sampler, NeedsAllLogitsWhereTheWholeDistributionCounts) {
  EXPECT_EQ(CandidatesNeeded(Cut(0.0F), 0), 1U);
  EXPECT_EQ(CandidatesNeeded(Cut(1.0F, 40), 2), 42U);
  EXPECT_EQ(CandidatesNeeded(Cut(1.0F), 0), 0U);
  EXPECT_EQ(CandidatesNeeded(Cut(1.0F, 0, 0.9F), 0), 0U);
  EXPECT_EQ(CandidatesNeeded(Cut(1.0F, -1), 0), 0U);
  EXPECT_EQ(CandidatesNeeded(Cut(1.0F, 1000), 0), 0U);
  const auto with = [](auto change) {
    SamplingParams params = Cut(0.0F);
    change(params);
    return CandidatesNeeded(params, 0);
  };
  EXPECT_EQ(with([](SamplingParams& p) { p.logprobs = 0; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.repetition_penalty = 1.1F; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.presence_penalty = 0.1F; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.frequency_penalty = 0.1F; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.logit_bias = {{3, 1.0F}}; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.dry_multiplier = 0.8F; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.mirostat = 2; }), 0U);
  EXPECT_EQ(with([](SamplingParams& p) { p.top_n_sigma = 1.0F; }), 0U);
}

TEST(Sampler, MaskedTokensNeverCome) {
  const std::vector<uint64_t> mask = {0b1010};
  Sampler sampler(Seeded(), {}, 0, {});
  for (uint32_t position = 0; position < 200; ++position) {
    const TokenId token = DrawToken(sampler, {9.0F, 0.0F, 9.0F, 1.0F}, position, mask);
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
}

TEST(Sampler, ReportsRawLogprobsBeforePenaltiesBiasAndMask) {
  SamplingParams params;
  params.temperature = 0.0F;
  params.logprobs = 3;
  params.logit_bias = {{.token = 2, .bias = 50.0F}};
  params.frequency_penalty = 1.0F;
  std::vector<float> logits = {1.0F, 4.0F, 2.0F, 3.0F};
  const std::vector<uint64_t> mask = {0b0101};
  Sampler sampler(params, {}, 0, {});
  sampler.Accept(2);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  const Sample sample = sampler.Draw(logits, 1, mask);
  EXPECT_EQ(sample.token, 2);
  EXPECT_EQ(sample.logprob.token, 2);
  EXPECT_NEAR(sample.logprob.logprob, 2.0 - std::log(sum), 1e-6);
  ASSERT_EQ(sample.top.size(), 3U);
  EXPECT_EQ(sample.top[0].token, 1);
  EXPECT_EQ(sample.top[1].token, 3);
  EXPECT_EQ(sample.top[2].token, 2);
  EXPECT_NEAR(sample.top[1].logprob, 3.0 - std::log(sum), 1e-6);
}

TEST(Sampler, ReportsRawLogprobOfASampledToken) {
  SamplingParams params = Seeded();
  params.logprobs = 0;
  params.temperature = 0.6F;
  Sampler sampler(params, {}, 0, {});
  const std::vector<float> raw = RandomLogits(2000, 6);
  double sum = 0;
  for (const float logit : raw) sum += std::exp(static_cast<double>(logit));
  for (uint32_t position = 0; position < 20; ++position) {
    std::vector<float> logits = raw;
    const Sample sample = sampler.Draw(logits, position);
    EXPECT_TRUE(sample.top.empty());
    EXPECT_NEAR(sample.logprob.logprob, raw[static_cast<size_t>(sample.token)] - std::log(sum),
                2e-5);
  }
}

TEST(Sampler, NonFiniteLogitsGiveNoToken) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::vector<float>> bad = {
      {0.0F, nan, 1.0F}, {kInfinity, 0.0F, 1.0F}, {-kInfinity, -kInfinity, -kInfinity}};
  for (const float temperature : {0.0F, 1.0F}) {
    SamplingParams params = Seeded();
    params.temperature = temperature;
    Sampler sampler(params, {}, 0, {});
    for (std::vector<float> logits : bad) {
      const Sample sample = sampler.Draw(logits, 0);
      EXPECT_FALSE(sample.finite);
      EXPECT_EQ(sample.token, -1);
    }
    std::vector<float> one = {-kInfinity, -kInfinity, 0.5F};
    EXPECT_EQ(sampler.Draw(one, 0).token, 2);
  }
}

TEST(Sampler, EverythingMaskedGivesNoToken) {
  const std::vector<uint64_t> mask = {0};
  Sampler sampler(Seeded(), {}, 0, {});
  std::vector<float> logits = {0.0F, 1.0F};
  EXPECT_FALSE(sampler.Draw(logits, 0, mask).finite);
}

}  // namespace
}  // namespace engine
