// The JSON of a request becomes typed parameters: null means absent everywhere, every range of
// docs/api.md is enforced with the parameter's name, and nothing that would change the output is
// silently ignored.
#include "server/openai_schema.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/messages_api.h"
#include "server/responses_api.h"

namespace server {
namespace {

using ::testing::ElementsAre;

const std::string kMessages = R"("messages":[{"role":"user","content":"hi"}])";

ChatRequest Chat(const std::string& more, bool strict = false) {
  return ParseChatRequest(ParseJson("{" + kMessages + (more.empty() ? "" : "," + more) + "}", 128),
                          {.strict = strict});
}

CompletionRequest Completion(const std::string& body, bool strict = false) {
  return ParseCompletionRequest(ParseJson(body, 128), {.strict = strict});
}

// "code param" of the error, "ok" without one.
template <typename Parse>
std::string Outcome(Parse parse) {
  try {
    parse();
    return "ok";
  } catch (const ApiError& error) {
    return error.code() + " " + error.param();
  }
}

std::string ChatOutcome(const std::string& more, bool strict = false) {
  return Outcome([&] { Chat(more, strict); });
}

TEST(ChatSchema, DefaultsAreOpenAis) {
  const ChatRequest request = Chat("");
  EXPECT_EQ(request.params.model, "");
  EXPECT_EQ(request.params.sampling.temperature, 1.0F);
  EXPECT_EQ(request.params.sampling.top_p, 1.0F);
  EXPECT_EQ(request.params.sampling.logprobs, -1);
  EXPECT_FALSE(request.params.sampling.seed);
  EXPECT_EQ(request.params.choices, 1U);
  EXPECT_FALSE(request.params.max_tokens);
  EXPECT_FALSE(request.params.stream);
  EXPECT_TRUE(request.prompt.add_generation_prompt);
  ASSERT_EQ(request.prompt.messages.size(), 1U);
}

TEST(ChatSchema, EveryParameterArrives) {
  const ChatRequest request = Chat(
      R"("model":"m","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"presence_penalty":-2,
         "frequency_penalty":2,"repetition_penalty":1.5,"seed":-9223372036854775808,"n":3,
         "max_tokens":5,"max_completion_tokens":7,"min_tokens":2,"stop":["a","b"],"stream":true,
         "stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":4,
         "logit_bias":{"5":-100,"7":1.5},"ignore_eos":true,"stop_token_ids":[1,2],"priority":-3,
         "typical_p":0.9,"top_n_sigma":1.5,"xtc_probability":0.5,"xtc_threshold":0.2,
         "dry_multiplier":0.8,"dry_base":2,"dry_allowed_length":3,"dry_penalty_last_n":64,
         "dry_sequence_breakers":["x"],"mirostat":2,"mirostat_tau":4,"mirostat_eta":0.2,
         "cache_salt":"s","chat_template_kwargs":{"enable_thinking":false})");
  const GenerationParams& params = request.params;
  EXPECT_EQ(params.model, "m");
  EXPECT_EQ(params.sampling.temperature, 0.5F);
  EXPECT_EQ(params.sampling.top_p, 0.9F);
  EXPECT_EQ(params.sampling.top_k, 40);
  EXPECT_EQ(params.sampling.min_p, 0.1F);
  EXPECT_EQ(params.sampling.presence_penalty, -2);
  EXPECT_EQ(params.sampling.frequency_penalty, 2);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(params.sampling.seed, INT64_MIN);
  EXPECT_EQ(params.sampling.logprobs, 4);
  EXPECT_EQ(params.sampling.typical_p, 0.9F);
  EXPECT_EQ(params.sampling.top_n_sigma, 1.5F);
  EXPECT_EQ(params.sampling.xtc_probability, 0.5F);
  EXPECT_EQ(params.sampling.xtc_threshold, 0.2F);
  EXPECT_EQ(params.sampling.dry_multiplier, 0.8F);
  EXPECT_EQ(params.sampling.dry_base, 2);
  EXPECT_EQ(params.sampling.dry_allowed_length, 3U);
  EXPECT_EQ(params.sampling.dry_penalty_last_n, 64);
  EXPECT_THAT(params.dry_breakers, ElementsAre("x"));
  EXPECT_EQ(params.sampling.mirostat, 2);
  EXPECT_EQ(params.sampling.mirostat_tau, 4);
  EXPECT_EQ(params.sampling.mirostat_eta, 0.2F);
  EXPECT_TRUE(params.sampling.ignore_eos);
  EXPECT_EQ(params.sampling.min_tokens, 2U);
  ASSERT_EQ(params.sampling.logit_bias.size(), 2U);
  EXPECT_EQ(params.sampling.logit_bias[0].token, 5);
  EXPECT_EQ(params.sampling.logit_bias[0].bias, -100);
  EXPECT_EQ(params.choices, 3U);
  EXPECT_EQ(params.max_tokens, 7U);  // the newer name wins
  EXPECT_THAT(params.stop, ElementsAre("a", "b"));
  EXPECT_THAT(params.stop_token_ids, ElementsAre(1, 2));
  EXPECT_TRUE(params.stream);
  EXPECT_TRUE(params.include_usage);
  EXPECT_EQ(params.priority, -3);
  EXPECT_EQ(params.cache_salt, "s");
  ASSERT_EQ(request.prompt.template_variables.size(), 1U);
}

TEST(ChatSchema, NullIsLegalEverywhere) {
  std::string all;
  for (const char* name : {"model",
                           "temperature",
                           "top_p",
                           "top_k",
                           "min_p",
                           "presence_penalty",
                           "frequency_penalty",
                           "repetition_penalty",
                           "seed",
                           "n",
                           "max_tokens",
                           "max_completion_tokens",
                           "min_tokens",
                           "stop",
                           "stream",
                           "stream_options",
                           "logprobs",
                           "top_logprobs",
                           "logit_bias",
                           "ignore_eos",
                           "stop_token_ids",
                           "priority",
                           "cache_salt",
                           "chat_template_kwargs",
                           "tools",
                           "tool_choice",
                           "response_format",
                           "functions",
                           "audio",
                           "modalities",
                           "prediction",
                           "best_of",
                           "user",
                           "metadata",
                           "unknown_thing",
                           "continue_final_message",
                           "add_generation_prompt"}) {
    all += (all.empty() ? "\"" : ",\"") + std::string(name) + "\":null";
  }
  EXPECT_EQ(ChatOutcome(all, /*strict=*/true), "ok");
}

TEST(ChatSchema, RangesAndTypesNameTheParameter) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("temperature":2.01)", "invalid_value temperature"},
      {R"("temperature":-0.1)", "invalid_value temperature"},
      {R"("temperature":"1")", "invalid_type temperature"},
      {R"("temperature":true)", "invalid_type temperature"},
      {R"("temperature":2)", "ok"},
      {R"("temperature":0)", "ok"},
      {R"("top_p":0)", "invalid_value top_p"},
      {R"("top_p":1.1)", "invalid_value top_p"},
      {R"("top_k":-2)", "invalid_value top_k"},
      {R"("top_k":-1)", "ok"},
      {R"("min_p":1.5)", "invalid_value min_p"},
      {R"("presence_penalty":2.5)", "invalid_value presence_penalty"},
      {R"("frequency_penalty":-3)", "invalid_value frequency_penalty"},
      {R"("repetition_penalty":0)", "invalid_value repetition_penalty"},
      {R"("n":0)", "invalid_value n"},
      {R"("n":129)", "invalid_value n"},
      {R"("n":1.5)", "invalid_type n"},
      {R"("n":2.0)", "ok"},
      {R"("n":1e300)", "invalid_value n"},
      {R"("n":99999999999999999999)", "invalid_value n"},
      {R"("max_tokens":0)", "invalid_value max_tokens"},
      {R"("max_tokens":-1)", "invalid_value max_tokens"},
      {R"("max_tokens":4294967296)", "invalid_value max_tokens"},
      {R"("max_completion_tokens":"x")", "invalid_type max_completion_tokens"},
      {R"("seed":9223372036854775808)", "invalid_value seed"},
      {R"("seed":9223372036854775807)", "ok"},
      {R"("seed":1.5)", "invalid_type seed"},
      {R"("stop":5)", "invalid_type stop"},
      {R"("stop":["a",5])", "invalid_type stop"},
      {R"("stop":"a")", "ok"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
       "invalid_value stop"},
      {R"("logprobs":5)", "invalid_type logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "invalid_value top_logprobs"},
      {R"("top_logprobs":2)", "invalid_value top_logprobs"},
      {R"("top_logprobs":0)", "ok"},
      {R"("logit_bias":[1])", "invalid_type logit_bias"},
      {R"("logit_bias":{"x":1})", "invalid_value logit_bias"},
      {R"("logit_bias":{"-1":1})", "invalid_value logit_bias"},
      {R"("logit_bias":{"5":101})", "invalid_value logit_bias.5"},
      {R"("logit_bias":{"5":"a"})", "invalid_type logit_bias.5"},
      {R"("stream":"yes")", "invalid_type stream"},
      {R"("stream_options":{"include_usage":true})", "invalid_value stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})",
       "invalid_type stream_options.include_usage"},
      {R"("stop_token_ids":[-1])", "invalid_value stop_token_ids"},
      {R"("stop_token_ids":[4294967296])", "invalid_value stop_token_ids"},
      {R"("model":5)", "invalid_type model"},
      {R"("chat_template_kwargs":{"messages":[]})", "invalid_value chat_template_kwargs"},
      {R"("chat_template_kwargs":{"add_generation_prompt":false})",
       "invalid_value chat_template_kwargs"},
      {R"("continue_final_message":true,"add_generation_prompt":true)",
       "invalid_value continue_final_message"},
  };
  for (const auto& [more, outcome] : cases) EXPECT_EQ(ChatOutcome(more), outcome) << more;
}

// Every choice keeps its own.
TEST(ChatSchema, WhatEndsAnAnswerIsOfBoundedSize) {
  const auto stop = [](const std::string& text) { return R"("stop":[")" + text + R"("])"; };
  std::string accents;
  for (int i = 0; i < 1024; ++i) accents += "é";
  EXPECT_EQ(ChatOutcome(stop(std::string(1024, 'x'))), "ok");
  EXPECT_EQ(ChatOutcome(stop(accents)), "ok");
  EXPECT_EQ(ChatOutcome(stop(accents + "x")), "invalid_value stop");
  const auto ids = [](int count) {
    std::string list = "1";
    for (int i = 1; i < count; ++i) list += ",1";
    return R"("stop_token_ids":[)" + list + "]";
  };
  EXPECT_EQ(ChatOutcome(ids(1024)), "ok");
  EXPECT_EQ(ChatOutcome(ids(1025)), "invalid_value stop_token_ids");
}

TEST(ChatSchema, ToolErrorsNameTheMember) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}])";
  for (const auto& [more, outcome] : std::vector<std::pair<std::string, std::string>>{
           {tools, "ok"},
           {tools + R"(,"tool_choice":"required","parallel_tool_calls":false)", "ok"},
           {tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})", "ok"},
           {R"("tools":{})", "invalid_type tools"},
           {R"("tools":[1])", "invalid_type tools[0]"},
           {R"("tools":[{}])", "missing_required_parameter tools[0].type"},
           {R"("tools":[{"type":"function"}])", "missing_required_parameter tools[0].function"},
           {R"("tools":[{"type":"function","function":{}}])",
            "missing_required_parameter tools[0].function.name"},
           {R"("tools":[{"type":"function","function":{"name":"a.b"}}])",
            "invalid_value tools[0].function.name"},
           {R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])",
            "invalid_type tools[0].function.parameters"},
           {R"("tools":[{"type":"function","function":{"name":"f","strict":1}}])",
            "invalid_type tools[0].function.strict"},
           {tools + R"(,"tool_choice":"any")", "invalid_value tool_choice"},
           {tools + R"(,"tool_choice":1)", "invalid_type tool_choice"},
           {tools + R"(,"tool_choice":{"type":"function"})",
            "missing_required_parameter tool_choice.function"},
           {tools + R"(,"parallel_tool_calls":"yes")", "invalid_type parallel_tool_calls"},
           {R"("tool_choice":"required")", "invalid_value tool_choice"},
           {R"("reasoning_format":"loud")", "invalid_value reasoning_format"},
       }) {
    EXPECT_EQ(ChatOutcome(more), outcome) << more;
  }
}

