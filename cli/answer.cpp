#include "cli/answer.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <stdexcept>

#include "fabric/seconds_since.h"
#include "fabric/vector_ops.h"

namespace cli {
namespace {

using engine::TokenId;

// Ties go to the lower id.
std::vector<engine::TokenLogprob> BestLogprobs(std::span<const float> logits, float log_sum,
                                               size_t count) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  count = std::min(count, ids.size());
  const auto better = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                    better);
  std::vector<engine::TokenLogprob> best;
  for (size_t i = 0; i < count; ++i) {
    best.push_back({ids[i], logits[static_cast<size_t>(ids[i])] - log_sum});
  }
  return best;
}

engine::SamplingParams WithSeed(engine::SamplingParams params) {
  if (!params.seed) params.seed = static_cast<int64_t>(std::random_device{}());
  return params;
}

}  // namespace

Answer Generate(const LocalModel& model, LocalSequence& sequence, std::span<const TokenId> prompt,
                std::span<const TokenId> history, const AnswerRequest& request,
                const OnToken& on_token) {
  const engine::text::Tokenizer& tokenizer = model.tokenizer();
  const std::span<const TokenId> stops = tokenizer.stop_tokens();
  engine::Sampler sampler(WithSeed(request.sampling), history, 0, {stops.begin(), stops.end()});
  const bool forced = !request.forced.empty();
  const size_t limit = forced ? request.forced.size() : request.max_tokens;

  Answer answer;
  answer.finish_reason = "length";
  const auto start = std::chrono::steady_clock::now();
  std::span<float> logits = sequence.AppendForLast(prompt);
  answer.prompt_seconds = fabric::SecondsSince(start);
  const auto generation_start = std::chrono::steady_clock::now();
  while (answer.tokens.size() < limit) {
    // Before Draw(), which changes the logits.
    const float log_sum = fabric::LogSumExp(logits.data(), logits.size());
    AnswerLogprob logprob;
    if (request.logprobs >= 0) {
      logprob.top = BestLogprobs(logits, log_sum, static_cast<size_t>(request.logprobs));
    }
    TokenId token = 0;
    std::vector<float> raw;
    if (forced) {
      token = request.forced[answer.tokens.size()];
      logprob.taken = {token, logits[static_cast<size_t>(token)] - log_sum};
    } else {
      if (request.logprobs >= 0) raw.assign(logits.begin(), logits.end());
      const engine::Sample sample = sampler.Draw(logits, sequence.size());
      if (!sample.finite) {
        throw std::runtime_error(RowStatusText(engine::RowStatus::kNonFinite, sequence.size() - 1));
      }
      token = sample.token;
      if (!raw.empty()) logprob.taken = {token, raw[static_cast<size_t>(token)] - log_sum};
    }
    sampler.Accept(token);
    answer.tokens.push_back(token);
    if (request.logprobs >= 0) answer.logprobs.push_back(std::move(logprob));
    const bool stop = !forced && !request.sampling.ignore_eos && tokenizer.IsStop(token);
    if (stop) answer.finish_reason = "stop";
    const bool go_on = on_token(token) && !stop;
    if (!go_on || answer.tokens.size() == limit) break;
    logits = sequence.AppendForLast({&token, 1});
  }
  answer.generation_seconds = fabric::SecondsSince(generation_start);
  return answer;
}

}  // namespace cli
