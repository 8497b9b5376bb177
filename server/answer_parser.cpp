#include "server/answer_parser.h"

#include <algorithm>
#include <regex>
#include <utility>

#include "server/stop_matcher.h"
#include "server/text_feed.h"
#include "server/tool_call_parser.h"

namespace server {
class AnswerParser::Impl {
 public:
  explicit Impl(AnswerSyntax syntax)
      : syntax_(std::move(syntax)),
        reasoning_(syntax_.reasoning == AnswerSyntax::Reasoning::kOpen),
        run_(Run()) {
    if (syntax_.tools) {
      calls_.emplace(syntax_, feed_, sink_);
      opening_ = OpeningMarkers(syntax_.format);
      markers_ = opening_;
      for (std::string& marker : ClosingMarkers(syntax_.format)) {
        markers_.push_back(std::move(marker));
      }
    }
    run_.Begin();
  }

  TextFeed& feed() { return feed_; }
  AnswerSink& sink() { return sink_; }
  bool reasoning() const { return reasoning_; }
  bool complete() const { return calls_ && calls_->enough() && done_; }
  void Check() const { run_.Check(); }

 private:
  ParserTask<bool> Run() {
    if (syntax_.format == ToolFormat::kHarmony &&
        (syntax_.tools || syntax_.reasoning != AnswerSyntax::Reasoning::kNone)) {
      co_await Channels();
      co_return true;
    }
    if (syntax_.reasoning != AnswerSyntax::Reasoning::kNone) co_await Thoughts();
    if (calls_ && StandsAtStart()) co_await calls_->AtStart();
    while (!calls_ || !calls_->enough()) {
      const std::string marker = co_await ContentUntilMarker();
      if (marker.empty()) break;
      if (std::find(opening_.begin(), opening_.end(), marker) == opening_.end()) {
        // The end of a call, unless there was none.
        if (sink_.calls() == 0) {
          sink_.Content(marker);
        } else {
          sink_.Markup();
        }
        continue;
      }
      feed_.StartRecording(marker);
      const bool found = co_await calls_->AfterMarker(marker);
      if (!found) sink_.Content(feed_.TakeRecorded());
      feed_.StopRecording();
    }
    done_ = true;
    co_return true;
  }

  bool StandsAtStart() const {
    return syntax_.format == ToolFormat::kJson || syntax_.format == ToolFormat::kLlamaJson ||
           syntax_.format == ToolFormat::kPythonic;
  }

  // A section of thoughts at the start of the answer.
  ParserTask<bool> Thoughts() {
    if (!reasoning_) {
      feed_.StartRecording();
      while (true) {
        const int byte = co_await feed_.Peek();
        if (byte == TextFeed::kEnd || kWhiteSpace.find(static_cast<char>(byte)) == kWhiteSpace.npos)
          break;
        co_await feed_.Next();
      }
      for (const char expected : syntax_.markers.open) {
        const int byte = co_await feed_.Peek();
        if (byte != static_cast<unsigned char>(expected)) {
          sink_.Content(feed_.TakeRecorded());
          co_return false;
        }
        co_await feed_.Next();
      }
      const std::string open = feed_.TakeRecorded();
      if (syntax_.reasoning_as_content) sink_.Content(open);
      reasoning_ = true;
    }
    StopMatcher matcher({syntax_.markers.close});
    while (!matcher.matched()) {
      const int next = co_await feed_.Next();
      const char byte = static_cast<char>(next);
      Think(next == TextFeed::kEnd ? matcher.Flush() : matcher.Push({&byte, 1}));
      if (next == TextFeed::kEnd) co_return true;
    }
    if (syntax_.reasoning_as_content) {
      sink_.Content(syntax_.markers.close);
    } else {
      sink_.Markup();
    }
    reasoning_ = false;
    co_return true;
  }

  void Think(const std::string& text) {
    if (syntax_.reasoning_as_content) {
      sink_.Content(text);
    } else {
      sink_.Reasoning(text);
    }
  }

