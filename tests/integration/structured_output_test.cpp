// Structured output through the whole server, with the demo model at temperature 1: every answer is
// what the request asked for, whole and streamed, for each of n choices, alone and in a batch;
// what cannot be compiled is refused before anything runs.

#include <gmock/gmock.h>

#include <regex>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json PersonSchema() {
  return json::parse(R"({"type": "object", "properties": {
      "name": {"type": "string", "maxLength": 12},
      "age": {"type": "integer", "minimum": 0, "maximum": 130},
      "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 3},
      "next": {"anyOf": [{"$ref": "#/$defs/none"}, {"type": "boolean"}]}},
    "required": ["name", "age", "pets", "next"], "additionalProperties": false,
    "$defs": {"none": {"type": "null"}}})");
}

void ExpectPerson(const std::string& text) {
  const json person = json::parse(text, nullptr, false);
  ASSERT_TRUE(person.is_object()) << text;
  EXPECT_EQ(person.size(), 4U) << text;
  EXPECT_LE(person["name"].get<std::string>().size(), 48U);
  EXPECT_GE(person["age"].get<int>(), 0);
  EXPECT_LE(person["age"].get<int>(), 130);
  EXPECT_LE(person["pets"].size(), 3U);
  for (const json& pet : person["pets"]) EXPECT_TRUE(pet == "cat" || pet == "dog");
  EXPECT_TRUE(person["next"].is_null() || person["next"].is_boolean());
}

class StructuredOutput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { app_ = std::make_unique<TestApp>(); }
  static void TearDownTestSuite() { app_.reset(); }
  static TestApp& app() { return *app_; }

  static json Body(int seed, const json& more) {
    json body = ChatBody("Tell me a story.", 300);
    body["temperature"] = 1;
    body["seed"] = seed;
    body.update(more);
    return body;
  }
  static std::string TextOf(const json& answer, size_t choice = 0) {
    EXPECT_EQ(answer["choices"][choice]["finish_reason"], "stop") << answer;
    return answer["choices"][choice]["message"]["content"];
  }
  static std::string Refusal(const json& more) {
    for (const bool stream : {false, true}) {
      json body = Body(1, more);
      body["stream"] = stream;
      const auto response = app().Post("/v1/chat/completions", body);
      EXPECT_EQ(response.status, 400) << response.body;
      if (stream) return json::parse(response.body)["error"]["message"];
    }
    return {};
  }

 private:
  static std::unique_ptr<TestApp> app_;
};

std::unique_ptr<TestApp> StructuredOutput::app_;

TEST_F(StructuredOutput, EveryFieldOfTheFieldGivesWhatItAsksFor) {
  const json schema = PersonSchema();
  const std::vector<json> schemas = {
      {{"response_format",
        {{"type", "json_schema"},
         {"json_schema", {{"name", "person"}, {"strict", true}, {"schema", schema}}}}}},
      {{"response_format", {{"type", "json_object"}, {"schema", schema}}}},
      {{"json_schema", schema}},
      {{"guided_json", schema}},
      {{"guided_json", schema.dump()}},
      {{"structured_outputs", {{"json", schema}}}},
  };
  for (size_t i = 0; i < schemas.size(); ++i) {
    ExpectPerson(
        TextOf(app().PostOk("/v1/chat/completions", Body(static_cast<int>(i), schemas[i]))));
  }
  const std::vector<std::pair<json, std::string>> patterns = {
      {{{"guided_regex", "[A-Z][a-z]{2,6}( [a-z]{1,5}){3}\\."}},
       "[A-Z][a-z]{2,6}( [a-z]{1,5}){3}\\."},
      {{{"structured_outputs", {{"regex", "[0-9]{4}-[0-9]{2}"}}}}, "[0-9]{4}-[0-9]{2}"},
      {{{"guided_choice", {"yes", "no", "perhaps"}}}, "yes|no|perhaps"},
      {{{"structured_outputs", {{"choice", {"yes", "no"}}}}}, "yes|no"},
      {{{"grammar", "root ::= (\"tick\" | \"tock\"){3} end\nend ::= [!.]"}}, "(tick|tock){3}[!.]"},
      {{{"guided_grammar", "root ::= \"[\" [a-c]{5} \"]\""}}, "\\[[a-c]{5}\\]"},
      {{{"structured_outputs", {{"grammar", "root ::= [01]{8}"}}}}, "[01]{8}"},
  };
  for (const auto& [more, pattern] : patterns) {
    for (int seed = 0; seed < 3; ++seed) {
      const std::string text = TextOf(app().PostOk("/v1/chat/completions", Body(seed, more)));
      EXPECT_TRUE(std::regex_match(text, std::regex(pattern))) << text << " of " << more;
    }
  }
  json completion = {{"prompt", "Once"}, {"max_tokens", 50}, {"guided_choice", {"upon", "again"}}};
  const json answer = app().PostOk("/v1/completions", completion);
  EXPECT_THAT(answer["choices"][0]["text"], ::testing::AnyOf("upon", "again"));
}

TEST_F(StructuredOutput, JsonObjectIsAnObjectOrCutShort) {
  int whole = 0;
  for (int seed = 0; seed < 6; ++seed) {
    json body = Body(seed, {{"response_format", {{"type", "json_object"}}}});
    body["temperature"] = 0.7;
    const json answer = app().PostOk("/v1/chat/completions", body);
    const json& choice = answer["choices"][0];
    if (choice["finish_reason"] == "length") continue;
    ++whole;
    EXPECT_TRUE(json::parse(choice["message"]["content"].get<std::string>()).is_object());
  }
  RecordProperty("whole", whole);
}

