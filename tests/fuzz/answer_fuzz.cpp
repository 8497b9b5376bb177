// Any answer in any format: reading it does not depend on how it was cut, fragments of arguments
// follow the call that they belong to, and without calls and thoughts every text is its content.
//
//   input := format flags text
//   flags:   1 = one call only, 6 = thoughts (none, possible, open, shown as content)
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_parser.h"
#include "server/json.h"
#include "server/param_reader.h"

namespace {

using server::AnswerParser;
using server::AnswerPart;
using server::AnswerSyntax;
using server::ToolFormat;

constexpr uint8_t kFormats = static_cast<uint8_t>(ToolFormat::kHarmony) + 1;

void Require(bool condition) {
  if (!condition) std::abort();
}

std::shared_ptr<const server::ToolRequest> Tools(bool parallel) {
  server::Json body = server::Json::parse(R"({"tools": [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object",
      "properties": {"text": {"type": "string"}, "n": {"type": "integer"}, "any": {}}}}},
    {"type": "function", "function": {"name": "g"}}]})");
  body["parallel_tool_calls"] = parallel;
  server::ParamReader reader(body);
  return std::make_shared<server::ToolRequest>(server::ReadTools(reader));
}

// Neighbours of one kind are one part: only how they are cut may differ.
class Joined {
 public:
  void Add(const std::vector<AnswerPart>& parts) {
    for (const AnswerPart& part : parts) {
      if (part.kind == AnswerPart::Kind::kCall) {
        Require(part.call == calls_);
        ++calls_;
      }
      if (part.kind == AnswerPart::Kind::kArguments) Require(part.call + 1 == calls_);
      const bool goes_on = !parts_.empty() && part.kind != AnswerPart::Kind::kCall &&
                           parts_.back().kind == part.kind && parts_.back().call == part.call;
      if (goes_on) {
        parts_.back().text += part.text;
      } else {
        parts_.push_back(part);
      }
    }
  }
  const std::vector<AnswerPart>& parts() const { return parts_; }

 private:
  std::vector<AnswerPart> parts_;
  uint32_t calls_ = 0;
};

// step 0: the whole text at once.
std::vector<AnswerPart> Read(const AnswerSyntax& syntax, std::string_view text, size_t step) {
  AnswerParser parser(syntax);
  Joined joined;
  for (size_t at = 0; at < text.size();) {
    const size_t size = step == 0 ? text.size() : 1 + (at * step) % 7;
    joined.Add(parser.Push(text.substr(at, size)));
    at += size;
  }
  joined.Add(parser.Finish());
  return joined.parts();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  static const auto several = Tools(true);
  static const auto one = Tools(false);
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  AnswerSyntax syntax;
  syntax.format = static_cast<ToolFormat>(data[0] % kFormats);
  syntax.markers = {"<think>", "</think>"};
  const int thoughts = (data[1] >> 1) & 3;
  syntax.reasoning = thoughts == 0   ? AnswerSyntax::Reasoning::kNone
                     : thoughts == 1 ? AnswerSyntax::Reasoning::kPossible
                                     : AnswerSyntax::Reasoning::kOpen;
  syntax.reasoning_as_content = thoughts == 3;
  syntax.tools = (data[1] & 1) != 0 ? one : several;

  const std::vector<AnswerPart> whole = Read(syntax, text, 0);
  Require(Read(syntax, text, 1) == whole);
  Require(Read(syntax, text, 3 + data[1] % 5) == whole);

  syntax.tools = nullptr;
  syntax.reasoning = AnswerSyntax::Reasoning::kNone;
  std::string content;
  for (const AnswerPart& part : Read(syntax, text, 1)) {
    Require(part.kind == AnswerPart::Kind::kContent);
    content += part.text;
  }
  Require(content == text);
  return 0;
}
