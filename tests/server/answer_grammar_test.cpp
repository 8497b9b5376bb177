// The grammar of a whole answer has the calls that the format's writer writes, when their arguments
// satisfy the schemas, and no others; thoughts come first; large sets of functions compile.

#include "server/answer_grammar.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/text/grammar/matcher.h"
#include "server/tool_prompt.h"
#include "tests/engine/text/vocabulary.h"

namespace server {
namespace {

namespace grammar = engine::text::grammar;
using engine::text::Value;

constexpr ToolFormat kFormats[] = {
    ToolFormat::kJson,      ToolFormat::kHermes,   ToolFormat::kQwenXml, ToolFormat::kGlm,
    ToolFormat::kLlamaJson, ToolFormat::kPythonic, ToolFormat::kMistral, ToolFormat::kDeepSeek,
    ToolFormat::kGranite,   ToolFormat::kApertus,  ToolFormat::kHarmony};

// Every byte is a token, and its own id.
bool Has(const GrammarRequest& request, std::string_view text) {
  static const auto trie = std::make_shared<const grammar::TokenTrie>(
      *engine::text::Tokenizer::FromMetadata(engine::text::BpeMetadata({}, {}, "default")));
  const auto constraint =
      std::make_shared<const grammar::Constraint>(grammar::CompileGrammar(request.source), trie);
  grammar::Matcher matcher(constraint, {});
  for (const char byte : text) {
    if (!matcher.Accept(static_cast<uint8_t>(byte))) return false;
  }
  return matcher.IsComplete();
}

AnswerSyntax Syntax(ToolFormat format, const Json& tools, const Json& more = Json::object()) {
  Json body = more;
  body["tools"] = tools;
  ParamReader reader(body);
  AnswerSyntax syntax;
  syntax.format = format;
  syntax.tools = std::make_shared<ToolRequest>(ReadTools(reader));
  return syntax;
}

Json Weather(bool strict = false) {
  Json tools =
      Json::parse(R"([{"type": "function", "function": {"name": "get_weather", "parameters":
    {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]},
       "days": {"type": "integer", "minimum": 1, "maximum": 9}, "loud": {"type": "boolean"}},
     "required": ["city", "days"], "additionalProperties": false}}}])");
  tools[0]["function"]["strict"] = strict;
  return tools;
}

std::string Written(ToolFormat format, const char* arguments, int calls = 1) {
  const WrittenCall call{"get_weather", ToValue(Json::parse(arguments))};
  return WriteCalls(format, std::vector<WrittenCall>(static_cast<size_t>(calls), call));
}

// Harmony's call ends with a token that ends the turn.
std::string WithoutEnd(std::string text) {
  constexpr std::string_view kEnd = "<|call|>";
  if (text.ends_with(kEnd)) text.resize(text.size() - kEnd.size());
  return text;
}

class AnswerGrammar : public ::testing::TestWithParam<ToolFormat> {};

TEST_P(AnswerGrammar, OfRequiredCallsHasThoseThatSatisfyTheSchema) {
  const auto request =
      MakeAnswerGrammar(Syntax(GetParam(), Weather(), {{"tool_choice", "required"}}), nullptr, {});
  ASSERT_NE(request, nullptr);
  const auto has = [&](const char* arguments, int calls = 1) {
    return Has(*request, WithoutEnd(Written(GetParam(), arguments, calls)));
  };
  EXPECT_TRUE(has(R"({"city": "Oslo", "days": 3})"));
  EXPECT_TRUE(has(R"({"city": "Lima", "days": 9, "loud": true})"));
  EXPECT_FALSE(has(R"({"city": "Oslo"})"));
  EXPECT_FALSE(has(R"({"city": "Rome", "days": 3})"));
  EXPECT_FALSE(has(R"({"city": "Oslo", "days": 10})"));
  EXPECT_FALSE(has(R"({"city": "Oslo", "days": 3, "far": 1})"));
  EXPECT_EQ(has(R"({"city": "Oslo", "days": 3})", 2), GetParam() != ToolFormat::kHarmony);
  EXPECT_FALSE(Has(*request, "The weather is fine."));
  EXPECT_FALSE(Has(*request, ""));
}

TEST_P(AnswerGrammar, OfOneCallHasNoSecond) {
  const auto request = MakeAnswerGrammar(
      Syntax(GetParam(), Weather(), {{"tool_choice", "required"}, {"parallel_tool_calls", false}}),
      nullptr, {});
  const char* const arguments = R"({"city": "Oslo", "days": 3})";
  EXPECT_TRUE(Has(*request, WithoutEnd(Written(GetParam(), arguments))));
  EXPECT_FALSE(Has(*request, WithoutEnd(Written(GetParam(), arguments, 2))));
}

TEST_P(AnswerGrammar, OfStrictToolsHasTextAndValidCalls) {
  const auto request = MakeAnswerGrammar(Syntax(GetParam(), Weather(true)), nullptr, {});
  ASSERT_NE(request, nullptr);
  EXPECT_TRUE(Has(*request, "The weather is fine. a < b, [1]"));
  EXPECT_TRUE(Has(*request, ""));
  const auto has = [&](const char* arguments) {
    return Has(*request, WithoutEnd(Written(GetParam(), arguments)));
  };
  EXPECT_TRUE(has(R"({"city": "Oslo", "days": 3})"));
  EXPECT_FALSE(has(R"({"city": "Rome", "days": 3})"));
}