TEST_F(StructuredOutput, ChoicesStreamsAndBatchesSayTheSame) {
  json body = Body(11, {{"guided_json", PersonSchema()}, {"n", 4}, {"logprobs", true}});
  const json alone = app().PostOk("/v1/chat/completions", body);
  ASSERT_EQ(alone["choices"].size(), 4U);
  for (size_t i = 0; i < 4; ++i) ExpectPerson(TextOf(alone, i));
  EXPECT_NE(TextOf(alone, 0), TextOf(alone, 1));

  body["stream"] = true;
  std::vector<std::string> together(6);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < together.size(); ++i) {
      threads.emplace_back([&, i] {
        // Beside it run others with another grammar and with none.
        json other = i % 3 == 0
                         ? body
                         : Body(static_cast<int>(i),
                                i % 3 == 1 ? json{{"guided_regex", "[a-z ]{80}"}} : json::object());
        other["stream"] = true;
        together[i] = app().Post("/v1/chat/completions", other).body;
      });
    }
  }
  for (const size_t i : {0U, 3U}) {
    const EventStream stream(together[i]);
    EXPECT_TRUE(stream.done);
    for (int choice = 0; choice < 4; ++choice) {
      EXPECT_EQ(stream.Text(choice), TextOf(alone, static_cast<size_t>(choice)));
    }
  }
  EXPECT_EQ(EventStream(together[1]).Text().size(), 80U);
}

// Ending where the grammar ends needs no end-of-turn token, so ignoring or delaying it is harmless.
// Drafted tokens are checked against the grammar like any other.
TEST(StructuredOutputSpeculation, SaysTheSame) {
  json person = ChatBody("Tell me a story.", 300);
  person.update({{"guided_json", PersonSchema()}, {"n", 4}, {"temperature", 0.8}, {"seed", 5}});
  json clock = ChatBody("Tell me a story.", 300);
  clock.update({{"guided_regex", "(tick tock ){30}"}, {"n", 2}, {"temperature", 1}, {"seed", 6}});
  std::vector<json> expected;
  for (const auto kind : {scheduler::Speculation::kOff, scheduler::Speculation::kNgram,
                          scheduler::Speculation::kSelf}) {
    TestAppOptions options;
    options.scheduler.speculation = kind;
    const TestApp app(options);
    std::vector<json> answers;
    for (const json& body : {person, clock}) {
      answers.push_back(app.PostOk("/v1/chat/completions", body)["choices"]);
    }
    if (kind == scheduler::Speculation::kOff) {
      expected = answers;
      for (const json& choice : expected[0]) ExpectPerson(choice["message"]["content"]);
      continue;
    }
    EXPECT_EQ(answers, expected) << scheduler::Name(kind);
    EXPECT_TRUE(Eventually([&] { return app.Metric("tern_spec_accepted_tokens_total") > 0; }))
        << scheduler::Name(kind);
  }
}

TEST_F(StructuredOutput, EndsWhereTheGrammarEnds) {
  for (const json& more : {json{{"ignore_eos", true}}, json{{"min_tokens", 50}}}) {
    json body = Body(3, {{"guided_choice", {"alpha", "beta"}}});
    body.update(more);
    EXPECT_THAT(TextOf(app().PostOk("/v1/chat/completions", body)),
                ::testing::AnyOf("alpha", "beta"));
  }
  json cut = Body(3, {{"guided_regex", "[a-z]{200}"}});
  cut["max_tokens"] = 5;
  EXPECT_EQ(app().PostOk("/v1/chat/completions", cut)["choices"][0]["finish_reason"], "length");
}

TEST_F(StructuredOutput, WhatCannotBeCompiledIsRefusedBeforeTheStream) {
  EXPECT_EQ(Refusal({{"guided_json", {{"not", json::object()}}}}),
            "Invalid value for 'guided_json'. JSON Schema: 'not' at # is not supported.");
  EXPECT_EQ(Refusal({{"guided_json", {{"type", "array"}, {"minItems", 5}, {"maxItems", 3}}}}),
            "Invalid value for 'guided_json'. JSON Schema: no array at # satisfies 'minItems' 5, "
            "'maxItems' 3.");
  EXPECT_EQ(Refusal({{"guided_choice", json::array()}}),
            "Invalid value for 'guided_choice': expected at least one choice, but got none.");
  EXPECT_EQ(Refusal({{"structured_outputs", json::object()}}),
            "Invalid value for 'structured_outputs': expected one of 'json', 'regex', 'choice', "
            "'grammar' and 'json_object', but got none.");
  EXPECT_THAT(
      Refusal({{"response_format",
                {{"type", "json_schema"}, {"json_schema", {{"schema", {{"type", "wrong"}}}}}}}}),
      HasSubstr("'response_format.json_schema.schema'"));
  EXPECT_THAT(Refusal({{"guided_regex", "("}}), HasSubstr("without ')'"));
  EXPECT_THAT(Refusal({{"grammar", std::string(60000, '(')}}), HasSubstr("line 1"));
  EXPECT_THAT(Refusal({{"grammar", "root ::= " + std::string(60000, '(')}}),
              HasSubstr("nested deeper"));
  EXPECT_THAT(Refusal({{"grammar", "root ::= root \"a\" | \"b\""}}), HasSubstr("left-recursive"));
  EXPECT_THAT(Refusal({{"guided_json", "{"}}), HasSubstr("not a JSON text"));
  EXPECT_THAT(Refusal({{"guided_regex", "a"}, {"guided_choice", {"b"}}}),
              HasSubstr("exclude each other"));
  EXPECT_THAT(Refusal({{"guided_choice", {1}}}), HasSubstr("array of strings"));
  ExpectPerson(
      TextOf(app().PostOk("/v1/chat/completions", Body(1, {{"guided_json", PersonSchema()}}))));
}

}  // namespace
}  // namespace server
