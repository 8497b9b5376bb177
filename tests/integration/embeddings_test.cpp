// /v1/embeddings, /v1/rerank and /v1/score against a forward pass in plain Python
// (tests/reference), on a real server: vectors in every encoding and pooling, alone and many at
// once, and errors in one sentence.
#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using Vector = std::vector<double>;

std::string GoldenFile(const std::string& name) {
  return std::string(TERN_SOURCE_DIR) + "/tests/data/golden/arch/" + name;
}

json GoldenCases(const std::string& model) {
  std::ifstream file(GoldenFile("embeddings.json"));
  return json::parse(file).at(model);
}

// "-float": the file without it, its ternary projections with float inputs.
TestAppOptions With(const std::string& model) {
  constexpr std::string_view kFloat = "-float";
  TestAppOptions options;
  std::string file = model;
  if (file.ends_with(kFloat)) {
    file.resize(file.size() - kFloat.size());
    options.engine.activation = engine::ActivationMode::kFloat;
  }
  options.model_path = GoldenFile(file + ".gguf");
  return options;
}

// Codes of int8 are steps: where rounding differs, so do they, and what follows.
bool TakesCodes(const std::string& model) {
  return model.starts_with("bitnet") && !model.ends_with("-float");
}

Vector EmbeddingOf(const json& answer, size_t index = 0) {
  return answer.at("data").at(index).at("embedding").get<Vector>();
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double Furthest(const Vector& a, const Vector& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
  }
  return most;
}

std::vector<float> FromBase64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<uint32_t>(digits.find(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> count));
  }
  EXPECT_EQ(bytes.size() % 4, 0U);
  std::vector<float> floats;
  for (size_t i = 0; i + 3 < bytes.size(); i += 4) {
    const uint32_t word = bytes[i] | (uint32_t{bytes[i + 1]} << 8) |
                          (uint32_t{bytes[i + 2]} << 16) | (uint32_t{bytes[i + 3]} << 24);
    floats.push_back(std::bit_cast<float>(word));
  }
  return floats;
}

class GoldenEmbeddings : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenEmbeddings, EqualThoseOfTheReference) {
  const TestApp app(With(GetParam()));
  double furthest = 0;
  double least_cosine = 1;
  for (const json& golden : GoldenCases(GetParam())) {
    for (const char* pooling : {"mean", "cls", "last"}) {
      const json answer =
          app.PostOk("/v1/embeddings", {{"input", golden["tokens"]}, {"pooling", pooling}});
      const Vector vector = EmbeddingOf(answer);
      const Vector expected = golden[pooling].get<Vector>();
      EXPECT_NEAR(Dot(vector, vector), 1, 1e-6);
      furthest = std::max(furthest, Furthest(vector, expected));
      least_cosine = std::min(least_cosine, Dot(vector, expected));
      EXPECT_EQ(answer["usage"]["prompt_tokens"], golden["tokens"].size());
      EXPECT_EQ(answer["usage"]["total_tokens"], golden["tokens"].size());
    }
  }
  std::printf("largest difference of an element from the reference: %.2g, least cosine 1 - %.2g\n",
              furthest, 1 - least_cosine);
  EXPECT_LT(furthest, TakesCodes(GetParam()) ? 2e-2 : 1e-3);
  EXPECT_GT(least_cosine, TakesCodes(GetParam()) ? 0.999 : 1 - 1e-5);
}

