#include "server/choice_text.h"

#include <algorithm>
#include <utility>

namespace server {

ChoiceText::ChoiceText(const engine::text::Tokenizer& tokenizer, Options options)
    : options_(std::move(options)),
      detokenizer_(tokenizer, options_.show_special, options_.drop_leading_space,
                   std::move(options_.shown_tokens)),
      matcher_(std::move(options_.stop)) {}

TextDelta ChoiceText::Push(engine::TokenId token, ReportedToken report) {
  report.text_offset = produced_chars_;
  if (options_.logprobs) pending_.push_back({produced_bytes_, std::move(report)});
  const std::string text = detokenizer_.Push(token);
  produced_bytes_ += text.size();
  produced_chars_ += CountCodePoints(text);
  const bool may_stop = ++tokens_ >= options_.min_tokens;
  return Show(may_stop ? matcher_.Push(text) : text);
}

TextDelta ChoiceText::Finish() {
  std::string text = matcher_.Push(detokenizer_.Flush());
  if (!matcher_.matched()) text += matcher_.Flush();
  TextDelta delta = Show(std::move(text));
  // Tokens without text, such as shown control tokens at the end, belong to a text that was not
  // cut.
  if (!matcher_.matched()) {
    for (Pending& rest : pending_) delta.tokens.push_back(std::move(rest.report));
  }
  pending_.clear();
  return delta;
}

TextDelta ChoiceText::Show(std::string text) {
  TextDelta delta;
  delta.text = std::move(text);
  shown_bytes_ += delta.text.size();
  while (!pending_.empty() && pending_.front().begin < shown_bytes_) {
    delta.tokens.push_back(std::move(pending_.front().report));
    pending_.pop_front();
  }
  return delta;
}

void TokenShares::Add(const std::vector<ReportedToken>& tokens) {
  for (const ReportedToken& token : tokens) {
    waiting_.push_back(token);
    bytes_ += tokenizer_.TokenBytes(token.logprob.token, true);
  }
}

std::vector<ReportedToken> TokenShares::Take(std::string_view text, bool verbatim) {
  std::vector<ReportedToken> taken;
  if (text.empty()) return taken;
  const size_t found = bytes_.find(text);
  if (found == std::string::npos && !verbatim) return taken;
  const size_t begin = found == std::string::npos ? 0 : found;
  const size_t end = found == std::string::npos ? bytes_.size() : found + text.size();
  size_t token_begin = taken_bytes_;
  while (token_begin < end) {
    ReportedToken token = std::move(waiting_.front());
    waiting_.pop_front();
    token_begin += tokenizer_.TokenBytes(token.logprob.token, true).size();
    if (token_begin > begin) taken.push_back(std::move(token));
  }
  taken_bytes_ = token_begin - end;
  bytes_.erase(0, end);
  return taken;
}

size_t CountCodePoints(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace server
