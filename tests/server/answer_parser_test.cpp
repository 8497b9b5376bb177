// What an answer says does not depend on how its text was cut; calls written in every format are
// read back as they were; what is no call is content; no text is lost, however hostile.

#include "server/answer_parser.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <random>

#include "server/json.h"
#include "server/python_literal.h"
#include "server/tool_prompt.h"

namespace server {
namespace {

using engine::text::Value;
using ::testing::HasSubstr;

constexpr ToolFormat kFormats[] = {
    ToolFormat::kJson,      ToolFormat::kHermes,   ToolFormat::kQwenXml, ToolFormat::kGlm,
    ToolFormat::kLlamaJson, ToolFormat::kPythonic, ToolFormat::kMistral, ToolFormat::kDeepSeek,
    ToolFormat::kGranite,   ToolFormat::kApertus,  ToolFormat::kHarmony};

struct Call {
  std::string name;
  std::string arguments;
  bool operator==(const Call&) const = default;
};

struct Answer {
  std::string content;
  std::string reasoning;
  std::vector<Call> calls;
  bool operator==(const Answer&) const = default;

  void Add(const std::vector<AnswerPart>& parts) {
    for (const AnswerPart& part : parts) {
      switch (part.kind) {
        case AnswerPart::Kind::kContent:
          content += part.text;
          break;
        case AnswerPart::Kind::kReasoning:
          reasoning += part.text;
          break;
        case AnswerPart::Kind::kCall:
          ASSERT_EQ(part.call, calls.size());
          calls.push_back({part.text, ""});
          break;
        case AnswerPart::Kind::kArguments:
          // As the SDKs do it: fragments belong to a call that has been told.
          ASSERT_LT(part.call, calls.size());
          calls[part.call].arguments += part.text;
          break;
      }
    }
  }
};

void PrintTo(const Answer& answer, std::ostream* out) {
  *out << "content <" << answer.content << "> reasoning <" << answer.reasoning << ">";
  for (const Call& call : answer.calls) *out << " " << call.name << "<" << call.arguments << ">";
}

Answer ParseWhole(const AnswerSyntax& syntax, std::string_view text) {
  AnswerParser parser(syntax);
  Answer answer;
  answer.Add(parser.Push(text));
  answer.Add(parser.Finish());
  return answer;
}

Answer ParseCut(const AnswerSyntax& syntax, std::string_view text, std::mt19937& random) {
  AnswerParser parser(syntax);
  Answer answer;
  const size_t longest = 1 + random() % 12;
  while (!text.empty()) {
    const size_t size = std::min<size_t>(random() % (longest + 1), text.size());
    answer.Add(parser.Push(text.substr(0, size)));
    text.remove_prefix(size);
  }
  answer.Add(parser.Finish());
  return answer;
}

// get_weather(city: text, days: integer, when: any), set-all(...), no_arguments().
std::shared_ptr<ToolRequest> Tools(bool parallel = true) {
  const Json json = Json::parse(R"([
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "when": {},
                     "mood": {"$ref": "#/$defs/mood"}},
      "$defs": {"mood": {"enum": ["glad", "sad"]}}}}},
    {"type": "function", "function": {"name": "set-all", "parameters": {"type": "object",
      "properties": {"text": {"type": "string"}, "list": {"type": "array"},
                     "map": {"type": "object"}, "on": {"type": "boolean"}}}}},
    {"type": "function", "function": {"name": "no_arguments"}}])");
  Json body = Json::object();
  body["tools"] = json;
  body["parallel_tool_calls"] = parallel;
  ParamReader reader(body);
  return std::make_shared<ToolRequest>(ReadTools(reader));
}

AnswerSyntax Syntax(ToolFormat format, bool parallel = true) {
  AnswerSyntax syntax;
  syntax.format = format;
  syntax.tools = Tools(parallel);
  return syntax;
}

AnswerSyntax ThinkingSyntax(ToolFormat format, AnswerSyntax::Reasoning reasoning) {
  AnswerSyntax syntax = Syntax(format);
  syntax.reasoning = reasoning;
  syntax.markers = {"<think>", "</think>"};
  return syntax;
}

class RandomCalls {
 public:
  explicit RandomCalls(uint32_t seed) : random_(seed) {}

  std::mt19937& random() { return random_; }
  bool Coin() { return random_() % 2 == 0; }

