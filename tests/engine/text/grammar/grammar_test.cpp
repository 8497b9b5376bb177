// What grammars accept and refuse, byte by byte: GBNF, regular expressions, choices and JSON
// Schema; what is not supported or hostile is refused with a sentence, within the limits.

#include "engine/text/grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/text/grammar/free_text.h"
#include "engine/text/grammar/matcher.h"
#include "tests/engine/text/template_values.h"
#include "tests/engine/text/vocabulary.h"

namespace engine::text::grammar {
namespace {

using testing::HasSubstr;

std::shared_ptr<const TokenTrie> ByteTrie() {
  static const auto trie =
      std::make_shared<const TokenTrie>(*Tokenizer::FromMetadata(BpeMetadata({}, {}, "default")));
  return trie;
}

class Language {
 public:
  explicit Language(const GrammarSource& source)
      : constraint_(std::make_shared<Constraint>(CompileGrammar(source), ByteTrie())) {}

  bool Has(std::string_view text) const {
    Matcher matcher(constraint_, {});
    for (const char byte : text) {
      if (!matcher.Accept(static_cast<uint8_t>(byte))) return false;
    }
    return matcher.IsComplete();
  }

 private:
  std::shared_ptr<const Constraint> constraint_;
};

GrammarSource Schema(const char* text) {
  return JsonSchema{tests::ToValue(nlohmann::ordered_json::parse(text))};
}

std::string ErrorOf(const GrammarSource& source) {
  try {
    CompileGrammar(source);
  } catch (const GrammarError& error) {
    return error.what();
  }
  return "no error";
}

TEST(FreeText, IsEveryTextWithoutTheWords) {
  const std::vector<std::string> words = {"abab", "ba｜", "｜｜", "bb"};
  const Language language(
      Built{[&](JsonGrammar* json) { return TextWithout(&json->expressions(), words); }});
  const std::vector<std::string> letters = {"a", "b", "｜", "é", "\xEF\xBD"};
  std::mt19937 random(5);
  int with = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (size_t i = random() % 9; i > 0; --i) text += letters[random() % 4];
    const bool found = std::any_of(words.begin(), words.end(), [&](const std::string& word) {
      return text.find(word) != std::string::npos;
    });
    EXPECT_EQ(language.Has(text), !found) << text;
    with += found ? 1 : 0;
  }
  EXPECT_GT(with, 1000);
  EXPECT_LT(with, 3000);
  EXPECT_FALSE(language.Has("a" + letters[4]));  // half a character
}

// A marker ends the text before it, and a grammar of any other source follows.
TEST(FreeText, StandsBeforeAMarker) {
  const Language language(Built{[](JsonGrammar* json) {
    Expressions& expressions = json->expressions();
    return expressions.Sequence({TextWithout(&expressions, {"</think>"}),
                                 expressions.Literal("</think>"),
                                 AddGrammar(&expressions, Choices{{"yes", "no"}})});
  }});
  EXPECT_TRUE(language.Has("</think>yes"));
  EXPECT_TRUE(language.Has("a < b <</thin </</think>no"));
  EXPECT_FALSE(language.Has("a</think>maybe"));
  EXPECT_FALSE(language.Has("a</think></think>no"));
  EXPECT_FALSE(language.Has("no"));
}

TEST(TokenTrie, HoldsTheControlTokensThatAreShown) {
  const auto tokenizer = Tokenizer::FromMetadata(
      BpeMetadata({}, {{"<|call|>", 3}, {"<|end|>", 3}, {"<tool_call>", 4}}, "default"));
  const std::vector<TokenId> shown = {256};
  const TokenTrie trie(*tokenizer, shown);
  EXPECT_EQ(trie.TokenBytes(256), "<|call|>");
  EXPECT_EQ(trie.TokenBytes(257), "");
  EXPECT_EQ(trie.TokenBytes(258), "<tool_call>");
  EXPECT_EQ(TokenTrie(*tokenizer).TokenBytes(256), "");
}

TEST(Gbnf, ReadsWhatTheNotationSays) {
  const Language language(Gbnf{R"~(
# arithmetic
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*   # left to right
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]{1,3} ws
ws    ::= [ \t\n]*
)~"});
  EXPECT_TRUE(language.Has("a_1 +(12*b)=7\n"));
  EXPECT_TRUE(language.Has("a=1\nb=2\n\n"));
  EXPECT_FALSE(language.Has("a=1"));
  EXPECT_FALSE(language.Has("1234=1\n"));
  EXPECT_FALSE(language.Has("(a=1\n"));
}

TEST(Gbnf, FollowsRecursionOfAnyDepthAndAmbiguity) {
  const Language brackets(Gbnf{"root ::= \"(\" root \")\" root | \"\""});
  const std::string deep = std::string(3000, '(') + std::string(3000, ')');
  EXPECT_TRUE(brackets.Has(deep + "()"));
  EXPECT_FALSE(brackets.Has(deep + ")"));
  const Language palindromes(Gbnf{"root ::= \"a\" root \"a\" | \"b\" root \"b\" | [ab] | \"\""});
  EXPECT_TRUE(palindromes.Has("abbabba"));
  EXPECT_FALSE(palindromes.Has("abbabb"));
  const Language nullable(Gbnf{"root ::= (a a a)* \"!\"\na ::= \"x\"? | \"yy\"*"});
  EXPECT_TRUE(nullable.Has("xyyyyx!"));
  EXPECT_TRUE(nullable.Has("!"));
}

TEST(Gbnf, CountsWithoutCopies) {
  const Language language(Gbnf{"root ::= (\"ab\" | \"c\" \"d\"?){1000,100000}"});
  std::string text;
  for (int i = 0; i < 999; ++i) text += i % 2 == 0 ? "ab" : "c";
  EXPECT_FALSE(language.Has(text));
  EXPECT_TRUE(language.Has(text + "cd"));
  EXPECT_TRUE(language.Has(text + text));
}

TEST(Gbnf, RefusesWithTheLine) {
  EXPECT_EQ(ErrorOf(Gbnf{"root ::= a\na ::= a \"x\" | \"y\""}),
            "The grammar is left-recursive: 'a' can begin with itself before anything is read.");
  EXPECT_EQ(ErrorOf(Gbnf{"root ::= \"a\" root"}),
            "The grammar has no finite text: 'root' can never end.");
  EXPECT_THAT(ErrorOf(Gbnf{"root ::= missing"}), HasSubstr("uses rule 'missing' (line 1)"));
  EXPECT_THAT(ErrorOf(Gbnf{"other ::= \"x\""}), HasSubstr("no rule named 'root'"));
  EXPECT_THAT(ErrorOf(Gbnf{"root ::= \"x\nother ::= \"y\""}), HasSubstr("in line 1"));
  EXPECT_THAT(ErrorOf(Gbnf{"root ::= <[12]>"}), HasSubstr("token reference"));
  EXPECT_THAT(ErrorOf(Gbnf{"root ::= [z-a]"}), HasSubstr("out of order"));
  EXPECT_THAT(ErrorOf(Gbnf{"root ::= \"a\"{3,1}"}), HasSubstr("out of order"));
  EXPECT_THAT(ErrorOf(Gbnf{""}), HasSubstr("no rule named 'root'"));
}

TEST(Regex, MatchesTheWholeText) {
  const Language language(Regex{"^(?:yes|no)(?<n>[^\\s\"]{2,})?|\\u{1F389}+$"});
  EXPECT_TRUE(language.Has("yes"));
  EXPECT_TRUE(language.Has("noé!"));
  EXPECT_FALSE(language.Has("no!"));
  EXPECT_TRUE(language.Has("🎉🎉"));
  EXPECT_FALSE(language.Has("🎉🎉y"));
}

TEST(Regex, RefusesWhatNoAutomatonCanDo) {
  EXPECT_THAT(ErrorOf(Regex{"(a)\\1"}), HasSubstr("back reference at character 5"));
  EXPECT_THAT(ErrorOf(Regex{"a(?=b)"}), HasSubstr("look-around"));
  EXPECT_THAT(ErrorOf(Regex{"\\bword"}), HasSubstr("word boundary"));
  EXPECT_THAT(ErrorOf(Regex{"a^b"}), HasSubstr("'^'"));
  EXPECT_THAT(ErrorOf(Regex{"(a"}), HasSubstr("without ')'"));
  EXPECT_THAT(ErrorOf(Regex{"a)"}), HasSubstr("unmatched ')'"));
  EXPECT_THAT(ErrorOf(Regex{"*"}), HasSubstr("nothing to repeat"));
  EXPECT_THAT(ErrorOf(Regex{"\\p{L}"}), HasSubstr("unsupported escape"));
  EXPECT_THAT(ErrorOf(Regex{"[a"}), HasSubstr("early end"));
  EXPECT_THAT(ErrorOf(Regex{"\xff"}), HasSubstr("UTF-8"));
}

TEST(Choices, AreTheTextsAndNothingElse) {
  const Language language(Choices{{"yes", "yesterday", "no", "né"}});
  EXPECT_TRUE(language.Has("yes"));
  EXPECT_TRUE(language.Has("yesterday"));
  EXPECT_TRUE(language.Has("né"));
  EXPECT_FALSE(language.Has("yester"));
  EXPECT_FALSE(language.Has(""));
  EXPECT_THAT(ErrorOf(Choices{{}}), HasSubstr("no finite text"));
}

TEST(JsonObject, IsAnyObjectAndNothingElse) {
  const Language language(AnyJsonObject{});
  EXPECT_TRUE(language.Has("{}"));
  EXPECT_TRUE(language.Has(R"({"a": [1, -2.5e-3, true, null, "\u00e9\n\ud83c\udf89é"], "b":{}})"));
  EXPECT_FALSE(language.Has("[]"));
  EXPECT_FALSE(language.Has(R"({"a":1,})"));
  EXPECT_FALSE(language.Has(R"({"a":01})"));
  EXPECT_FALSE(language.Has("{\"a\":\"\n\"}"));
  EXPECT_FALSE(language.Has(R"({"a":"\ud83c"})")) << "half a surrogate pair";
  EXPECT_FALSE(language.Has("{\"\xff\":1}"));
  EXPECT_FALSE(language.Has("{}  "));
}

TEST(JsonSchema, KeepsOrderAndWritesOnlyWhatIsDescribed) {
  const Language language(Schema(R"({"properties": {"a": {"type": "integer"}, "b": true},
                                     "required": ["b"]})"));
  EXPECT_TRUE(language.Has(R"({"a": 1, "b": [2]})"));
  EXPECT_TRUE(language.Has(R"({"b":null})"));
  EXPECT_FALSE(language.Has(R"({"b": 1, "a": 1})"));
  EXPECT_FALSE(language.Has(R"({"a": 1})"));
  EXPECT_FALSE(language.Has(R"({"b": 1, "c": 1})"));
  const Language open(Schema(R"({"properties": {"a": {"const": 1}},
                                 "additionalProperties": {"type": "boolean"}})"));
  EXPECT_TRUE(open.Has(R"({"a": 1, "ab": true, "": false})"));
  EXPECT_FALSE(open.Has(R"({"ab": true, "a": true})")) << "a named member under another schema";
  EXPECT_FALSE(open.Has(R"({"\u0061": true})")) << "the same, hidden by an escape";
}

TEST(JsonSchema, CombinesAllOfAndSiblings) {
  const Language language(Schema(R"({
    "$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 0}},
                       "required": ["id"]}},
    "allOf": [{"$ref": "#/$defs/base"},
              {"properties": {"id": {"maximum": 9}, "tag": {"enum": ["x", 3, "y"]}}}],
    "anyOf": [{"properties": {"tag": {"type": "string"}}, "required": ["tag"]}]})"));
  EXPECT_TRUE(language.Has(R"({"id": 7, "tag": "x"})"));
  EXPECT_FALSE(language.Has(R"({"id": 10, "tag": "x"})"));
  EXPECT_FALSE(language.Has(R"({"id": 7, "tag": 3})"));
  EXPECT_FALSE(language.Has(R"({"id": 7})"));
}