  // Empty at the end of the text.
  ParserTask<std::string> ContentUntilMarker() {
    StopMatcher matcher(markers_);
    while (!matcher.matched()) {
      const int next = co_await feed_.Next();
      const char byte = static_cast<char>(next);
      sink_.Content(next == TextFeed::kEnd ? matcher.Flush() : matcher.Push({&byte, 1}));
      if (next == TextFeed::kEnd) co_return std::string();
    }
    co_return matcher.found();
  }

  // Harmony: messages of the form [<|start|>role]header<|message|>text<|end|>, where the header
  // names a channel and perhaps a function. The prompt ends with "<|start|>assistant".
  ParserTask<bool> Channels() {
    const std::vector<std::string> message = {"<|message|>"};
    const std::vector<std::string> ends = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
    while (true) {
      std::string header;
      StopMatcher begin(message);
      while (!begin.matched()) {
        const int next = co_await feed_.Next();
        const char byte = static_cast<char>(next);
        header += next == TextFeed::kEnd ? begin.Flush() : begin.Push({&byte, 1});
        if (next == TextFeed::kEnd) {
          sink_.Content(header);
          co_return true;
        }
      }
      const bool known = IsHeader(header);
      if (!known) sink_.Content(header + message[0]);
      const std::string function = known ? Recipient(header) : std::string();
      const bool calls = syntax_.tools && !function.empty();
      reasoning_ = known && !calls && header.find("<|channel|>analysis") != std::string::npos;
      if (calls) calls_->Begin(function);
      sink_.Markup();
      StopMatcher end(ends);
      while (!end.matched()) {
        const int next = co_await feed_.Next();
        const char byte = static_cast<char>(next);
        const std::string text = next == TextFeed::kEnd ? end.Flush() : end.Push({&byte, 1});
        if (calls) {
          sink_.Arguments(text);
        } else if (reasoning_) {
          Think(text);
        } else {
          sink_.Content(text);
        }
        if (next == TextFeed::kEnd) co_return true;
      }
      reasoning_ = false;
      if (calls && calls_->enough()) {
        done_ = true;
        co_return true;
      }
    }
  }

  static bool IsHeader(const std::string& header) {
    constexpr size_t kLongest = 400;
    static const std::regex form(
        R"(\s*(<\|start\|>)?(assistant)?( to=[\w.-]+)?\s*(<\|channel\|>(analysis|commentary|final))?( to=[\w.-]+)?)"
        R"(\s*(<\|constrain\|>)?\s*(json|code)?\s*)");
    return header.size() <= kLongest && std::regex_match(header, form);
  }

  // "f" of " to=functions.f".
  static std::string Recipient(const std::string& header) {
    constexpr std::string_view kSign = "to=functions.";
    const size_t at = header.find(kSign);
    if (at == std::string::npos) return {};
    const size_t begin = at + kSign.size();
    return header.substr(begin, header.find_first_of(" <\t\r\n", begin) - begin);
  }

  AnswerSyntax syntax_;
  TextFeed feed_;
  AnswerSink sink_;
  std::optional<ToolCallParser> calls_;
  std::vector<std::string> opening_;
  std::vector<std::string> markers_;  // opening and closing
  bool reasoning_;
  bool done_ = false;
  ParserTask<bool> run_;
};

AnswerParser::AnswerParser(AnswerSyntax syntax)
    : impl_(std::make_unique<Impl>(std::move(syntax))) {}

AnswerParser::~AnswerParser() = default;

std::vector<AnswerPart> AnswerParser::Push(std::string_view text) {
  impl_->feed().Push(text);
  impl_->Check();
  return impl_->sink().Take();
}

std::vector<AnswerPart> AnswerParser::Finish() {
  impl_->feed().End();
  impl_->Check();
  impl_->sink().Finish();
  return impl_->sink().Take();
}

bool AnswerParser::reasoning() const { return impl_->reasoning(); }
uint32_t AnswerParser::calls() const { return impl_->sink().calls(); }
bool AnswerParser::complete() const { return impl_->complete(); }

}  // namespace server
