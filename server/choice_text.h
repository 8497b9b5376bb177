#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "server/stop_matcher.h"

namespace server {

// A generated token whose text, or part of it, has been shown.
struct ReportedToken {
  engine::TokenLogprob logprob;
  std::vector<engine::TokenLogprob> top;
  size_t text_offset = 0;  // in code points, from the start of the choice's text
};

struct TextDelta {
  std::string text;                   // valid UTF-8
  std::vector<ReportedToken> tokens;  // only when log-probabilities were asked for
  bool empty() const { return text.empty() && tokens.empty(); }
};

// Turns the tokens of one choice into the text that the client may see: whole UTF-8 characters,
// nothing of a stop string, each token's log-probability together with its text.
class ChoiceText {
 public:
  struct Options {
    bool show_special = false;
    std::vector<engine::TokenId> shown_tokens = {};  // control tokens, shown in any case
    bool drop_leading_space = false;
    bool logprobs = false;
    uint32_t min_tokens = 0;  // stop strings count only after so many tokens
    std::vector<std::string> stop;
  };

  // tokenizer outlives it.
  ChoiceText(const engine::text::Tokenizer& tokenizer, Options options);

  // REQUIRES: not stopped().
  TextDelta Push(engine::TokenId token, ReportedToken report);
  // The choice is over: what was held back.
  TextDelta Finish();

  // A stop string was found; the text ends before it.
  bool stopped() const { return matcher_.matched(); }
  const std::string& stop_string() const { return matcher_.found(); }

 private:
  TextDelta Show(std::string text);

  Options options_;
  engine::text::Detokenizer detokenizer_;
  StopMatcher matcher_;
  uint32_t tokens_ = 0;
  size_t produced_bytes_ = 0;  // by the detokenizer
  size_t produced_chars_ = 0;
  size_t shown_bytes_ = 0;
  struct Pending {
    size_t begin = 0;  // first byte of its text
    ReportedToken report;
  };
  std::deque<Pending> pending_;  // tokens with nothing shown yet
};

// Tokens that wait for the pieces that their text is cut into.
class TokenShares {
 public:
  explicit TokenShares(const engine::text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void Add(const std::vector<ReportedToken>& tokens);
  // Those whose text begins in the next occurrence of `text`; those before it are of markers, and
  // are dropped. Where it does not occur: all, if it is text as the model wrote it (but for
  // characters that are none), and else none.
  std::vector<ReportedToken> Take(std::string_view text, bool verbatim);

 private:
  const engine::text::Tokenizer& tokenizer_;
  std::deque<ReportedToken> waiting_;
  std::string bytes_;       // the end of the token that was taken last, and those that wait
  size_t taken_bytes_ = 0;  // of that end
};

// Code points of valid UTF-8.
size_t CountCodePoints(std::string_view text);

}  // namespace server
