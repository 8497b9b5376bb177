#include "cli/text_score.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <stdexcept>

#include "cli/text_file.h"
#include "fabric/vector_ops.h"

namespace cli {

using engine::TokenId;

double TextScore::perplexity() const { return std::exp(sum_ / static_cast<double>(count_)); }

double TextScore::standard_error() const {
  if (count_ < 2) return 0;
  const auto n = static_cast<double>(count_);
  const double mean = sum_ / n;
  const double variance = std::max(0.0, squares_ / n - mean * mean);
  return perplexity() * std::sqrt(variance / (n - 1));
}

std::vector<TokenId> TokenizeTextFile(const std::string& path,
                                      const engine::text::Tokenizer& tokenizer) {
  std::string text = ReadTextFile(path);
  if (text.ends_with('\n')) text.pop_back();
  return tokenizer.Encode(text, {.add_special = true, .parse_special = false});
}

uint64_t ChunksOf(size_t tokens, const TextScoreOptions& options) {
  const uint64_t chunks = tokens / options.context;
  if (chunks == 0) {
    throw std::runtime_error("The text has " + std::to_string(tokens) +
                             " tokens; one chunk needs " + std::to_string(options.context) + ".");
  }
  return options.chunks == 0 ? chunks : std::min(chunks, options.chunks);
}

TextScore ScoreText(LocalModel& model, std::span<const TokenId> tokens,
                    const TextScoreOptions& options, const OnChunk& on_chunk,
                    const OnPosition& on_position) {
  const uint64_t chunks = ChunksOf(tokens.size(), options);
  model.PrepareKv(1, options.context);
  LocalSequence sequence(model, 0);
  const engine::text::Tokenizer& tokenizer = model.tokenizer();
  const bool with_bos = tokenizer.adds_bos() && tokenizer.bos().has_value();
  TextScore score;
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    const auto targets = tokens.subspan(chunk * options.context, options.context);
    std::vector<TokenId> input(targets.begin(), targets.end());
    if (with_bos) input[0] = *tokenizer.bos();
    sequence.Truncate(0);
    sequence.Append(std::span(input).first(input.size() - 1), options.context / 2,
                    [&](uint32_t position, std::span<float> logits) {
                      const ScoredPosition scored = {
                          .target = targets[position + 1],
                          .logits = logits,
                          .log_sum = fabric::LogSumExp(logits.data(), logits.size())};
                      score.Add(scored.nll());
                      if (on_position) on_position(scored);
                    });
    if (on_chunk) on_chunk(chunk + 1, chunks, score);
  }
  return score;
}

void PrintChunk(uint64_t chunk, uint64_t chunks, const TextScore& score) {
  std::cerr << "chunk " << chunk << " of " << chunks << ": perplexity " << score.perplexity()
            << "\n";
}

}  // namespace cli
