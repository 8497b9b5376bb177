#include "server/answer_sink.h"

#include <utility>

#include "server/text_feed.h"

namespace server {
namespace {

// Splits off the white space at the end.
std::string_view TrimEnd(std::string_view text, std::string_view* space) {
  const size_t last = text.find_last_not_of(kWhiteSpace);
  const size_t end = last == std::string_view::npos ? 0 : last + 1;
  *space = text.substr(end);
  return text.substr(0, end);
}

}  // namespace

void AnswerSink::Append(AnswerPart::Kind kind, std::string_view text) {
  if (text.empty()) return;
  const uint32_t call = kind == AnswerPart::Kind::kArguments ? calls_ - 1 : 0;
  if (parts_.empty() || parts_.back().kind != kind || parts_.back().call != call) {
    parts_.push_back({.kind = kind, .text = {}, .call = call, .id = {}});
  }
  parts_.back().text += text;
}

void AnswerSink::Content(std::string_view text) {
  std::string_view space;
  const std::string_view words = TrimEnd(text, &space);
  if (!words.empty()) {
    // What stands between markup and the first word separates nothing.
    size_t begin = 0;
    if (after_markup_ && !any_content_) {
      content_space_.clear();
      begin = words.find_first_not_of(kWhiteSpace);
    }
    Append(AnswerPart::Kind::kContent, std::exchange(content_space_, {}));
    Append(AnswerPart::Kind::kContent, words.substr(begin));
    any_content_ = true;
    after_markup_ = false;
  }
  content_space_ += space;
}

void AnswerSink::Reasoning(std::string_view text) {
  std::string_view space;
  const std::string_view words = TrimEnd(text, &space);
  if (!words.empty()) {
    Append(AnswerPart::Kind::kReasoning, std::exchange(reasoning_space_, {}));
    Append(AnswerPart::Kind::kReasoning,
           any_reasoning_ ? words : words.substr(words.find_first_not_of(kWhiteSpace)));
    any_reasoning_ = true;
  }
  if (any_reasoning_) reasoning_space_ += space;
}

void AnswerSink::Call(std::string name) {
  parts_.push_back(
      {.kind = AnswerPart::Kind::kCall, .text = std::move(name), .call = calls_++, .id = {}});
  after_markup_ = true;
}

void AnswerSink::Arguments(std::string_view text) { Append(AnswerPart::Kind::kArguments, text); }

void AnswerSink::Finish() {
  if (!after_markup_) Append(AnswerPart::Kind::kContent, content_space_);
  content_space_.clear();
}

std::vector<AnswerPart> AnswerSink::Take() { return std::exchange(parts_, {}); }

}  // namespace server
