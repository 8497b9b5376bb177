#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/choice_text.h"

namespace server {

// A piece of an answer, in the order in which the client sees it.
struct AnswerPart {
  enum class Kind : uint8_t { kContent, kReasoning, kCall, kArguments };

  Kind kind = Kind::kContent;
  std::string text;   // kCall: the function's name
  uint32_t call = 0;  // kCall, kArguments: 0, 1, ... of the answer
  std::string id;     // kCall: what the client will call it
  // Those whose text begins in it, when log-probabilities were asked for.
  std::vector<ReportedToken> tokens = {};

  // As text: tokens are not compared.
  bool operator==(const AnswerPart& other) const {
    return kind == other.kind && text == other.text && call == other.call && id == other.id;
  }
};

// Collects the pieces that a parser finds. White space beside what is no content (markers, thoughts
// before the first word) is dropped, other text never is.
class AnswerSink {
 public:
  void Content(std::string_view text);
  void Reasoning(std::string_view text);
  // A call begins: arguments until the next one are its own.
  void Call(std::string name);
  void Arguments(std::string_view text);
  // What was read last is no content.
  void Markup() { after_markup_ = true; }
  // The text is over: white space that waited is content unless markup was last.
  void Finish();

  uint32_t calls() const { return calls_; }
  std::vector<AnswerPart> Take();

 private:
  void Append(AnswerPart::Kind kind, std::string_view text);

  std::vector<AnswerPart> parts_;
  uint32_t calls_ = 0;
  std::string content_space_;  // not yet known to stand between words
  std::string reasoning_space_;
  bool any_content_ = false;
  bool any_reasoning_ = false;
  bool after_markup_ = false;
};

}  // namespace server
