#include "server/tool_call_parser.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "engine/text/grammar/json_grammar.h"
#include "server/json.h"
#include "server/python_literal.h"
#include "server/stop_matcher.h"

namespace server {
namespace {

using engine::text::Value;
using engine::text::grammar::JsonText;

constexpr int kEndOfText = TextFeed::kEnd;
// Longer names are no names of functions or arguments.
constexpr size_t kMaxName = 256;

bool IsOneOf(int byte, std::string_view bytes) {
  return byte != kEndOfText && bytes.find(static_cast<char>(byte)) != std::string_view::npos;
}

// What JSON may have outside its strings, and a little more: unquoted names are passed on.
bool IsJsonByte(int byte) {
  return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z') || IsOneOf(byte, "{}[]:,\"+-._ \t\r\n");
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

// The inside of a JSON string.
std::string Escaped(std::string_view text) {
  const std::string quoted = JsonText(Value(text));
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

ToolCallParser::ToolCallParser(const AnswerSyntax& syntax, TextFeed& feed, AnswerSink& sink)
    : syntax_(syntax), feed_(feed), sink_(sink), closing_(ClosingMarkers(syntax.format)) {}

void ToolCallParser::Begin(std::string name) {
  feed_.StopRecording();
  name_ = name;
  sink_.Call(std::move(name));
}

bool ToolCallParser::IsText(std::string_view argument) const {
  const ToolFunction* function = syntax_.tools->Find(name_);
  return function != nullptr && FindTextParameter(function->parameters, argument) != nullptr;
}

// Returns the byte that follows, which is not read.
ParserTask<int> ToolCallParser::SkipSpace() {
  while (true) {
    const int byte = co_await feed_.Peek();
    if (!IsOneOf(byte, kWhiteSpace)) co_return byte;
    co_await feed_.Next();
  }
}

ParserTask<bool> ToolCallParser::Expect(std::string_view word) {
  for (const char expected : word) {
    const int byte = co_await feed_.Peek();
    if (byte != static_cast<unsigned char>(expected)) co_return false;
    co_await feed_.Next();
  }
  co_return true;
}

// The text of a short JSON string. REQUIRES: a quote follows.
ParserTask<std::optional<std::string>> ToolCallParser::QuotedString() {
  std::string raw;
  const End end = co_await Value(&raw);
  if (end != End::kValue || raw.size() > kMaxName) co_return std::nullopt;
  const Json json = Json::parse(raw, nullptr, false);
  if (!json.is_string()) co_return std::nullopt;
  co_return json.get<std::string>();
}

// Empty when it is too long.
ParserTask<std::string> ToolCallParser::NameUntil(std::string_view stops) {
  std::string name;
  while (true) {
    const int byte = co_await feed_.Peek();
    if (byte == kEndOfText || IsOneOf(byte, stops)) co_return name;
    if (name.size() == kMaxName) co_return std::string();
    co_await feed_.Next();
    name += static_cast<char>(byte);
  }
}

// The text before the word, which is read, too; all the rest when it does not come, and then the
// feed is at its end.
ParserTask<std::string> ToolCallParser::TextUntil(std::string_view word) {
  StopMatcher matcher({std::string(word)});
  std::string text;
  while (!matcher.matched()) {
    const int next = co_await feed_.Next();
    if (next == kEndOfText) {
      text += matcher.Flush();
      break;
    }
    const char byte = static_cast<char>(next);
    text += matcher.Push({&byte, 1});
  }
  co_return text;
}

ParserTask<ToolCallParser::End> ToolCallParser::Value(std::string* capture) {
  const int first = co_await feed_.Peek();
  const bool scalar = !IsOneOf(first, "{[\"");
  uint64_t depth = 0;
  bool in_string = false;
  bool escaped = false;
  for (bool any = false;; any = true) {
    const int next = co_await feed_.Peek();
    if (scalar && (next == kEndOfText || IsOneOf(next, ",}] \t\r\n"))) {
      co_return any ? End::kValue : End::kBroken;
    }
    if (next == kEndOfText) co_return End::kText;
    if (!in_string && !IsJsonByte(next)) co_return End::kBroken;
    co_await feed_.Next();
    const char byte = static_cast<char>(next);
    if (capture != nullptr) {
      *capture += byte;
    } else {
      sink_.Arguments({&byte, 1});
    }
    if (in_string) {
      in_string = escaped || byte != '"';
      escaped = !escaped && byte == '\\';
      if (!in_string && depth == 0) co_return End::kValue;
    } else if (byte == '"') {
      in_string = true;
    } else if (byte == '{' || byte == '[') {
      ++depth;
    } else if ((byte == '}' || byte == ']') && --depth == 0) {
      co_return End::kValue;
    }
  }
}

// All text up to where the call is closed.
ParserTask<bool> ToolCallParser::BrokenArguments() {
  StopMatcher matcher(closing_);
  while (!matcher.matched()) {
    const int next = co_await feed_.Next();
    if (next == kEndOfText) {
      sink_.Arguments(matcher.Flush());
      break;
    }
    const char byte = static_cast<char>(next);
    sink_.Arguments(matcher.Push({&byte, 1}));
  }
  co_return true;
}

// The arguments of the call that has begun. False when they were no JSON, and all text of the call
// has been read.
ParserTask<bool> ToolCallParser::ArgumentsValue() {
  const int first = co_await feed_.Peek();
  if (IsOneOf(first, "{[")) {
    const End end = co_await Value(nullptr);
    if (end != End::kBroken) co_return end == End::kValue;
    co_await BrokenArguments();
    co_return false;
  }
  std::string text;
  const End end = co_await Value(&text);
  if (end == End::kBroken) {
    sink_.Arguments(text);
    co_await BrokenArguments();
    co_return false;
  }
  // Some models write the object as a string, or nothing for no arguments.
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_string() && Json::accept(json.get_ref<const std::string&>())) {
    text = json.get<std::string>();
  }
  sink_.Arguments(text == "null" ? "{}" : text);
  co_return end == End::kValue;
}

ParserTask<bool> ToolCallParser::AfterMarker(std::string_view marker) {
  switch (syntax_.format) {
    case ToolFormat::kHermes:
    case ToolFormat::kQwenXml: {
      if (marker == "<function=") {
        const bool found = co_await XmlCall();
        co_return found;
      }
      const int next = co_await SkipSpace();
      if (next == '<') {
        const bool opened = co_await Expect("<function=");
        if (!opened) co_return false;
        const bool found = co_await XmlCall();
        co_return found;
      }
      const bool found = co_await JsonCalls(false);
      co_return found;
    }
    case ToolFormat::kGlm: {
      const bool found = co_await GlmCall();
      co_return found;
    }
    case ToolFormat::kPythonic: {
      const bool found = co_await PythonCalls(false);
      co_return found;
    }
    case ToolFormat::kMistral: {
      const bool found = co_await MistralCall();
      co_return found;
    }
    case ToolFormat::kDeepSeek: {
      if (marker == "<｜tool▁calls▁begin｜>") {
        co_await SkipSpace();
        const bool opened = co_await Expect("<｜tool▁call▁begin｜>");
        if (!opened) co_return false;
      }
      const bool found = co_await DeepSeekCall();
      co_return found;
    }
    default: {
      const bool found = co_await JsonCalls(false);
      co_return found;
    }
  }
}

ParserTask<bool> ToolCallParser::AtStart() {
  bool fenced = false;
  for (bool any = false;; any = true) {
    feed_.StartRecording();
    int next = co_await SkipSpace();
    if (any && (next == ';' || next == ',')) {
      co_await feed_.Next();
      next = co_await SkipSpace();
    }
    // Models that were taught no format like to put JSON into a block of code.
    if (!any && next == '`' && syntax_.format == ToolFormat::kJson) {
      fenced = co_await Expect("```");
      const int letter = co_await feed_.Peek();
      if (letter == 'j') fenced = co_await Expect("json");
      next = co_await SkipSpace();
    }
    bool found = false;
    if (syntax_.format == ToolFormat::kPythonic) {
      if (next == '[' && !any) found = co_await PythonCalls(true);
    } else if (next == '{' || (next == '[' && !any)) {
      found = co_await JsonCalls(true);
    }
    if (!found) {
      const bool closes = any && fenced && next == '`';
      if (closes) fenced = !co_await Expect("```");
      if (!closes || fenced) sink_.Content(feed_.TakeRecorded());
      feed_.StopRecording();
      co_return any;
    }
    if (enough()) co_return true;
  }
}

ParserTask<bool> ToolCallParser::CallList(Call call, bool only_offered) {
  int next = co_await SkipSpace();
  const bool list = next == '[';
  if (list) co_await feed_.Next();
  for (bool any = false;; any = true) {
    next = co_await SkipSpace();
    if (any && next == ',') {
      co_await feed_.Next();
      next = co_await SkipSpace();
    }
    if (any && (next == ']' || next == kEndOfText)) {
      co_await feed_.Next();
      feed_.StopRecording();
      co_return true;
    }
    const bool found = co_await (this->*call)(only_offered);
    if (!found) {
      if (any) sink_.Content(feed_.TakeRecorded());
      co_return any;
    }
    if (!list || enough()) co_return true;
    feed_.StartRecording();
  }
}

ParserTask<bool> ToolCallParser::JsonCalls(bool only_offered) {
  return CallList(&ToolCallParser::BracedCall, only_offered);
}

ParserTask<bool> ToolCallParser::BracedCall(bool only_offered) {
  const int next = co_await feed_.Peek();
  bool found = false;
  if (next == '{') {
    if (syntax_.format == ToolFormat::kApertus) {
      found = co_await KeyedCall();
    } else {
      found = co_await JsonCall(only_offered);
    }
  }
  co_return found;
}

// {"name": "f", "arguments": {...}}, members in any order. With others an object without arguments
// is no call; after the arguments they are content, but for ids and types.
ParserTask<bool> ToolCallParser::JsonCall(bool only_offered) {
  co_await feed_.Next();
  std::optional<std::string> name;
  std::string early;  // arguments that came before the name
  bool begun = false;
  bool more = false;  // than a call
  for (bool first = true;; first = false) {
    int next = co_await SkipSpace();
    if (next == '}' && name) break;
    if (!first && next == ',') {
      co_await feed_.Next();
      next = co_await SkipSpace();
    }
    std::optional<std::string> key;
    if (next == '"') key = co_await QuotedString();
    next = co_await SkipSpace();
    if (!key || next != ':') {
      if (begun) sink_.Content(feed_.TakeRecorded());
      co_return begun;
    }
    co_await feed_.Next();
    next = co_await SkipSpace();
    const bool arguments = *key == "arguments" || *key == "parameters";
    if (*key == "name" && !name) {
      if (next == '"') name = co_await QuotedString();
      if (!name || name->empty()) co_return false;
      const ToolFunction* function = syntax_.tools->Find(*name);
      if (only_offered && (function == nullptr || !function->allowed)) co_return false;
    } else if (arguments && name && !begun && early.empty()) {
      begun = true;
      more = false;
      Begin(*name);
      const bool whole = co_await ArgumentsValue();
      if (!whole) co_return true;
      feed_.StartRecording();
    } else {
      std::string value;
      const End end = co_await Value(&value);
      if (end != End::kValue) {
        if (begun) sink_.Content(feed_.TakeRecorded());
        co_return begun;
      }
      if (arguments && early.empty() && !begun) early = value;
      more = more || (!arguments && *key != "id" && *key != "type");
    }
  }
  co_await feed_.Next();
  if (!begun && more && early.empty()) co_return false;
  if (!begun) {
    more = false;
    Begin(*name);
    sink_.Arguments(early.empty() || early == "null" ? "{}" : early);
  }
  if (more) sink_.Content(feed_.TakeRecorded());
  feed_.StopRecording();
  co_return true;
}

// {"f": {...}}
ParserTask<bool> ToolCallParser::KeyedCall() {
  co_await feed_.Next();
  int next = co_await SkipSpace();
  std::optional<std::string> name;
  if (next == '"') name = co_await QuotedString();
  next = co_await SkipSpace();
  if (!name || name->empty() || next != ':') co_return false;
  co_await feed_.Next();
  co_await SkipSpace();
  Begin(*std::move(name));
  const bool whole = co_await ArgumentsValue();
  if (!whole) co_return true;
  feed_.StartRecording();
  next = co_await SkipSpace();
  if (next == '}') {
    co_await feed_.Next();
    feed_.StopRecording();
  } else {
    sink_.Content(feed_.TakeRecorded());
  }
  co_return true;
}

// After "<function=": name>, parameters, </function>.
ParserTask<bool> ToolCallParser::XmlCall() {
  const std::string name = co_await NameUntil(">< \t\r\n");
  const bool named = co_await Expect(">");
  if (!named || name.empty()) co_return false;
  Begin(name);
  sink_.Arguments("{");
  for (bool first = true;;) {
    feed_.StartRecording();
    const int next = co_await SkipSpace();
    if (next == '<') co_await feed_.Next();
    const int kind = co_await feed_.Peek();
    if (next == '<' && kind == '/') {
      const bool closed = co_await Expect("/function>");
      if (!closed) break;
      feed_.StopRecording();
      sink_.Arguments("}");
      co_return true;
    }
    const bool parameter = next == '<' && co_await Expect("parameter=");
    if (!parameter) break;
    const std::string key = co_await NameUntil(">\n");
    const bool ended = co_await Expect(">");
    if (!ended || key.empty()) break;
    feed_.StopRecording();
    const bool whole = co_await XmlParameter(key, first);
    if (!whole) co_return true;
    first = false;
  }
  // Something else stands where a parameter or the end belongs.
  sink_.Arguments(feed_.TakeRecorded());
  co_await BrokenArguments();
  co_return true;
}

ParserTask<bool> ToolCallParser::XmlParameter(std::string name, bool first) {
  sink_.Arguments((first ? "" : ", ") + JsonText(engine::text::Value(name)) + ": ");
  if (IsText(name)) {
    const bool whole = co_await TextArgument("</parameter>", true);
    co_return whole;
  }
  feed_.StartRecording();
  const std::string text = co_await TextUntil("</parameter>");
  const bool whole = feed_.TakeRecorded().ends_with("</parameter>");
  sink_.Arguments(whole ? LooseValueToJson(Trimmed(text)) : text);
  co_return whole;
}

// An argument that is text, as a JSON string, while it comes. trims: the line ends beside its
// markers are not its own.
ParserTask<bool> ToolCallParser::TextArgument(std::string_view close, bool trims) {
  StopMatcher matcher({std::string(close)});
  sink_.Arguments("\"");
  bool line_end = false;  // held back: it may be the last
  for (bool at_start = true; !matcher.matched();) {
    const int next = co_await feed_.Next();
    const char byte = static_cast<char>(next);
    const std::string shown = next == kEndOfText ? matcher.Flush() : matcher.Push({&byte, 1});
    for (const char c : shown) {
      const bool drop = std::exchange(at_start, false) && trims && c == '\n';
      if (drop) continue;
      if (std::exchange(line_end, false)) sink_.Arguments("\\n");
      if (trims && c == '\n') {
        line_end = true;
      } else {
        sink_.Arguments(Escaped({&c, 1}));
      }
    }
    if (next != kEndOfText) continue;
    if (line_end) sink_.Arguments("\\n");
    co_return false;
  }
  sink_.Arguments("\"");
  co_return true;
}

// After "<tool_call>": a name, then keys and values.
ParserTask<bool> ToolCallParser::GlmCall() {
  co_await SkipSpace();
  const std::string name = co_await NameUntil("<{[\" \t\r\n");
  int next = co_await SkipSpace();
  if (name.empty() || next != '<') co_return false;
  bool first = true;
  while (true) {
    next = co_await SkipSpace();
    if (next == '<') co_await feed_.Next();
    const int kind = co_await feed_.Peek();
    if (next == '<' && kind == '/') {
      const bool closed = co_await Expect("/tool_call>");
      if (!closed) break;
      if (first) {
        Begin(name);
        sink_.Arguments("{");
      }
      feed_.StopRecording();
      sink_.Arguments("}");
      co_return true;
    }
    const bool keyed = next == '<' && co_await Expect("arg_key>");
    if (!keyed) break;
    const std::string key = co_await TextUntil("</arg_key>");
    co_await SkipSpace();
    const bool valued = co_await Expect("<arg_value>");
    if (!valued) break;
    if (first) {
      Begin(name);
      sink_.Arguments("{");
    }
    feed_.StopRecording();
    sink_.Arguments((first ? "" : ", ") + JsonText(engine::text::Value(key)) + ": ");
    first = false;
    if (IsText(key)) {
      const bool whole = co_await TextArgument("</arg_value>", false);
      if (!whole) co_return true;
    } else {
      feed_.StartRecording();
      const std::string text = co_await TextUntil("</arg_value>");
      const bool whole = feed_.TakeRecorded().ends_with("</arg_value>");
      sink_.Arguments(whole ? LooseValueToJson(Trimmed(text)) : text);
      if (!whole) co_return true;
    }
    feed_.StartRecording();
  }
  if (first) co_return false;
  sink_.Arguments(feed_.TakeRecorded());
  co_await BrokenArguments();
  co_return true;
}

// After "[TOOL_CALLS]": a list, or f[ARGS]{...}, or f[CALL_ID]id[ARGS]{...}.
ParserTask<bool> ToolCallParser::MistralCall() {
  int next = co_await SkipSpace();
  if (IsOneOf(next, "[{")) {
    const bool found = co_await JsonCalls(false);
    co_return found;
  }
  std::string name = co_await NameUntil("[{ \t\r\n");
  next = co_await SkipSpace();
  while (next == '[') {
    co_await feed_.Next();
    next = co_await feed_.Peek();
    const bool id = next == 'C';
    const bool known = co_await Expect(id ? "CALL_ID]" : "ARGS]");
    if (!known) co_return false;
    if (id) co_await NameUntil("[{ \t\r\n");
    next = co_await SkipSpace();
  }
  if (name.empty() || next != '{') co_return false;
  Begin(std::move(name));
  co_await ArgumentsValue();
  co_return true;
}

// After the marker of one call: function<｜tool▁sep｜>f, a block of JSON; newer models write
// f<｜tool▁sep｜>{...}.
ParserTask<bool> ToolCallParser::DeepSeekCall() {
  const std::string before = co_await TextUntil("<｜tool▁sep｜>");
  std::string name = Trimmed(before);
  if (name == "function") name = co_await NameUntil("{` \t\r\n");
  int next = co_await SkipSpace();
  const bool fenced = next == '`' && co_await Expect("```json");
  if (fenced) next = co_await SkipSpace();
  if (name.empty() || name.size() > kMaxName || next != '{') co_return false;
  Begin(std::move(name));
  const bool whole = co_await ArgumentsValue();
  if (!whole) co_return true;
  feed_.StartRecording();
  next = co_await SkipSpace();
  const bool closed = !fenced || next != '`' || co_await Expect("```");
  if (closed) {
    feed_.StopRecording();
  } else {
    sink_.Content(feed_.TakeRecorded());
  }
  co_return true;
}

ParserTask<bool> ToolCallParser::PythonCalls(bool only_offered) {
  return CallList(&ToolCallParser::PythonCall, only_offered);
}

// f(a=1, b='x')
ParserTask<bool> ToolCallParser::PythonCall(bool only_offered) {
  const std::string name = co_await NameUntil("()[]{}=,:;\"'<> \t\r\n");
  int next = co_await feed_.Peek();
  if (name.empty() || next != '(') co_return false;
  const ToolFunction* function = syntax_.tools->Find(name);
  if (only_offered && (function == nullptr || !function->allowed)) co_return false;
  co_await feed_.Next();
  for (bool first = true;; first = false) {
    next = co_await SkipSpace();
    if (!first && next == ',') {
      co_await feed_.Next();
      next = co_await SkipSpace();
    }
    if (next == ')') {
      co_await feed_.Next();
      if (first) Begin(name);
      feed_.StopRecording();
      sink_.Arguments(first ? "{}" : "}");
      co_return true;
    }
    const std::string key = co_await NameUntil("=,()\"' \t\r\n");
    next = co_await SkipSpace();
    std::string value;
    if (next == '=' && !key.empty()) {
      co_await feed_.Next();
      value = co_await PythonArgument();
      next = co_await feed_.Peek();
    }
    if (value.empty() || next == kEndOfText) {
      if (first) co_return false;
      sink_.Arguments(feed_.TakeRecorded());
      co_await BrokenArguments();
      co_return true;
    }
    if (first) Begin(name);
    sink_.Arguments((first ? "{" : ", ") + JsonText(engine::text::Value(key)) + ": " +
                    LooseValueToJson(value));
    feed_.StartRecording();
  }
}

// The text of an argument up to the comma or bracket that ends it.
ParserTask<std::string> ToolCallParser::PythonArgument() {
  std::string text;
  uint64_t depth = 0;
  char quote = 0;
  bool escaped = false;
  while (true) {
    const int next = co_await feed_.Peek();
    if (next == kEndOfText) break;
    if (quote == 0 && depth == 0 && (next == ',' || next == ')')) break;
    co_await feed_.Next();
    const char byte = static_cast<char>(next);
    text += byte;
    if (quote != 0) {
      if (!escaped && byte == quote) quote = 0;
      escaped = !escaped && byte == '\\';
    } else if (byte == '"' || byte == '\'') {
      quote = byte;
    } else if (IsOneOf(byte, "([{")) {
      ++depth;
    } else if (IsOneOf(byte, ")]}") && depth > 0) {
      --depth;
    }
  }
  co_return Trimmed(text);
}

}  // namespace server
