#include "engine/sampling_params.h"

#include <cmath>
#include <cstdio>

namespace engine {
namespace {

std::string NumberText(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

struct Range {
  const char* name;
  float value;
  float low;
  float high;
  bool open_low;  // the low end itself is not allowed
};

bool Inside(const Range& range) {
  const bool above = range.open_low ? range.value > range.low : range.value >= range.low;
  return above && range.value <= range.high;  // false for NaN
}

std::string Complain(const Range& range) {
  return std::string(range.name) + " must be in " + (range.open_low ? "(" : "[") +
         NumberText(range.low) + ", " + NumberText(range.high) + "], but it is " +
         NumberText(range.value) + ".";
}

}  // namespace

std::string SamplingParams::Validate(uint32_t vocabulary, std::string* param) const {
  const Range ranges[] = {
      {"temperature", temperature, 0.0F, 2.0F, false},
      {"top_p", top_p, 0.0F, 1.0F, true},
      {"min_p", min_p, 0.0F, 1.0F, false},
      {"presence_penalty", presence_penalty, -2.0F, 2.0F, false},
      {"frequency_penalty", frequency_penalty, -2.0F, 2.0F, false},
      {"repetition_penalty", repetition_penalty, 0.0F, 2.0F, true},
      {"typical_p", typical_p, 0.0F, 1.0F, true},
      {"top_n_sigma", top_n_sigma, 0.0F, 100.0F, false},
      {"xtc_probability", xtc_probability, 0.0F, 1.0F, false},
      {"xtc_threshold", xtc_threshold, 0.0F, 1.0F, false},
      {"dry_multiplier", dry_multiplier, 0.0F, 100.0F, false},
      {"dry_base", dry_base, 1.0F, 100.0F, false},
      {"mirostat_tau", mirostat_tau, 0.0F, 20.0F, true},
      {"mirostat_eta", mirostat_eta, 0.0F, 1.0F, false},
  };
  for (const Range& range : ranges) {
    if (!Inside(range)) {
      *param = range.name;
      return Complain(range);
    }
  }
  if (top_k < -1) {
    *param = "top_k";
    return "top_k must be at least 0, or -1 for all tokens, but it is " + std::to_string(top_k) +
           ".";
  }
  if (mirostat != 0 && mirostat != 2) {
    *param = "mirostat";
    return "mirostat must be 0 or 2, but it is " + std::to_string(mirostat) + ".";
  }
  if (logprobs < -1 || logprobs > 20) {
    *param = "logprobs";
    return "logprobs must be between 0 and 20, but it is " + std::to_string(logprobs) + ".";
  }
  for (const LogitBias& bias : logit_bias) {
    if (bias.token < 0 || static_cast<uint32_t>(bias.token) >= vocabulary) {
      *param = "logit_bias";
      return "logit_bias names token " + std::to_string(bias.token) +
             ", but the vocabulary has tokens 0 to " + std::to_string(vocabulary - 1) + ".";
    }
    if (!Inside({"logit_bias", bias.bias, -100.0F, 100.0F, false})) {
      *param = "logit_bias";
      return Complain({"logit_bias", bias.bias, -100.0F, 100.0F, false});
    }
  }
  return {};
}

}  // namespace engine