  // Markers of all formats, quotes, brackets, line ends and letters of all lengths in UTF-8.
  std::string Text(ToolFormat format) {
    static const std::vector<std::string> kPieces = {"a",           "Z",
                                                     " ",           "\n",
                                                     "\"",          "'",
                                                     "\\",          "\\n",
                                                     "{",           "}",
                                                     "[",           "]",
                                                     "(",           ")",
                                                     ",",           "=",
                                                     "é",           "｜",
                                                     "🎉",           "<",
                                                     ">",           "</",
                                                     "<tool_call>", "</tool_call>",
                                                     "</think>",    "[TOOL_CALLS]",
                                                     "\t",          "\x01",
                                                     "null",        "}}",
                                                     "\"}",         "```",
                                                     "<function=",  "<arg_key>",
                                                     "；"};
    std::string text;
    for (size_t i = random_() % 12; i > 0; --i) text += kPieces[random_() % kPieces.size()];
    // The one thing that a format cannot say: its own end inside a text.
    if (format == ToolFormat::kQwenXml || format == ToolFormat::kGlm) {
      while (text.find("</") != std::string::npos) text.erase(text.find("</"), 1);
    }
    return text;
  }

  Json Any(ToolFormat format, int depth = 0) {
    switch (random_() % (depth < 3 ? 7 : 5)) {
      case 0:
        return nullptr;
      case 1:
        return Coin();
      case 2:
        return static_cast<int64_t>(random_()) - 2000000000;
      case 3:
        return static_cast<double>(random_() % 1000) / 8;
      case 4:
        return Text(format);
      case 5: {
        Json list = Json::array();
        for (size_t i = random_() % 4; i > 0; --i) list.push_back(Any(format, depth + 1));
        return list;
      }
      default: {
        Json map = Json::object();
        for (size_t i = random_() % 4; i > 0; --i) {
          map["k" + Text(ToolFormat::kJson)] = Any(format, depth + 1);
        }
        return map;
      }
    }
  }

  std::pair<std::string, Json> Next(ToolFormat format) {
    Json arguments = Json::object();
    switch (random_() % 3) {
      case 0:
        if (Coin()) arguments["city"] = Text(format);
        if (Coin()) arguments["days"] = random_() % 9;
        // A value that may be text or something else is told apart by its look where text has no
        // quotes.
        if (Coin()) arguments["when"] = Coin() ? Json("soon") : Json::array({1, nullptr});
        if (Coin()) arguments["mood"] = "glad";
        return {"get_weather", arguments};
      case 1:
        if (Coin()) arguments["text"] = Text(format);
        if (Coin()) arguments["list"] = Json::array({Any(format), Any(format)});
        if (Coin()) arguments["map"] = Json::object({{"k", Any(format)}});
        if (Coin()) arguments["on"] = Coin();
        return {"set-all", arguments};
      default:
        return {"no_arguments", arguments};
    }
  }

 private:
  std::mt19937 random_;
};

bool StandsAtStart(ToolFormat format) {
  return format == ToolFormat::kJson || format == ToolFormat::kLlamaJson ||
         format == ToolFormat::kPythonic;
}

class AnswerParserFormats : public ::testing::TestWithParam<ToolFormat> {};

TEST_P(AnswerParserFormats, ReadCallsAsTheyWereWrittenHoweverTheyAreCut) {
  const ToolFormat format = GetParam();
  RandomCalls make(static_cast<uint32_t>(format) + 1);
  for (int round = 0; round < 1500; ++round) {
    std::vector<WrittenCall> written;
    std::vector<std::pair<std::string, Json>> expected;
    for (size_t i = 1 + make.random()() % 3; i > 0; --i) {
      expected.push_back(make.Next(format));
      written.push_back({expected.back().first, ToValue(expected.back().second)});
    }
    const std::string before = StandsAtStart(format) || make.Coin() ? "" : "Let me see:";
    const std::string after = make.Coin() || format == ToolFormat::kHarmony ? "" : "Done. <b>";
    const bool thinks = make.Coin() && format != ToolFormat::kHarmony;
    const bool opened = make.Coin();
    AnswerSyntax syntax = ThinkingSyntax(
        format, opened ? AnswerSyntax::Reasoning::kOpen : AnswerSyntax::Reasoning::kPossible);
    if (!thinks) syntax.reasoning = AnswerSyntax::Reasoning::kNone;
    std::string text = WriteCalls(format, written);
    if (format == ToolFormat::kHarmony && !before.empty()) {
      text = "<|channel|>final<|message|>" + before + "<|end|><|start|>assistant" + text;
    } else {
      text = before + "\n" + text + (after.empty() ? "" : "\n" + after);
    }
    if (thinks) text = (opened ? "" : "<think>") + std::string("\nI <think>.\n</think>\n\n") + text;

    const Answer answer = ParseWhole(syntax, text);
    EXPECT_EQ(answer.reasoning, thinks ? "I <think>." : "") << text;
    const std::string gap =
        before.empty() || after.empty()
            ? ""
            : answer.content.substr(before.size(),
                                    answer.content.size() - before.size() - after.size());
    EXPECT_EQ(gap.find_first_not_of('\n'), std::string::npos) << text;
    EXPECT_EQ(answer.content, before + gap + after) << text;
    ASSERT_EQ(answer.calls.size(), expected.size()) << text;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(answer.calls[i].name, expected[i].first) << text;
      EXPECT_EQ(Json::parse(answer.calls[i].arguments, nullptr, false), expected[i].second)
          << text << "\n"
          << answer.calls[i].arguments;
    }
    for (int cut = 0; cut < 3; ++cut) EXPECT_EQ(ParseCut(syntax, text, make.random()), answer);
    if (HasFailure()) return;
  }
}