TEST(ChatSchema, WhatWouldChangeTheOutputIsRefused) {
  for (const auto& [more, param] : std::vector<std::pair<std::string, std::string>>{
           {R"("tools":[{"type":"web_search"}])", "tools[0].type"},
           {R"("tool_choice":{"type":"custom"})", "tool_choice.type"},
           {R"("functions":[{}])", "functions"},
           {R"("function_call":{"name":"f"})", "function_call"},
           {R"("response_format":{"type":"structural_tag"})", "response_format"},
           {R"("structured_outputs":{"structural_tag":{}})", "structured_outputs.structural_tag"},
           {R"("audio":{"voice":"x"})", "audio"},
           {R"("modalities":["text","audio"])", "modalities"},
           {R"("prediction":{"type":"content"})", "prediction"},
           {R"("best_of":2)", "best_of"},
           {R"("chat_template":"{{x}}")", "chat_template"},
           {R"("use_beam_search":true)", "use_beam_search"},
           {R"("mirostat":1)", "mirostat"},
           {R"("echo":true)", "echo"}}) {
    EXPECT_EQ(ChatOutcome(more), "unsupported_parameter " + param) << more;
  }
}

TEST(ChatSchema, WhatAsksForNothingIsAccepted) {
  for (const char* more :
       {R"("tools":[])",
        R"("tool_choice":"none")",
        R"("tool_choice":"auto")",
        R"("response_format":{"type":"text"})",
        R"("response_format":{"type":"json_object"})",
        R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}})",
        R"("guided_json":{"type":"object"})",
        R"("guided_json":"{\"type\":\"object\"}")",
        R"("guided_regex":"[a-z]+")",
        R"("guided_choice":["a","b"])",
        R"("grammar":"root ::= \"a\"")",
        R"("json_schema":{"type":"object"})",
        R"("structured_outputs":{"regex":"a"})",
        R"("guided_regex":"","guided_json":"","guided_grammar":"","grammar":"")",
        R"("guided_choice":null,"structured_outputs":null)",
        R"("structured_outputs":{"choice":null,"json_object":true})",
        R"("modalities":["text"])",
        R"("best_of":1)",
        R"("n":3,"best_of":3)",
        R"("typical_p":1)",
        R"("mirostat":0)",
        R"("use_beam_search":false)",
        R"("user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","verbosity":"low")",
        R"("something_new":{"a":1})",
        R"("stop":"")",
        R"("stop":[])"}) {
    EXPECT_EQ(ChatOutcome(more), "ok") << more;
  }
}

