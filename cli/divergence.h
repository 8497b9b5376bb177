#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cli/logits_file.h"
#include "cli/text_score.h"

namespace cli {

// A mean and its standard error, sqrt(variance / (n - 1)).
struct MeanAndError {
  double mean = 0;
  double standard_error = 0;
};

// How far one model's predictions Q are from those of a base model P along the same text.
class Divergence {
 public:
  // The next position. REQUIRES: as many logits as the record has.
  void Add(const LogitsReader::Record& base, const ScoredPosition& position);

  struct Summary {
    MeanAndError kl;       // sum_i P_i (log P_i - log Q_i), in nats
    double kl_median = 0;  // quantiles by the nearest rank
    double kl_p90 = 0;
    double kl_p99 = 0;
    double kl_p999 = 0;
    double kl_max = 0;
    MeanAndError same_top;  // share of positions whose most probable token is the same
    double base_perplexity = 0;
    double perplexity = 0;
    MeanAndError log_ratio;      // mean of log Q(token that came) under log P: ln(ppl / ppl_base)
    double rms_probability = 0;  // root mean square of Q - P of the token that came
  };
  // REQUIRES: at least one position.
  Summary Summarise() const;

 private:
  std::vector<double> divergences_;
  std::vector<double> log_ratios_;
  uint64_t same_top_ = 0;
  double base_nll_ = 0;
  double nll_ = 0;
  double probability_squares_ = 0;
};

}  // namespace cli
