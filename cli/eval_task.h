#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/continuation_scorer.h"
#include "engine/text/tokenizer.h"

namespace cli {

// The forms of questions, told apart by the fields of a line:
//
//   {"query", "choices": [...], "gold"}                one context, several continuations
//   {"context_options": [...], "continuation", "gold"} several contexts, one continuation
//   {"context", "continuation"}                        the continuation must be the first choice
//   {"sentence_good", "sentence_bad"}                  BLiMP: the good one must be likelier
enum class EvalKind { kMultipleChoice, kSchema, kCloze, kPair };
std::string_view EvalKindName(EvalKind kind);

struct EvalChoice {
  std::string context;       // without trailing white space
  std::string continuation;  // with what stands between the two, for example " signs"
  size_t answer_bytes = 0;   // of the answer itself, for length-normalised accuracy
};

struct EvalQuestion {
  std::vector<EvalChoice> choices;
  size_t gold = 0;
};

struct EvalTask {
  std::string name;  // of the file
  EvalKind kind = EvalKind::kMultipleChoice;
  std::vector<EvalQuestion> questions;
};

struct EvalTaskOptions {
  // Between context and continuation; std::nullopt: "\nAnswer: " after a query that begins with
  // "Question:", else a space.
  std::optional<std::string> delimiter;
  uint64_t limit = 0;  // only so many questions per task; 0 = all
};

// The task of a JSONL file, or those of all *.jsonl files of a folder (BLiMP), by name.
// Errors: std::runtime_error naming file, line, what was expected and found.
std::vector<EvalTask> LoadEvalTasks(const std::string& path, const EvalTaskOptions& options);

// What must be scored for one question: one item whose continuations are the choices when they
// share a context, else one item per choice.
//
// Context and whole are tokenised as wholes; the tokens from where they first differ are scored, so
// that a tokenizer that joins over the border is measured fairly. A text without context follows
// BOS, or EOS in a vocabulary without BOS.
std::vector<ScoringItem> ScoringItemsOf(const EvalQuestion& question,
                                        const engine::text::Tokenizer& tokenizer);

}  // namespace cli