// No text is one of none; free text would look like an answer.
TEST(ChatSchema, ConstraintsThatAllowNothingAreRefused) {
  for (const auto& [more, param] : std::vector<std::pair<std::string, std::string>>{
           {R"("guided_choice":[])", "guided_choice"},
           {R"("guided_regex":"a","guided_choice":[])", "guided_choice"},
           {R"("structured_outputs":{"choice":[]})", "structured_outputs.choice"},
           {R"("structured_outputs":{})", "structured_outputs"},
           {R"("structured_outputs":{"json":null})", "structured_outputs"},
           {R"("structured_outputs":{"regex":""})", "structured_outputs"},
           {R"("structured_outputs":{"json_object":false})", "structured_outputs"},
           {R"("response_format":{"type":"json_object"},"structured_outputs":{})",
            "structured_outputs"}}) {
    EXPECT_EQ(ChatOutcome(more), "invalid_value " + param) << more;
  }
}

TEST(ChatSchema, StrictModeRefusesWhatHasNoEffect) {
  EXPECT_EQ(ChatOutcome(R"("temprature":0.5)", true), "unsupported_parameter temprature");
  EXPECT_EQ(ChatOutcome(R"("user":"u")", true), "unsupported_parameter user");
  EXPECT_EQ(ChatOutcome(R"("temperature":0.5,"seed":1,"stream":false)", true), "ok");
}