// One text at a time, all in one request, in tiny chunks, beside generations: the same bits.
TEST_P(GoldenEmbeddings, DoNotDependOnCompany) {
  const json cases = GoldenCases(GetParam());
  json inputs = json::array();
  for (const json& golden : cases) inputs.push_back(golden["tokens"]);
  for (const char* pooling : {"mean", "last"}) {
    std::vector<Vector> alone;
    {
      const TestApp app(With(GetParam()));
      for (const json& input : inputs) {
        alone.push_back(
            EmbeddingOf(app.PostOk("/v1/embeddings", {{"input", input}, {"pooling", pooling}})));
      }
    }
    TestAppOptions options = With(GetParam());
    options.scheduler.max_batch_tokens = 8;
    options.scheduler.prefill_chunk = 3;
    const TestApp app(options);
    auto busy = std::async(std::launch::async, [&] {
      app.PostOk("/v1/completions", {{"prompt", {5, 6, 7}}, {"max_tokens", 60}, {"n", 4}});
    });
    const json together = app.PostOk("/v1/embeddings", {{"input", inputs}, {"pooling", pooling}});
    busy.get();
    ASSERT_EQ(together["data"].size(), inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(together["data"][i]["index"], i);
      EXPECT_EQ(EmbeddingOf(together, i), alone[i]) << pooling << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenEmbeddings,
                         ::testing::Values("llama", "qwen35", "bitnet-embedding-qwen3",
                                           "bitnet-embedding-qwen3-float",
                                           "bitnet-embedding-gemma3",
                                           "bitnet-embedding-gemma3-float"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Without being told: pooling as the file says, and the token that it puts at the end of a text.
TEST(BitnetEmbedding, TextsEndWithTheTokenWhoseStateIsTheirVector) {
  for (const bool gemma : {false, true}) {
    const std::string model = gemma ? "bitnet-embedding-gemma3" : "bitnet-embedding-qwen3";
    const TestApp app(With(model));
    const json golden = GoldenCases(model).back();
    const auto embed = [&app](const json& input) {
      return app.PostOk("/v1/embeddings", {{"input", input}});
    };
    EXPECT_GT(Dot(EmbeddingOf(embed(golden["tokens"])), golden["last"].get<Vector>()), 0.999);

    json tokens = app.PostOk("/tokenize", {{"prompt", "ABBA"}, {"add_special_tokens", false}});
    tokens = tokens["tokens"];
    tokens.push_back(2);
    if (gemma) tokens.insert(tokens.begin(), 1);
    const json answer = embed("ABBA");
    EXPECT_EQ(answer["usage"]["prompt_tokens"], tokens.size()) << model;
    EXPECT_EQ(EmbeddingOf(answer), EmbeddingOf(embed(tokens))) << model;
    const json encoded =
        app.PostOk("/v1/embeddings", {{"input", "ABBA"}, {"encoding_format", "base64"}});
    const auto decoded = FromBase64(encoded["data"][0]["embedding"].get<std::string>());
    const Vector floats = EmbeddingOf(answer);
    EXPECT_EQ(decoded, std::vector<float>(floats.begin(), floats.end())) << model;
  }
}

TEST(Embeddings, Base64IsTheSameFloats) {
  const TestApp app;
  const json body = {{"model", "demo"}, {"input", "The weather is fine."}};
  json encoded = body;
  encoded["encoding_format"] = "base64";
  const Vector floats = EmbeddingOf(app.PostOk("/v1/embeddings", body));
  const auto decoded =
      FromBase64(app.PostOk("/embeddings", encoded)["data"][0]["embedding"].get<std::string>());
  ASSERT_EQ(decoded.size(), floats.size());
  for (size_t i = 0; i < floats.size(); ++i) {
    EXPECT_EQ(decoded[i], static_cast<float>(floats[i])) << i;
  }
}

TEST(Embeddings, TextAndItsTokensGiveTheSame) {
  const TestApp app;
  const std::string text = "Once upon a time";
  const json tokens = app.PostOk("/tokenize", {{"prompt", text}})["tokens"];
  const json of_text = app.PostOk("/v1/embeddings", {{"input", text}});
  const json of_tokens = app.PostOk("/v1/embeddings", {{"input", json::array({tokens})}});
  EXPECT_EQ(EmbeddingOf(of_text), EmbeddingOf(of_tokens));
  EXPECT_EQ(of_text["usage"]["prompt_tokens"], tokens.size());
  EXPECT_EQ(of_text["model"], "demo");
  EXPECT_EQ(of_text["object"], "list");
  EXPECT_EQ(of_text["data"][0]["object"], "embedding");
}

TEST(Embeddings, FewerDimensionsAreTheFirstScaledAgain) {
  const TestApp app;
  const Vector all = EmbeddingOf(app.PostOk("/v1/embeddings", {{"input", "Hello"}}));
  const Vector some =
      EmbeddingOf(app.PostOk("/v1/embeddings", {{"input", "Hello"}, {"dimensions", 16}}));
  ASSERT_EQ(some.size(), 16U);
  EXPECT_NEAR(Dot(some, some), 1, 1e-6);
  const double scale = some[0] / all[0];
  EXPECT_GT(scale, 1);
  for (size_t i = 0; i < some.size(); ++i) EXPECT_NEAR(some[i], all[i] * scale, 1e-6);
  const Vector raw = EmbeddingOf(
      app.PostOk("/v1/embeddings", {{"input", "Hello"}, {"dimensions", 16}, {"normalize", false}}));
  EXPECT_GT(std::abs(Dot(raw, raw) - 1), 1e-3);
  const auto refused = app.Post("/v1/embeddings", {{"input", "Hello"}, {"dimensions", 100000}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(json::parse(refused.body)["error"]["param"], "dimensions");
}

// The option of the server changes what requests get that do not say.
TEST(Embeddings, TheServersPoolingIsTheDefault) {
  TestAppOptions options;
  options.engine.pooling = engine::Pooling::kMean;
  const TestApp mean(options);
  const TestApp last;
  const json body = {{"input", "Hello there"}};
  json asking = body;
  asking["pooling"] = "mean";
  const Vector expected = EmbeddingOf(last.PostOk("/v1/embeddings", asking));
  EXPECT_EQ(EmbeddingOf(mean.PostOk("/v1/embeddings", body)), expected);
  EXPECT_NE(EmbeddingOf(last.PostOk("/v1/embeddings", body)), expected);
}

TEST(Embeddings, AnInputMayFillTheContextAndNoMore) {
  TestAppOptions options;
  options.engine.context_length = 64;
  const TestApp app(options);
  const std::vector<int> full(64, 20);
  EXPECT_EQ(app.PostOk("/v1/embeddings", {{"input", full}})["usage"]["total_tokens"], 64);
  const std::vector<int> longer(65, 20);
  const auto refused =
      app.Post("/v1/embeddings", {{"input", json::array({full, longer})}, {"pooling", "mean"}});
  EXPECT_EQ(refused.status, 400);
  const json error = json::parse(refused.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "input[1]");
  EXPECT_EQ(error["message"],
            "This model's maximum context length is 64 tokens, but 'input[1]' has 65 tokens.");
  EXPECT_EQ(error["n_prompt_tokens"], 65);
  EXPECT_EQ(error["n_ctx"], 64);
  // Too long to be worth encoding.
  const auto huge = app.Post("/v1/embeddings", {{"input", std::string(1 << 20, 'x')}});
  EXPECT_EQ(json::parse(huge.body)["error"]["code"], "context_length_exceeded");
}

// More than may wait at once, through a queue that is shorter than the request.
TEST(Embeddings, ALongListGoesThroughAShortQueue) {
  TestAppOptions options;
  options.scheduler.max_queued_requests = 4;
  options.scheduler.max_sequences = 3;
  const TestApp app(options);
  json inputs = json::array();
  for (int i = 0; i < 150; ++i) inputs.push_back("text " + std::to_string(i % 5));
  const json answer = app.PostOk("/v1/embeddings", {{"input", inputs}});
  ASSERT_EQ(answer["data"].size(), 150U);
  for (size_t i = 5; i < 150; ++i) EXPECT_EQ(EmbeddingOf(answer, i), EmbeddingOf(answer, i % 5));
  EXPECT_NE(EmbeddingOf(answer, 0), EmbeddingOf(answer, 1));
  EXPECT_TRUE(Eventually([&] { return app.Metric("tern_kv_blocks_used") == 0; }));
}

TEST(Embeddings, AClientThatGoesAwayCancelsItsInputs) {
  const TestApp app;
  json inputs = json::array();
  for (int i = 0; i < 2000; ++i) inputs.push_back(std::vector<int>(900, 20 + i % 50));
  {
    RawClient client = app.Connect();
    client.Send(PostText("/v1/embeddings", json{{"input", inputs}}.dump()));
    ASSERT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") > 0; }));
  }
  EXPECT_TRUE(Eventually([&] { return app.Metric("tern_requests_running") == 0; }));
  EXPECT_TRUE(Eventually([&] { return app.Metric("tern_kv_blocks_used") == 0; }));
}

struct BadCase {
  const char* path;
  const char* body;
  const char* code;
  const char* param;
};

TEST(Embeddings, ErrorsNameTheParameter) {
  const TestApp app;
  const BadCase cases[] = {
      {"/v1/embeddings", R"({})", "missing_required_parameter", "input"},
      {"/v1/embeddings", R"({"input": 3})", "invalid_type", "input"},
      {"/v1/embeddings", R"({"input": []})", "invalid_value", "input"},
      {"/v1/embeddings", R"({"input": ""})", "invalid_value", "input"},
      {"/v1/embeddings", R"({"input": ["a", ""]})", "invalid_value", "input[1]"},
      {"/v1/embeddings", R"({"input": [[]]})", "invalid_value", "input"},
      {"/v1/embeddings", R"({"input": ["a", 3]})", "invalid_type", "input"},
      {"/v1/embeddings", R"({"input": [1, -2]})", "invalid_value", "input"},
      {"/v1/embeddings", R"({"input": [999999]})", "invalid_value", "input"},
      {"/v1/embeddings", R"({"input": "a", "model": "x"})", "model_not_found", "model"},
      {"/v1/embeddings", R"({"input": "a", "encoding_format": "hex"})", "invalid_value",
       "encoding_format"},
      {"/v1/embeddings", R"({"input": "a", "dimensions": 0})", "invalid_value", "dimensions"},
      {"/v1/embeddings", R"({"input": "a", "pooling": "sum"})", "invalid_value", "pooling"},
      {"/v1/embeddings", R"({"input": "a", "truncate_prompt_tokens": 5})", "unsupported_parameter",
       "truncate_prompt_tokens"},
      {"/v1/embeddings", R"({"input": "a", "lora": [{"id": 1, "scale": 1}]})", "invalid_value",
       "lora[0].id"},
      {"/v1/rerank", R"({"documents": ["a"]})", "missing_required_parameter", "query"},
      {"/v1/rerank", R"({"query": "a"})", "missing_required_parameter", "documents"},
      {"/v1/rerank", R"({"query": "a", "documents": []})", "invalid_value", "documents"},
      {"/v1/rerank", R"({"query": "a", "documents": [1]})", "invalid_type", "documents[0]"},
      {"/v1/rerank", R"({"query": "a", "documents": [{"body": "b"}]})",
       "missing_required_parameter", "documents[0].text"},
      {"/v1/rerank", R"({"query": "a", "documents": ["b"], "top_n": 0})", "invalid_value", "top_n"},
      {"/v1/score", R"({"text_2": "a"})", "missing_required_parameter", "text_1"},
      {"/v1/score", R"({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]})", "invalid_value",
       "text_1"},
  };
  for (const BadCase& bad : cases) {
    const auto response = app.Post(bad.path, json::parse(bad.body));
    EXPECT_EQ(response.status, std::string(bad.code) == "model_not_found" ? 404 : 400) << bad.body;
    const json error = json::parse(response.body)["error"];
    EXPECT_EQ(error["code"], bad.code) << bad.body << response.body;
    EXPECT_EQ(error["param"], bad.param) << bad.body;
  }
}

TEST(Embeddings, WhatHasNoEffectIsNamed) {
  const TestApp app;
  const auto response = app.Post("/v1/embeddings", {{"input", "a"}, {"user", "me"}, {"foo", 1}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.Header("x-tern-ignored-parameters"), "foo, user");
  TestAppOptions options;
  options.server.strict_params = true;
  const TestApp strict(options);
  EXPECT_EQ(strict.Post("/v1/embeddings", {{"input", "a"}, {"foo", 1}}).status, 400);
}

TEST(Score, IsTheCosineOfTheReference) {
  const TestApp app(With("llama"));
  // The vocabulary of the tiny model: bytes from space to L.
  const json vectors = app.PostOk("/v1/embeddings", {{"input", {"ABBA", "CABLE", "B 12", "ABBA"}}});
  const json scores =
      app.PostOk("/v1/score", {{"text_1", "ABBA"}, {"text_2", {"CABLE", "B 12", "ABBA"}}});
  ASSERT_EQ(scores["data"].size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const double expected = Dot(EmbeddingOf(vectors, 0), EmbeddingOf(vectors, i + 1));
    EXPECT_NEAR(scores["data"][i]["score"].get<double>(), expected, 1e-6);
    EXPECT_EQ(scores["data"][i]["index"], i);
    EXPECT_EQ(scores["data"][i]["object"], "score");
  }
  EXPECT_NEAR(scores["data"][2]["score"].get<double>(), 1, 1e-6);
  const json pairs =
      app.PostOk("/score", {{"queries", {"CABLE", "ABBA"}}, {"documents", {"ABBA", "ABBA"}}});
  EXPECT_NEAR(pairs["data"][0]["score"].get<double>(), scores["data"][0]["score"], 1e-6);
  EXPECT_NEAR(pairs["data"][1]["score"].get<double>(), 1, 1e-6);
}

TEST(Rerank, OrdersByScore) {
  const TestApp app;
  const std::vector<std::string> documents = {"Movies are fun.", "I like the rain.",
                                              "Do you like movies?", "Numbers: 1 2 3"};
  const json body = {{"query", "Do you like movies?"}, {"documents", documents}};
  const json answer = app.PostOk("/v1/rerank", body);
  const json scores =
      app.PostOk("/v1/score", {{"text_1", "Do you like movies?"}, {"text_2", documents}});
  ASSERT_EQ(answer["results"].size(), 4U);
  EXPECT_EQ(answer["results"][0]["index"], 2);
  double last = 2;
  for (const json& result : answer["results"]) {
    const auto index = result["index"].get<size_t>();
    EXPECT_EQ(result["document"]["text"], documents[index]);
    EXPECT_EQ(result["relevance_score"], scores["data"][index]["score"]);
    EXPECT_LE(result["relevance_score"].get<double>(), last);
    last = result["relevance_score"];
  }
  json few = body;
  few["top_n"] = 2;
  few["return_documents"] = false;
  few["documents"][1] = {{"text", documents[1]}};
  const json best = app.PostOk("/v2/rerank", few);
  ASSERT_EQ(best["results"].size(), 2U);
  EXPECT_EQ(best["results"][0]["index"], 2);
  EXPECT_FALSE(best["results"][0].contains("document"));
  EXPECT_EQ(best["usage"]["total_tokens"], answer["usage"]["total_tokens"]);
}

}  // namespace
}  // namespace server
