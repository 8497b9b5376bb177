#include "cli/divergence.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace cli {
namespace {

MeanAndError MeanOf(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  const double mean = sum / count;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double error = values.size() < 2 ? 0 : std::sqrt(squares / count / (count - 1));
  return {mean, error};
}

double Quantile(std::span<const double> ascending, double share) {
  const double rank = std::ceil(share * static_cast<double>(ascending.size()));
  return ascending[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

}  // namespace

void Divergence::Add(const LogitsReader::Record& base, const ScoredPosition& position) {
  assert(base.logprobs.size() == position.logits.size());
  const double log_sum = position.log_sum;
  double divergence = 0;
  for (size_t i = 0; i < base.logprobs.size(); ++i) {
    const double p = base.logprobs[i];
    const double q = double{position.logits[i]} - log_sum;
    divergence += std::exp(p) * (p - q);
  }
  divergences_.push_back(divergence);
  const auto top = std::max_element(position.logits.begin(), position.logits.end());
  const auto base_top = std::max_element(base.logprobs.begin(), base.logprobs.end());
  same_top_ += top - position.logits.begin() == base_top - base.logprobs.begin() ? 1 : 0;
  const double base_nll = -double{base.target_logprob};
  base_nll_ += base_nll;
  nll_ += position.nll();
  log_ratios_.push_back(position.nll() - base_nll);
  const double change = std::exp(-position.nll()) - std::exp(-base_nll);
  probability_squares_ += change * change;
}

Divergence::Summary Divergence::Summarise() const {
  assert(!divergences_.empty());
  std::vector<double> ascending = divergences_;
  std::sort(ascending.begin(), ascending.end());
  const auto count = static_cast<double>(divergences_.size());
  Summary summary;
  summary.kl = MeanOf(divergences_);
  summary.kl_median = Quantile(ascending, 0.5);
  summary.kl_p90 = Quantile(ascending, 0.9);
  summary.kl_p99 = Quantile(ascending, 0.99);
  summary.kl_p999 = Quantile(ascending, 0.999);
  summary.kl_max = ascending.back();
  const double same = static_cast<double>(same_top_) / count;
  summary.same_top = {same, count < 2 ? 0 : std::sqrt(same * (1 - same) / (count - 1))};
  summary.base_perplexity = std::exp(base_nll_ / count);
  summary.perplexity = std::exp(nll_ / count);
  summary.log_ratio = MeanOf(log_ratios_);
  summary.rms_probability = std::sqrt(probability_squares_ / count);
  return summary;
}

}  // namespace cli