// Text alone would be a grammar too: the function would never be called.
TEST_P(AnswerGrammar, OfAStrictFunctionWithoutValidArgumentsIsRefused) {
  for (const char* city : {"false", R"({"enum": []})", R"({"allOf": [{"const": 1}, {"const": 2}]})",
                           R"({"type": "integer", "minimum": 5, "maximum": 4})",
                           R"({"type": "array", "minItems": 5, "maxItems": 3})",
                           R"({"type": "object", "minProperties": 2, "maxProperties": 1})"}) {
    for (const char* choice : {"auto", "required"}) {
      Json tools = Weather(true);
      tools[0]["function"]["parameters"]["properties"]["city"] = Json::parse(city);
      tools.push_back(Weather(true)[0]);
      tools[1]["function"]["name"] = "other";
      const AnswerSyntax syntax = Syntax(GetParam(), tools, {{"tool_choice", choice}});
      const auto request = MakeAnswerGrammar(syntax, nullptr, {});
      EXPECT_THROW(grammar::CompileGrammar(request->source), grammar::GrammarError)
          << city << " " << choice;
      EXPECT_NE(SchemaProblem(syntax.tools->functions[0]), "") << city;
      EXPECT_EQ(SchemaProblem(syntax.tools->functions[1]), "");
      // Where the schema is not followed, it may be one.
      tools[0]["function"]["strict"] = false;
      if (std::string_view(choice) == "required") continue;
      const auto free = MakeAnswerGrammar(Syntax(GetParam(), tools), nullptr, {});
      EXPECT_TRUE(Has(*free, "Fine."));
    }
  }
}

// A member that says nothing of its values may have any.
TEST_P(AnswerGrammar, OfMembersWithoutASchemaHasAnyJson) {
  Json tools = Weather(true);
  Json& parameters = tools[0]["function"]["parameters"];
  parameters["properties"] = {{"any", Json::object()}, {"all", true}};
  parameters["required"] = {"any", "all"};
  const auto request = MakeAnswerGrammar(Syntax(GetParam(), tools), nullptr, {});
  const auto has = [&](const char* arguments) {
    return Has(*request, WithoutEnd(Written(GetParam(), arguments)));
  };
  EXPECT_TRUE(has(R"({"any": 5, "all": [1, {"a": 2}]})"));
  EXPECT_TRUE(has(R"({"any": {"b": 1.5}, "all": 7})"));
  EXPECT_FALSE(has(R"({"any": 5})"));
}

TEST_P(AnswerGrammar, IsNotNeededWhereNothingIsPromised) {
  EXPECT_EQ(MakeAnswerGrammar(Syntax(GetParam(), Weather()), nullptr, {}), nullptr);
}

TEST_P(AnswerGrammar, OfManyFunctionsCompiles) {
  Json tools = Json::array();
  for (int i = 0; i < 512; ++i) {
    tools.push_back(Weather()[0]);
    tools.back()["function"]["name"] = "tool_" + std::to_string(i);
  }
  const auto request =
      MakeAnswerGrammar(Syntax(GetParam(), tools, {{"tool_choice", "required"}}), nullptr, {});
  const WrittenCall call{"tool_511", ToValue(Json::parse(R"({"city": "Oslo", "days": 3})"))};
  EXPECT_TRUE(Has(*request, WithoutEnd(WriteCalls(GetParam(), {call}))));
}

INSTANTIATE_TEST_SUITE_P(All, AnswerGrammar, ::testing::ValuesIn(kFormats), [](const auto& param) {
  return std::string(ToolFormatName(param.param));
});

TEST(AnswerGrammarOfThoughts, HasThemBeforeTheAnswer) {
  AnswerSyntax syntax = Syntax(ToolFormat::kHermes, Weather(), {{"tool_choice", "required"}});
  syntax.markers = {"<think>", "</think>"};
  const std::string call = Written(ToolFormat::kHermes, R"({"city": "Oslo", "days": 3})");
  syntax.reasoning = AnswerSyntax::Reasoning::kPossible;
  const auto possible = MakeAnswerGrammar(syntax, nullptr, {});
  EXPECT_TRUE(Has(*possible, call));
  EXPECT_TRUE(Has(*possible, "<think>Hm, <b>.</think>\n\n" + call));
  EXPECT_FALSE(Has(*possible, "<think>Hm." + call));
  syntax.reasoning = AnswerSyntax::Reasoning::kOpen;
  const auto open = MakeAnswerGrammar(syntax, nullptr, {});
  EXPECT_TRUE(Has(*open, "Hm.</think>" + call));
  EXPECT_FALSE(Has(*open, call));
  syntax.tools = nullptr;
  const auto content = std::make_shared<const GrammarRequest>(
      GrammarRequest{grammar::Choices{{"yes", "no"}}, "choice", "guided_choice", {}});
  const auto constrained = MakeAnswerGrammar(syntax, content, {});
  EXPECT_TRUE(Has(*constrained, "Hm.</think>\nyes"));
  EXPECT_FALSE(Has(*constrained, "yes"));
  syntax.reasoning = AnswerSyntax::Reasoning::kNone;
  EXPECT_EQ(MakeAnswerGrammar(syntax, content, {}), content);
}

TEST(UnwritableArgument, DependsOnTheFormat) {
  for (const auto& [name, format] :
       {std::pair("a b", ToolFormat::kPythonic), std::pair("", ToolFormat::kPythonic),
        std::pair("a>", ToolFormat::kQwenXml), std::pair("</arg_key>", ToolFormat::kGlm)}) {
    Json tools = Weather();
    tools[0]["function"]["parameters"]["properties"][name] = Json::object();
    for (const ToolFormat other : kFormats) {
      const AnswerSyntax syntax = Syntax(other, tools);
      const std::string* found = UnwritableArgument(other, syntax.tools->functions[0]);
      if (other == format) {
        ASSERT_NE(found, nullptr) << name;
        EXPECT_EQ(*found, name);
      } else if (other == ToolFormat::kJson) {
        EXPECT_EQ(found, nullptr);
      }
    }
  }
}

}  // namespace
}  // namespace server
