#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "server/answer_sink.h"
#include "server/chat_syntax.h"
#include "server/tool_request.h"

namespace server {

// How the text of one answer is to be read.
struct AnswerSyntax {
  enum class Reasoning : uint8_t {
    kNone,      // all text is content
    kPossible,  // the answer may begin with a section of thoughts
    kOpen,      // the prompt has opened the section: the answer begins inside it
  };

  Reasoning reasoning = Reasoning::kNone;
  ReasoningMarkers markers;           // of thoughts
  bool reasoning_as_content = false;  // thoughts are shown as they are written
  ToolFormat format = ToolFormat::kJson;
  std::string call_open;  // what a model with pythonic calls writes around them
  std::string call_close;
  std::vector<engine::TokenId> marker_tokens;  // as ChatSyntax
  bool hides_reasoning = false;                // thoughts are read, and not shown
  bool one_call = false;                       // the template could not show several calls again
  // nullptr: calls are not looked for. Shared, because parsers of all choices look at it.
  std::shared_ptr<const ToolRequest> tools;
};

// Splits the text of an answer into thoughts, content and calls while it arrives.
//
// What is no call after all (a marker without one, JSON that names no function) is content again.
// Arguments are passed on as they come, so that a call that breaks off in its arguments stays one,
// with what came as its arguments, never completed. The parts do not depend on where the text was
// cut, but for how they are cut themselves. ToolFormat lists the formats.
//
// Threads: one at a time. Errors: none; any text has parts.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerSyntax syntax);
  ~AnswerParser();
  AnswerParser(const AnswerParser&) = delete;
  AnswerParser& operator=(const AnswerParser&) = delete;

  std::vector<AnswerPart> Push(std::string_view text);
  // The text is over: what was held back.
  std::vector<AnswerPart> Finish();

  // The text so far ends inside a section of thoughts.
  bool reasoning() const;
  uint32_t calls() const;
  // The answer's only call is there, and another one is not wanted: what follows is not read.
  bool complete() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace server
