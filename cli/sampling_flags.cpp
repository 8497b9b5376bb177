#include "cli/sampling_flags.h"

#include <string>

#include "cli/command.h"

namespace cli {

void AddSamplingFlags(CLI::App& command, engine::SamplingParams* params) {
  const auto add = [&](const char* flag, auto& value, const char* type, const char* help) {
    command.add_option(flag, value, help)
        ->type_name(type)
        ->group("Sampling options")
        ->capture_default_str();
  };
  add("--temperature", params->temperature, "T", "0 always takes the best token; at most 2");
  add("--top-k", params->top_k, "K", "sample among the K best; 0 = all");
  add("--top-p", params->top_p, "P", "sample among the best that together have probability P");
  add("--min-p", params->min_p, "P", "drop tokens less likely than P times the best");
  add("--presence-penalty", params->presence_penalty, "X", "against tokens that occurred");
  add("--frequency-penalty", params->frequency_penalty, "X", "against each time one occurred");
  add("--repeat-penalty,--repetition-penalty", params->repetition_penalty, "X",
      "divides the logits of tokens of prompt and answer; 1 = off");
  command
      .add_option_function<int64_t>(
          "--seed", [params](const int64_t& seed) { params->seed = seed; },
          "same seed, same text (default: a new one each time)")
      ->type_name("N")
      ->group("Sampling options");
  command.add_flag("--ignore-eos", params->ignore_eos, "go on after the end of turn")
      ->group("Sampling options");
  add("--min-tokens", params->min_tokens, "N", "no end of turn before N tokens");
}

void CheckSampling(const engine::SamplingParams& params, uint32_t vocabulary) {
  std::string parameter;
  const std::string problem = params.Validate(vocabulary, &parameter);
  if (!problem.empty()) throw UsageError(problem);
}

}  // namespace cli