// A misspelt member of an object is found as one beside it is: without "schema" any object would
// do.
TEST(ChatSchema, StrictModeLooksIntoObjects) {
  EXPECT_EQ(ChatOutcome(R"("response_format":{"type":"json_schema","json_schema":)"
                        R"({"name":"a","shema":{"type":"object"}}})",
                        true),
            "unsupported_parameter response_format.json_schema.shema");
  EXPECT_EQ(ChatOutcome(R"("response_format":{"type":"json_object","strict":true})", true),
            "unsupported_parameter response_format.strict");
  EXPECT_EQ(ChatOutcome(R"("tern":{"usages":true})", true), "unsupported_parameter tern.usages");
  EXPECT_EQ(ChatOutcome(R"("stream":true,"stream_options":{"usage":true})", true),
            "unsupported_parameter stream_options.usage");
  EXPECT_EQ(ChatOutcome(R"("response_format":{"type":"json_schema","json_schema":{"name":"a",)"
                        R"("description":"b","strict":true,"schema":{"type":"object"}}},)"
                        R"("tern":{"usage":true},"stream":true,)"
                        R"("stream_options":{"include_usage":true})",
                        true),
            "ok");
  EXPECT_THAT(
      Chat(R"("tern":{"usages":true},"response_format":{"type":"text","x":1})").params.ignored,
      testing::UnorderedElementsAre("tern.usages", "response_format.x"));
}