// Broken, nested, unterminated: the same however it is cut, and every word is still there.
TEST_P(AnswerParserFormats, LoseNoWordOfHostileAnswers) {
  const ToolFormat format = GetParam();
  std::vector<std::string> pieces = OpeningMarkers(format);
  for (const std::string& marker : ClosingMarkers(format)) pieces.push_back(marker);
  for (const char* piece : {"{\"name\": \"get_weather\", \"arguments\": {",
                            "{\"name\": \"other\", \"parameters\": {",
                            "{\"arguments\": {\"city\": \"",
                            "\"city\": \"",
                            "\"}",
                            "}}",
                            "}",
                            "{",
                            "[",
                            "]",
                            "\"",
                            "\\",
                            "[get_weather(",
                            "city=\"",
                            "days=",
                            ")",
                            "get_weather",
                            "<function=get_weather>",
                            "<parameter=city>\n",
                            "<parameter=days>",
                            "\n</parameter>",
                            "</function>",
                            "\n",
                            "<arg_key>city",
                            "</arg_key>",
                            "<arg_value>",
                            "</arg_value>",
                            "function<｜tool▁sep｜>",
                            "```json\n",
                            "```",
                            "[ARGS]",
                            "<think>",
                            "</think>",
                            "{\"get_weather\": {",
                            ",",
                            ";",
                            " ",
                            "<|channel|>analysis",
                            "<|channel|>commentary to=functions.f",
                            "<|message|>",
                            "<|end|>",
                            "<|start|>assistant",
                            "\xC3",
                            "\xA9",
                            "\xF0\x9F"}) {
    pieces.emplace_back(piece);
  }
  RandomCalls make(77 + static_cast<uint32_t>(format));
  std::mt19937& random = make.random();
  int with_calls = 0;
  for (int round = 0; round < 6000; ++round) {
    // Half of them begin as true calls do, and go wrong anywhere.
    std::string text;
    if (make.Coin()) {
      const auto [name, arguments] = make.Next(format);
      text = WriteCalls(format, {{name, ToValue(arguments)}});
      if (make.Coin()) text.resize(random() % (text.size() + 1));
    }
    std::vector<std::string> words;
    for (size_t i = random() % 14; i > 0; --i) {
      text += pieces[random() % pieces.size()];
      if (random() % 3 != 0) continue;
      words.push_back("w" + std::to_string(words.size()) + "w");
      text += words.back();
    }
    const auto reasoning = static_cast<AnswerSyntax::Reasoning>(random() % 3);
    const AnswerSyntax syntax = ThinkingSyntax(format, reasoning);
    const Answer answer = ParseWhole(syntax, text);
    EXPECT_EQ(ParseCut(syntax, text, random), answer) << text;
    std::string all = answer.content + answer.reasoning;
    for (const Call& call : answer.calls) all += call.name + call.arguments;
    for (const std::string& word : words) {
      EXPECT_THAT(all, HasSubstr(word)) << text << "\n" << ::testing::PrintToString(answer);
    }
    with_calls += answer.calls.empty() ? 0 : 1;
    if (HasFailure()) return;
  }
  EXPECT_GT(with_calls, 50);
}

