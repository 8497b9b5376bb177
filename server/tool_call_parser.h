#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_parser.h"
#include "server/answer_sink.h"
#include "server/text_feed.h"

namespace server {

// Reads calls of functions where a marker, or the start of an answer, says that one may follow.
//
// The feed records while it is not clear whether the text is a call; with the first Call() it
// stops. A task that returns false has found no call: the recorded text is content.
class ToolCallParser {
 public:
  // All outlive it. syntax.tools is not null.
  ToolCallParser(const AnswerSyntax& syntax, TextFeed& feed, AnswerSink& sink);

  // After an opening marker.
  ParserTask<bool> AfterMarker(std::string_view marker);
  // At the start of an answer, for formats that need no marker. Only functions that were offered
  // count as calls there: the text may be an answer that looks alike.
  ParserTask<bool> AtStart();
  // A channel's text up to a marker is the call's arguments.
  void Begin(std::string name);

  // No further call is wanted.
  bool enough() const { return !syntax_.tools->parallel && sink_.calls() > 0; }

  TextFeed& feed() { return feed_; }

 private:
  enum class End { kValue, kBroken, kText };

  ParserTask<int> SkipSpace();
  ParserTask<bool> Expect(std::string_view word);
  ParserTask<std::optional<std::string>> QuotedString();
  ParserTask<std::string> NameUntil(std::string_view stops);
  ParserTask<std::string> TextUntil(std::string_view word);

  // A JSON value as it is written: into *capture, or, without one, as arguments.
  ParserTask<End> Value(std::string* capture);
  ParserTask<bool> ArgumentsValue();
  ParserTask<bool> BrokenArguments();

  using Call = ParserTask<bool> (ToolCallParser::*)(bool only_offered);
  // One call, or a list of them in brackets. False when none was found.
  ParserTask<bool> CallList(Call call, bool only_offered);
  ParserTask<bool> JsonCalls(bool only_offered);
  ParserTask<bool> BracedCall(bool only_offered);
  ParserTask<bool> JsonCall(bool only_offered);
  ParserTask<bool> KeyedCall();
  ParserTask<bool> XmlCall();
  ParserTask<bool> XmlParameter(std::string name, bool first);
  ParserTask<bool> TextArgument(std::string_view close, bool trims);
  ParserTask<bool> GlmCall();
  ParserTask<bool> MistralCall();
  ParserTask<bool> DeepSeekCall();
  ParserTask<bool> PythonCalls(bool only_offered);
  ParserTask<bool> PythonCall(bool only_offered);
  ParserTask<std::string> PythonArgument();

  bool IsText(std::string_view argument) const;

  const AnswerSyntax& syntax_;
  TextFeed& feed_;
  AnswerSink& sink_;
  std::vector<std::string> closing_;
  std::string name_;  // of the call that is being read
};

}  // namespace server