// The other protocols become chat completions; what is lost on the way counts, too.
TEST(ChatSchema, StrictModeKnowsWhatOtherProtocolsLose) {
  const auto responses = [](const std::string& more) {
    return Outcome([&] {
      ParseResponsesRequest(ParseJson(R"({"input":"Hi",)" + more + "}", 128), {.strict = true});
    });
  };
  for (const auto& [more, name] : std::vector<std::pair<std::string, std::string>>{
           {R"("include":["reasoning.encrypted_content"])", "include[0]"},
           {R"("top_logprobs":2)", "top_logprobs"},
           {R"("store":true)", "store"},
           {R"("text":{"verbosity":"low"})", "text.verbosity"},
           {R"("text":{"format":{"type":"text","shema":{}}})", "text.format.shema"},
           {R"("tern":{"usages":true})", "tern.usages"},
           {R"("reasoning":{"summary":"auto"})", "reasoning.summary"}}) {
    EXPECT_EQ(responses(more), "unsupported_parameter " + name);
  }
  EXPECT_EQ(responses(R"("include":[],"top_logprobs":0,"store":false,"metadata":{"a":"b"},)"
                      R"("text":{"format":{"type":"text"}},"reasoning":{"effort":"low"})"),
            "ok");
  const auto messages = [](const std::string& more) {
    return Outcome([&] {
      ParseMessagesRequest(
          ParseJson(R"({"messages":[{"role":"user","content":"Hi"}],"max_tokens":1,)" + more + "}",
                    128),
          {.strict = true}, false);
    });
  };
  EXPECT_EQ(messages(R"("metadata":{"user_id":"u"})"), "unsupported_parameter metadata");
  EXPECT_EQ(messages(R"("thinking":{"type":"enabled","budget_tokens":1024})"),
            "unsupported_parameter thinking.budget_tokens");
  EXPECT_EQ(messages(R"("metadata":{},"thinking":{"type":"disabled"})"), "ok");
}

TEST(ChatSchema, LenientModeListsWhatHadNoEffect) {
  const auto ignored =
      Chat(R"("temprature":0.5,"user":"u","n":1,"a\r\nb":1,"x":null)").params.ignored;
  EXPECT_THAT(ignored, ElementsAre("temprature", "user", "a\r\nb"));
  EXPECT_THAT(Chat(R"("temperature":0.5)").params.ignored, testing::IsEmpty());
}

std::string MessagesOutcome(const std::string& messages) {
  return Outcome([&] { ParseChatRequest(ParseJson("{\"messages\":" + messages + "}", 128), {}); });
}

TEST(ChatSchema, MessagesAreChecked) {
  EXPECT_EQ(Outcome([] { ParseChatRequest(ParseJson("{}", 8), {}); }),
            "missing_required_parameter messages");
  EXPECT_EQ(Outcome([] { ParseChatRequest(ParseJson("[]", 8), {}); }), " ");
  EXPECT_EQ(MessagesOutcome("[]"), "invalid_value messages");
  EXPECT_EQ(MessagesOutcome("\"hi\""), "invalid_type messages");
  EXPECT_EQ(MessagesOutcome("[5]"), "invalid_type messages[0]");
  EXPECT_EQ(MessagesOutcome(R"([{"content":"x"}])"), "missing_required_parameter messages[0].role");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"king","content":"x"}])"),
            "invalid_value messages[0].role");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"user"}])"),
            "missing_required_parameter messages[0].content");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"user","content":7}])"),
            "invalid_type messages[0].content");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
            "unsupported_parameter messages[0].content[0].type");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"user","content":[{"type":"text"}]}])"),
            "missing_required_parameter messages[0].content[0].text");
  EXPECT_EQ(MessagesOutcome(R"([{"role":"assistant","content":null}])"), "ok");
}