// Long texts without an end, deep and flat, take no recursion and no more than linear time.
TEST_P(AnswerParserFormats, ReadHugeAnswers) {
  const AnswerSyntax syntax = Syntax(GetParam());
  std::vector<std::string> markers = OpeningMarkers(GetParam());
  markers.push_back("");
  for (const std::string& marker : markers) {
    for (const char* unit :
         {"[", "{", "{\"a\":", "\"", "\\", "(", "a", " ", "\n", "<", "[{", "f("}) {
      std::string text = marker + "{\"name\": \"get_weather\", \"arguments\": ";
      for (int i = 0; i < 20'000; ++i) text += unit;
      EXPECT_LE(ParseWhole(syntax, text).calls.size(), 1U);
    }
    std::string repeated;
    for (int i = 0; i < 10'000; ++i) repeated += marker + "[";
    EXPECT_EQ(ParseWhole(syntax, repeated).content, repeated);
  }
}

std::string Name(const ::testing::TestParamInfo<ToolFormat>& info) {
  return std::string(ToolFormatName(info.param));
}
INSTANTIATE_TEST_SUITE_P(All, AnswerParserFormats, ::testing::ValuesIn(kFormats), Name);

TEST(AnswerParser, PassesArgumentsOnWhileTheyCome) {
  AnswerParser parser(Syntax(ToolFormat::kHermes));
  EXPECT_TRUE(parser.Push("<tool_call>\n{\"name\": \"get_weather\", ").empty());
  const auto begin = parser.Push("\"arguments\": {\"ci");
  ASSERT_EQ(begin.size(), 2U);
  EXPECT_EQ(begin[0].kind, AnswerPart::Kind::kCall);
  EXPECT_EQ(begin[0].text, "get_weather");
  EXPECT_EQ(begin[1].text, "{\"ci");
  const auto more = parser.Push("ty\": \"Par");
  ASSERT_EQ(more.size(), 1U);
  EXPECT_EQ(more[0].kind, AnswerPart::Kind::kArguments);
  EXPECT_EQ(more[0].text, "ty\": \"Par");
}

TEST(AnswerParser, PassesTextArgumentsOfXmlOnWhileTheyCome) {
  AnswerParser parser(Syntax(ToolFormat::kQwenXml));
  parser.Push("<tool_call>\n<function=get_weather>\n<parameter=city>\n");
  const auto more = parser.Push("San \"F");
  ASSERT_EQ(more.size(), 1U);
  EXPECT_EQ(more[0].text, "San \\\"F");
}

// Ordinary text is not held back, but for what may begin a marker.
TEST(AnswerParser, ShowsContentAtOnce) {
  AnswerParser parser(ThinkingSyntax(ToolFormat::kHermes, AnswerSyntax::Reasoning::kPossible));
  EXPECT_EQ(parser.Push("Hel").at(0).text, "Hel");
  EXPECT_EQ(parser.Push("lo <tool").at(0).text, "lo");
  EXPECT_EQ(parser.Push("box>").at(0).text, " <toolbox>");
}

struct Case {
  ToolFormat format;
  const char* text;
  Answer answer;
};

TEST(AnswerParser, ReadsTheVariantsThatModelsWrite) {
  const std::string city = "{\"city\": \"Oslo\"}";
  const std::vector<Case> cases = {
      // Members in another order, an id, arguments as text, none at all, an unknown function.
      {ToolFormat::kHermes,
       "<tool_call>{\"arguments\": {\"city\": \"Oslo\"}, \"name\": \"f\"}",
       {"", "", {{"f", city}}}},
      {ToolFormat::kMistral,
       "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}, \"id\": \"abc\"}]",
       {"", "", {{"f", "{}"}}}},
      {ToolFormat::kMistral,
       "[TOOL_CALLS]f[ARGS]{\"city\": \"Oslo\"}[TOOL_CALLS]g[ARGS]{}",
       {"", "", {{"f", city}, {"g", "{}"}}}},
      {ToolFormat::kHermes,
       R"(<tool_call>{"name":"f","arguments":"{\"city\": \"Oslo\"}"}</tool_call>)",
       {"", "", {{"f", city}}}},
      {ToolFormat::kHermes, "<tool_call>{\"name\": \"f\"}</tool_call>", {"", "", {{"f", "{}"}}}},
      {ToolFormat::kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>",
       {"", "", {{"f", "{}"}}}},
      {ToolFormat::kQwenXml,
       "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>",
       {"", "", {{"get_weather", city}}}},
      {ToolFormat::kDeepSeek,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
       {"", "", {{"f", "{}"}}}},
      {ToolFormat::kLlamaJson,
       "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"city\": \"Oslo\"}}",
       {"", "", {{"f", city}}}},
      {ToolFormat::kPythonic,
       "<|tool_call_start|>[f(city='Oslo')]<|tool_call_end|>Now?",
       {"Now?", "", {{"f", city}}}},
      {ToolFormat::kJson,
       "```json\n{\"name\": \"get_weather\", \"arguments\": {}}\n```",
       {"", "", {{"get_weather", "{}"}}}},
      {ToolFormat::kHarmony,
       "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi",
       {"Hi", "Hm.", {}}},
      // JSON that is an answer, and markers that are words.
      {ToolFormat::kLlamaJson,
       "{\"name\": \"Ann\", \"parameters\": {}}",
       {"{\"name\": \"Ann\", \"parameters\": {}}", "", {}}},
      {ToolFormat::kJson, "[1, 2]", {"[1, 2]", "", {}}},
      {ToolFormat::kPythonic, "[see(1)]", {"[see(1)]", "", {}}},
      {ToolFormat::kHermes,
       "Write <tool_call> like this.",
       {"Write <tool_call> like this.", "", {}}},
      {ToolFormat::kHermes, "a </tool_call> b\n", {"a </tool_call> b\n", "", {}}},
      // Calls that break off or are no JSON stay what they are: never completed.
      {ToolFormat::kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"Os",
       {"", "", {{"f", "{\"city\": \"Os"}}}},
      {ToolFormat::kHermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {'city': 1}}</tool_call>!",
       {"!", "", {{"f", "{'city': 1}}"}}}},
      {ToolFormat::kQwenXml,
       "<function=get_weather><parameter=city>\nOs",
       {"", "", {{"get_weather", "{\"city\": \"Os"}}}},
  };
  for (const Case& entry : cases) {
    const bool harmony = entry.format == ToolFormat::kHarmony;
    const AnswerSyntax syntax =
        harmony ? ThinkingSyntax(entry.format, AnswerSyntax::Reasoning::kPossible)
                : Syntax(entry.format);
    EXPECT_EQ(ParseWhole(syntax, entry.text), entry.answer) << entry.text;
  }
}

