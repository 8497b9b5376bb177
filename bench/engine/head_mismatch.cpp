// How often a screened head gives other candidates than the full one, over the contexts of texts:
//
//   head_mismatch MODEL.gguf [--contexts N] [--best K] TEXT...
//
// Every position of every chunk of 512 tokens is a context. Counts those whose best token differs,
// and those whose K best (1) differ in token, order or bits. A context that had to be computed in
// full is counted apart: it cannot differ.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace {

using engine::Candidate;
using engine::TokenId;

constexpr uint32_t kChunk = 512;

std::vector<TokenId> ReadTokens(const std::string& path, const engine::text::Tokenizer& tokenizer) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  return tokenizer.Encode(text, {});
}

engine::Engine MakeEngine(const std::shared_ptr<const engine::Model>& model, engine::HeadMode mode,
                          fabric::Device& device, fabric::WorkerTeam& team) {
  engine::EngineOptions options;
  options.head = mode;
  options.screened_head_bytes = 0;
  options.context_length = kChunk;
  options.kv_bytes = engine::PlannedKvGeometry(model->config(), options).BytesPerBlock() *
                     engine::PlannedKvGeometry(model->config(), options).BlocksFor(kChunk);
  return {model, options, device, team};
}

// The best candidates of every position of the chunk: [tokens, k].
std::vector<Candidate> Best(engine::Engine& engine, std::span<const TokenId> tokens, uint32_t k,
                            engine::StepStats* sum) {
  std::vector<engine::BlockId> blocks(engine.kv_geometry().BlocksFor(kChunk));
  std::iota(blocks.begin(), blocks.end(), engine::BlockId{0});
  std::vector<uint32_t> outputs(tokens.size());
  std::iota(outputs.begin(), outputs.end(), 0U);
  engine::BatchRow row;
  row.tokens = tokens;
  row.block_table = blocks;
  row.outputs = outputs;
  row.output_kind = engine::OutputKind::kCandidates;
  row.query.k = k;
  const engine::StepOutput output = engine.Step({.rows = {&row, 1}});
  if (output.rows[0].status != engine::RowStatus::kOk) throw std::runtime_error("a step failed");
  sum->screened_positions += output.stats.screened_positions;
  sum->screen_fallbacks += output.stats.screen_fallbacks;
  sum->guard_trips += output.stats.guard_trips;
  sum->refined_rows += output.stats.refined_rows;
  return {output.rows[0].candidates.begin(), output.rows[0].candidates.end()};
}

bool SameCandidate(const Candidate& a, const Candidate& b) {
  return a.token == b.token && std::memcmp(&a.logit, &b.logit, sizeof(float)) == 0;
}

struct Totals {
  uint32_t k = 1;
  uint64_t contexts = 0;
  uint64_t other_best = 0;
  uint64_t other_candidates = 0;
  engine::StepStats stats;
  engine::StepStats full;

  void Compare(const std::vector<Candidate>& a, const std::vector<Candidate>& b) {
    for (size_t i = 0; i < a.size(); i += k) {
      contexts += 1;
      other_best += a[i].token != b[i].token ? 1 : 0;
      const bool same = std::equal(a.begin() + static_cast<ptrdiff_t>(i),
                                   a.begin() + static_cast<ptrdiff_t>(i + k),
                                   b.begin() + static_cast<ptrdiff_t>(i), SameCandidate);
      other_candidates += same ? 0 : 1;
    }
  }
  void Print(uint32_t vocabulary) const {
    const auto screened = static_cast<double>(std::max(1U, stats.screened_positions));
    std::cout << contexts << " contexts: another best token in " << other_best
              << ", other candidates (" << k << ") in " << other_candidates << "; "
              << stats.screen_fallbacks << " computed in full, of them " << stats.guard_trips
              << " by the guard; " << static_cast<double>(stats.refined_rows) / screened << " of "
              << vocabulary << " rows refined on average" << std::endl;
  }
};

void Run(const std::string& path, uint64_t limit, uint32_t k,
         const std::vector<std::string>& texts) {
  fabric::WorkerTeam team(0);
  const auto device = fabric::CreateDevice({}, team);
  const std::shared_ptr<const engine::Model> model =
      engine::Model::Load(path, {}, *device, team, {});
  engine::Engine full = MakeEngine(model, engine::HeadMode::kFull, *device, team);
  engine::Engine screened = MakeEngine(model, engine::HeadMode::kScreened, *device, team);
  if (screened.head_mode() != engine::HeadMode::kScreened) {
    throw std::runtime_error("this model's head cannot be screened");
  }
  Totals totals;
  totals.k = k;
  for (const std::string& text : texts) {
    const std::vector<TokenId> tokens = ReadTokens(text, model->tokenizer());
    for (size_t first = 0; first < tokens.size() && totals.contexts < limit; first += kChunk) {
      const auto chunk =
          std::span(tokens).subspan(first, std::min<size_t>(kChunk, tokens.size() - first));
      totals.Compare(Best(full, chunk, k, &totals.full), Best(screened, chunk, k, &totals.stats));
    }
    totals.Print(model->config().vocabulary);
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t limit = ~uint64_t{0};
  uint64_t best = 1;
  std::vector<std::string> texts;
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--contexts") == 0 && i + 1 < argc) {
      limit = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--best") == 0 && i + 1 < argc) {
      best = std::strtoull(argv[++i], nullptr, 10);
    } else {
      texts.emplace_back(argv[i]);
    }
  }
  if (texts.empty()) {
    std::cerr << "usage: head_mismatch MODEL.gguf [--contexts N] [--best K] TEXT...\n";
    return 2;
  }
  try {
    Run(argv[1], limit, static_cast<uint32_t>(best), texts);
  } catch (const std::exception& error) {
    std::cerr << "head_mismatch: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