TEST(ChatSchema, ContentPartsBecomeOneText) {
  const ChatRequest request =
      ParseChatRequest(ParseJson(R"({"messages":[{"role":"developer","name":"d","content":
                   [{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})",
                                 128),
                       {});
  const auto* message = request.prompt.messages[0].as_object();
  ASSERT_NE(message, nullptr);
  EXPECT_EQ(*message->Find("content")->as_string(), "a\nb");
  EXPECT_EQ(*message->Find("role")->as_string(), "system");
  EXPECT_EQ(*message->Find("name")->as_string(), "d");
}

TEST(CompletionSchema, PromptComesInFourShapes) {
  EXPECT_EQ(Completion(R"({"prompt":"a"})").prompts.size(), 1U);
  EXPECT_EQ(Completion(R"({"prompt":["a","b"]})").prompts.size(), 2U);
  const auto ids = Completion(R"({"prompt":[1,2,3]})");
  ASSERT_EQ(ids.prompts.size(), 1U);
  EXPECT_THAT(std::get<std::vector<engine::TokenId>>(ids.prompts[0]), ElementsAre(1, 2, 3));
  EXPECT_EQ(Completion(R"({"prompt":[[1],[2,3]]})").prompts.size(), 2U);
}

TEST(CompletionSchema, PromptsAreChecked) {
  const auto outcome = [](const std::string& body) { return Outcome([&] { Completion(body); }); };
  EXPECT_EQ(outcome("{}"), "missing_required_parameter prompt");
  EXPECT_EQ(outcome(R"({"prompt":null})"), "missing_required_parameter prompt");
  EXPECT_EQ(outcome(R"({"prompt":[]})"), "invalid_value prompt");
  EXPECT_EQ(outcome(R"({"prompt":5})"), "invalid_type prompt");
  EXPECT_EQ(outcome(R"({"prompt":[1,"a"]})"), "invalid_type prompt");
  EXPECT_EQ(outcome(R"({"prompt":["a",1]})"), "invalid_type prompt");
  EXPECT_EQ(outcome(R"({"prompt":[1.5]})"), "invalid_type prompt");
  EXPECT_EQ(outcome(R"({"prompt":[[-1]]})"), "invalid_value prompt");
  EXPECT_EQ(outcome(R"({"prompt":"a","suffix":"b","echo":true})"), "invalid_value suffix");
  EXPECT_EQ(outcome(R"({"prompt":"a","suffix":""})"), "ok");
  EXPECT_EQ(outcome(R"({"prompt":"a","logprobs":21})"), "invalid_value logprobs");
  EXPECT_EQ(outcome(R"({"prompt":"a","logprobs":true})"), "invalid_type logprobs");
  EXPECT_EQ(outcome(R"({"prompt":"a","best_of":2,"n":1})"), "unsupported_parameter best_of");
}

TEST(CompletionSchema, NoAnswerMayBeAskedForOnlyWithEcho) {
  EXPECT_EQ(Outcome([] { Completion(R"({"prompt":"a","max_tokens":0})"); }),
            "invalid_value max_tokens");
  EXPECT_EQ(Completion(R"({"prompt":"a","max_tokens":0,"echo":true})").params.max_tokens, 0U);
}

TEST(TokenizeSchema, TakesTheNamesOfBothPeers) {
  const auto vllm = ParseTokenizeRequest(ParseJson(R"({"prompt":"a"})", 8), {});
  EXPECT_EQ(std::get<std::string>(vllm.input), "a");
  EXPECT_TRUE(vllm.add_special);
  const auto llama =
      ParseTokenizeRequest(ParseJson(R"({"content":"a","with_pieces":true})", 8), {});
  EXPECT_FALSE(llama.add_special);
  EXPECT_TRUE(llama.with_pieces);
  EXPECT_EQ(Outcome([] { ParseTokenizeRequest(ParseJson("{}", 8), {}); }),
            "missing_required_parameter prompt");
}

}  // namespace
}  // namespace server