TEST(JsonSchema, NamesTheKeywordAndPathThatItRefuses) {
  const auto error = [](const char* text) { return ErrorOf(Schema(text)); };
  EXPECT_EQ(error(R"({"properties": {"a/b": {"not": {}}}})"),
            "JSON Schema: 'not' at #/properties/a~1b is not supported.");
  EXPECT_EQ(error(R"({"items": {"uniqueItems": true}})"),
            "JSON Schema: 'uniqueItems' at #/items is not supported.");
  EXPECT_EQ(error(R"({"$defs": {"x": {"contains": {}}}, "$ref": "#/$defs/x"})"),
            "JSON Schema: 'contains' at #/$defs/x is not supported.");
  EXPECT_THAT(error(R"({"typ": "object"})"), HasSubstr("'typ' at #"));
  EXPECT_THAT(error(R"({"$ref": "#/$defs/none"})"), HasSubstr("'#/$defs/none'"));
  EXPECT_THAT(error(R"({"$ref": "https://example.org/a"})"), HasSubstr("references are"));
  EXPECT_THAT(error(R"({"type": "text"})"), HasSubstr("'type' at #"));
  EXPECT_THAT(error(R"({"format": "regex", "type": "string"})"), HasSubstr("supported are"));
  EXPECT_THAT(error(R"~({"pattern": "(?!a)"})~"), HasSubstr("'pattern' at #"));
  EXPECT_THAT(error(R"({"type": "number", "multipleOf": 0.1})"), HasSubstr("'multipleOf'"));
  EXPECT_THAT(error(R"({"minLength": -1})"), HasSubstr("'minLength'"));
  EXPECT_THAT(error(R"({"minLength": 1e300})"), HasSubstr("'minLength'"));
  EXPECT_THAT(error(R"([])"), HasSubstr("not an object or a boolean"));
  EXPECT_THAT(error(R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})"),
              HasSubstr("no finite text"));
  EXPECT_THAT(error(R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})"), HasSubstr("itself"));
  EXPECT_THAT(error(R"({"allOf": [{"$ref": "#"}]})"), HasSubstr("nested deeper"));
}

// A count of at least five and at most three is none; it used to end at the three.
TEST(JsonSchema, CountsThatExcludeEachOtherAllowNothing) {
  const auto error = [](const char* text) { return ErrorOf(Schema(text)); };
  EXPECT_EQ(error(R"({"type": "array", "items": {"type": "null"}, "minItems": 5, "maxItems": 3})"),
            "JSON Schema: no array at # satisfies 'minItems' 5, 'maxItems' 3.");
  EXPECT_EQ(error(R"({"type": "object", "minProperties": 2, "maxProperties": 1})"),
            "JSON Schema: no object at # satisfies 'minProperties' 2, 'maxProperties' 1.");
  EXPECT_EQ(error(R"({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 3,
                      "maxProperties": 2})"),
            "JSON Schema: no object at # satisfies 'minProperties' 3, 'maxProperties' 2.");
  EXPECT_EQ(error(R"({"allOf": [{"minItems": 5, "items": {}}, {"maxItems": 3}]})"),
            "JSON Schema: no array at # satisfies 'minItems' 5, 'maxItems' 3.");
  EXPECT_EQ(error(R"({"items": {"type": "object", "minProperties": 2, "maxProperties": 1},
                      "minItems": 1})"),
            "JSON Schema: no object at #/items satisfies 'minProperties' 2, 'maxProperties' 1.");
  const Language types(Schema(R"({"type": ["array", "null"], "minItems": 5, "maxItems": 3})"));
  EXPECT_TRUE(types.Has("null"));
  EXPECT_FALSE(types.Has("[1, 2, 3]"));
  EXPECT_FALSE(types.Has("[1, 2, 3, 4, 5]"));
  const Language branches(Schema(R"({"anyOf": [
    {"type": "object", "minProperties": 2, "maxProperties": 1, "additionalProperties": {}},
    {"type": "array", "minItems": 1, "maxItems": 1}]})"));
  EXPECT_TRUE(branches.Has("[1]"));
  EXPECT_FALSE(branches.Has(R"({"a": 1})"));
  const Language optional(Schema(R"({"properties": {"a": {"minItems": 2, "maxItems": 1}}})"));
  EXPECT_TRUE(optional.Has("{}"));
  EXPECT_FALSE(optional.Has(R"({"a": [1]})"));
}

TEST(JsonSchema, SaysWhyNoValueSatisfiesIt) {
  for (const auto& [schema, error] : std::vector<std::pair<const char*, const char*>>{
           {R"({"type": "integer", "minimum": 5, "maximum": 2})",
            "no integer at # satisfies 'minimum' 5, 'maximum' 2."},
           {R"({"type": "integer", "exclusiveMinimum": 1, "maximum": 6, "multipleOf": 7})",
            "no integer at # satisfies 'exclusiveMinimum' 1, 'maximum' 6, 'multipleOf' 7."},
           {R"({"exclusiveMinimum": 0.5, "maximum": 0.5})",
            "no number at # satisfies 'exclusiveMinimum' 0.5, 'maximum' 0.5."},
           {R"({"type": "string", "minLength": 3, "maxLength": 2})",
            "no string at # satisfies 'minLength' 3, 'maxLength' 2."},
           {R"({"type": "string", "pattern": "^abc$", "maxLength": 2})",
            "no string at # satisfies 'maxLength' 2, 'pattern'."},
           {R"({"enum": []})",
            "'enum' at # leaves no value: it is empty, or what it is combined with excludes it."},
           {R"({"type": "string", "const": 1})",
            "'const' at # leaves no value: it is empty, or what it is combined with excludes it."},
           {R"({"allOf": [{"type": "string"}, {"type": "integer"}]})",
            "'type' at # leaves no type: it is empty, or combined types exclude each other."},
           {R"({"anyOf": []})", "'anyOf' at # has no branch."},
           {R"(false)", "# is false, or combined with false: no value satisfies it."},
           {R"({"prefixItems": [{}, {}], "minItems": 3})",
            "'minItems' at # is above the number of 'prefixItems', and 'items' does not say what "
            "follows."},
           {R"({"properties": {"a": {}}, "minProperties": 2})",
            "'minProperties' at # is above the number of members that are described."},
           {R"({"properties": {"a": {}}, "required": ["a"], "maxProperties": 0})",
            "'maxProperties' at # is below the number of members that are required."},
           {R"({"properties": {"a": {}}, "required": ["b"]})",
            "'required' at # names 'b', which the schema does not describe."},
           // Inside: what is required is to blame, not what may be absent.
           {R"({"properties": {"a": {"enum": []}, "b": {"minimum": 2, "maximum": 1}, "c": false},
               "required": ["b", "c"]})",
            "no number at #/properties/b satisfies 'minimum' 2, 'maximum' 1."},
           {R"({"$defs": {"x": {"enum": []}}, "items": {"$ref": "#/$defs/x"}, "minItems": 1})",
            "'enum' at #/$defs/x leaves no value: it is empty, or what it is combined with "
            "excludes it."},
           {R"({"oneOf": [{"minimum": 2, "maximum": 1}, false]})",
            "no number at #/oneOf/0 satisfies 'minimum' 2, 'maximum' 1."}}) {
    EXPECT_EQ(ErrorOf(Schema(schema)), std::string("JSON Schema: ") + error) << schema;
  }
  for (const char* one_does : {
           R"({"anyOf": [{"minimum": 5, "maximum": 2}, {"const": "a"}]})",
           R"({"oneOf": [{"const": "a"}, {"enum": []}, false]})",
           R"({"type": ["integer", "string"], "minimum": 5, "maximum": 2})",
           R"({"type": "string", "anyOf": [{"type": "integer"}, {"type": "string"}]})",
           R"({"enum": ["a", "b", 3], "type": "string"})",
       }) {
    EXPECT_TRUE(Language(Schema(one_does)).Has("\"a\"")) << one_does;
  }
}

TEST(JsonSchema, RequiredIsAnArrayOfStrings) {
  const std::string expected = "JSON Schema: 'required' at # must be an array of strings.";
  for (const char* schema :
       {R"({"required": [1]})", R"({"required": "b"})", R"({"required": ["a", null]})",
        R"({"required": true})", R"({"properties": {"b": {}}, "required": "b"})"}) {
    EXPECT_EQ(ErrorOf(Schema(schema)), expected) << schema;
  }
  EXPECT_EQ(ErrorOf(Schema(R"({"allOf": [{"required": ["a"]}, {"required": "b"}]})")),
            "JSON Schema: 'required' at #/allOf/1 must be an array of strings.");
  EXPECT_EQ(ErrorOf(Schema(R"({"properties": {"b": {}}, "required": ["b"]})")), "no error");
  EXPECT_EQ(ErrorOf(Schema(R"({"type": "object", "required": []})")), "no error");
}

// The worst that one request can send ends with a sentence, in bounded time.
TEST(GrammarLimits, RefuseHostileSourcesQuickly) {
  std::string unions = R"({"$defs": {"d0": {"type": "null"})";
  for (int i = 1; i < 60; ++i) {
    const std::string below = R"({"allOf": [{"$ref": "#/$defs/d)" + std::to_string(i - 1) + "\"}]}";
    unions += ", \"d" + std::to_string(i) + R"(": {"anyOf": [)" + below + "," + below + "]}";
  }
  unions += R"(}, "$ref": "#/$defs/d59"})";
  std::string rules = "root ::= r0\n";
  for (int i = 0; i < 20000; ++i) {
    rules += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "\n";
  }
  rules += "r20000 ::= \"x\"\n";
  std::string nested_schema;
  for (int i = 0; i < 1000; ++i) nested_schema += R"({"items":)";
  nested_schema += "{}" + std::string(1000, '}');
  const std::vector<std::function<GrammarSource()>> hostile = {
      [] { return Gbnf{"root ::= " + std::string(60000, '(')}; },
      [] { return Regex{std::string(60000, '(')}; },
      [] { return Regex{std::string(1 << 20, 'a')}; },
      [] { return Regex{"((((a{1000}){1000}){1000}){1000})"}; },
      [] { return Regex{"a{999999999999}"}; },
      [&] { return Gbnf{rules}; },
      [&] { return Schema(unions.c_str()); },
      [&] { return Schema(nested_schema.c_str()); },
      [] {
        return Schema(R"~({"type": "string", "pattern": "(a|b)*a(a|b){30}", "maxLength": 99})~");
      },
      [] { return Schema(R"({"type": "integer", "multipleOf": 999999999})"); },
      [] { return Choices{std::vector<std::string>(300000, "x")}; },
  };
  for (size_t i = 0; i < hostile.size(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = ErrorOf(hostile[i]());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    RecordProperty("seconds_" + std::to_string(i), std::to_string(took.count()));
    // The nested counts and the long chain of rules are fine for a machine that counts and calls.
    if (i != 3 && i != 5) {
      EXPECT_NE(error, "no error") << i;
    }
    EXPECT_LT(error.size(), 400U);
  }
}

// Any text as a grammar, a pattern or a schema compiles or is refused, and what compiles can be
// walked. Fixed seeds.
TEST(GrammarFuzz, RandomSourcesCompileOrAreRefused) {
  std::mt19937 random(20);
  const auto pick = [&](const auto& list) { return list[random() % list.size()]; };
  const std::vector<std::string> gbnf = {
      "root", "a",  " ::= ", "\n", "\"x\"", "[a-z]", "[^\\n]", "(",  ")",
      "|",    "*",  "+",     "?",  "{2}",   "{1,}",  "{,3}",   " ",  ".",
      "#",    "\\", "\"",    "[",  "]",     "é",     "\xff",   "{9}"};
  const std::vector<std::string> regex = {
      "a", "(",   ")", "|", "*", "+",   "?",  "{2,3}", "[", "]",   "^",   "$",  "\\d",     "\\",
      "-", "(?:", ".", "{", "}", "\\u", "00", "\\x41", "é", "\\p", "{9}", "[^", "\\uD83C", "🎉"};
  const std::vector<std::string> keywords = {"type",
                                             "properties",
                                             "required",
                                             "items",
                                             "enum",
                                             "const",
                                             "anyOf",
                                             "allOf",
                                             "$ref",
                                             "minimum",
                                             "maximum",
                                             "minLength",
                                             "maxLength",
                                             "pattern",
                                             "format",
                                             "minItems",
                                             "maxItems",
                                             "prefixItems",
                                             "additionalProperties",
                                             "patternProperties",
                                             "minProperties",
                                             "multipleOf"};
  const std::vector<std::string> scalars = {
      "1",         "-3",       "2.5",         "1e300",      "null",        "true",
      "false",     "\"#\"",    "\"string\"",  "\"object\"", "\"integer\"", "\"array\"",
      "\"^a|b$\"", "\"date\"", "\"#/items\"", "[]",         "{}"};
  const std::function<std::string(int)> schema = [&](int depth) -> std::string {
    std::string text = "{";
    const size_t members = random() % 4;
    for (size_t i = 0; i < members; ++i) {
      text += (i > 0 ? ",\"" : "\"") + pick(keywords) + "\":";
      const uint32_t kind = depth < 3 ? random() % 4 : 0;
      if (kind < 2) text += pick(scalars);
      if (kind == 2) text += schema(depth + 1);
      if (kind == 3) text += "[" + schema(depth + 1) + "," + pick(scalars) + "]";
    }
    return text + "}";
  };
  size_t compiled = 0;
  size_t refused = 0;
  GrammarLimits limits;
  limits.dfa_states = 500;
  for (int i = 0; i < 6000; ++i) {
    GrammarSource source;
    std::string text;
    if (i % 3 == 2) {
      source = JsonSchema{tests::ToValue(nlohmann::ordered_json::parse(schema(0)))};
    } else {
      const size_t parts = 1 + random() % 12;
      if (i % 3 == 0 && random() % 4 != 0) text = "root ::= ";
      for (size_t j = 0; j < parts; ++j) text += i % 3 == 0 ? pick(gbnf) : pick(regex);
      if (i % 3 == 0) {
        source = Gbnf{text};
      } else {
        source = Regex{text};
      }
    }
    try {
      const auto constraint =
          std::make_shared<Constraint>(CompileGrammar(source, limits), ByteTrie());
      ++compiled;
      Matcher matcher(constraint, {});
      for (int step = 0; step < 12 && !matcher.IsExhausted(); ++step) {
        const auto mask = matcher.Mask();
        std::vector<TokenId> allowed;
        for (TokenId token = 0; token < 256; ++token) {
          const auto bit = static_cast<size_t>(token);
          if (((mask[bit / 64] >> (bit % 64)) & 1) != 0) allowed.push_back(token);
        }
        ASSERT_FALSE(allowed.empty()) << text;
        ASSERT_TRUE(matcher.Accept(pick(allowed))) << text;
      }
    } catch (const GrammarError& error) {
      ++refused;
      EXPECT_GT(std::string(error.what()).size(), 10U);
    }
  }
  EXPECT_GT(compiled, 1000U);
  EXPECT_GT(refused, 1000U);
}

// Nested repetition, exponential when determinised or when every way is followed by itself.
TEST(GrammarLimits, AmbiguityCostsNoExponentialTime) {
  const Language language(Regex{"(a*)*(a|aa)+(a?){500}b"});
  EXPECT_TRUE(language.Has(std::string(400, 'a') + "b"));
  const Language nested(Gbnf{"root ::= x x x x \"b\"\nx ::= y y y y\ny ::= \"a\"* \"a\"* \"a\"*"});
  EXPECT_TRUE(nested.Has(std::string(400, 'a') + "b"));
  EXPECT_FALSE(nested.Has(std::string(400, 'a')));
}

}  // namespace
}  // namespace engine::text::grammar