TEST(AnswerParser, EndsAfterOneCallWhenOnlyOneIsWanted) {
  AnswerParser parser(Syntax(ToolFormat::kHermes, false));
  Answer answer;
  answer.Add(parser.Push("<tool_call>{\"name\": \"f\", \"arguments\": {}"));
  EXPECT_FALSE(parser.complete());
  answer.Add(parser.Push("}</tool_call><tool_call>{\"name\": \"g\", \"arguments\": {}}"));
  EXPECT_TRUE(parser.complete());
  answer.Add(parser.Finish());
  EXPECT_EQ(answer, (Answer{"", "", {{"f", "{}"}}}));
}

TEST(AnswerParser, KnowsWhenItReadsThoughts) {
  AnswerParser parser(ThinkingSyntax(ToolFormat::kHermes, AnswerSyntax::Reasoning::kPossible));
  EXPECT_FALSE(parser.reasoning());
  parser.Push("\n<think>");
  EXPECT_TRUE(parser.reasoning());
  parser.Push("hm</think>");
  EXPECT_FALSE(parser.reasoning());
}

TEST(AnswerParser, ShowsThoughtsAsContentOnRequest) {
  AnswerSyntax syntax = ThinkingSyntax(ToolFormat::kHermes, AnswerSyntax::Reasoning::kPossible);
  syntax.reasoning_as_content = true;
  const std::string text = "<think>\n<tool_call>?\n</think>\n\nYes.";
  EXPECT_EQ(ParseWhole(syntax, text), (Answer{text, "", {}}));
}

TEST(PythonLiteral, BecomesJson) {
  EXPECT_EQ(PythonLiteralToJson("{'a': [1, 2.5, True, None,], \"b\": ('x',)}"),
            "{\"a\": [1, 2.5, true, null], \"b\": [\"x\"]}");
  EXPECT_EQ(PythonLiteralToJson(R"('it\'s \x41\u00e9\ud83c\udf89\n')"), "\"it's Aé🎉\\n\"");
  EXPECT_EQ(PythonLiteralToJson("1_000"), "1000");
  for (const char* bad : {"", "foo", "[1", "{1: 2}", "'a", "'\\ud83c'", "1 2", "f(1)"}) {
    EXPECT_EQ(PythonLiteralToJson(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(PythonLiteralToJson(std::string(1'000'000, '[')), std::nullopt);
  EXPECT_EQ(LooseValueToJson("foo \"bar\""), "\"foo \\\"bar\\\"\"");
  EXPECT_EQ(LooseValueToJson("False"), "false");
}

}  // namespace
}  // namespace server
