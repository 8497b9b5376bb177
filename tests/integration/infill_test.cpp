// /infill and `suffix` put the texts between the vocabulary's own tokens, and what is generated is
// what the same tokens give as a plain prompt.
#include <fstream>

#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;

// Ids of the tiny model: bytes from ' ' at 3 to 'L' at 47, of which the last are given away.
constexpr int kBos = 1;
constexpr int kPrefix = 47, kSuffix = 46, kMiddle = 45, kRepository = 44, kFile = 43;

int Byte(char c) { return 3 + c - ' '; }

std::vector<int> Bytes(std::string_view text) {
  std::vector<int> tokens;
  for (const char c : text) tokens.push_back(Byte(c));
  return tokens;
}

// The tiny model with fill-in-the-middle tokens in its vocabulary, with files or without.
std::string ModelWithInfill(bool with_files, bool by_metadata = false) {
  const std::string source = std::string(TERN_SOURCE_DIR) + "/tests/data/golden/arch/llama.gguf";
  const gguf::File file = gguf::File::Open(source);
  gguf::Writer writer;
  writer.metadata() = file.metadata();
  for (const gguf::TensorInfo& info : file.tensors()) {
    const auto bytes = file.TensorBytes(info);
    writer.AddTensor(info.name, info.type, {info.extents.begin(), info.extents.begin() + info.rank},
                     {bytes.begin(), bytes.end()});
  }
  std::vector<std::string> tokens = *file.metadata().FindStrings("tokenizer.ggml.tokens");
  std::vector<int64_t> types = *file.metadata().FindInts("tokenizer.ggml.token_type");
  const auto name = [&](int id, const char* piece) {
    tokens[static_cast<size_t>(id)] = piece;
    types[static_cast<size_t>(id)] = 3;
  };
  name(kPrefix, by_metadata ? "<one>" : "<|fim_prefix|>");
  name(kSuffix, by_metadata ? "<two>" : "<|fim_suffix|>");
  name(kMiddle, by_metadata ? "<three>" : "<|fim_middle|>");
  if (with_files) name(kRepository, "<|repo_name|>");
  if (with_files) name(kFile, "<|file_sep|>");
  gguf::Metadata& metadata = writer.metadata();
  if (by_metadata) {
    const auto id = [](int token) {
      return gguf::MetadataValue{gguf::ValueType::kUint32, static_cast<uint64_t>(token)};
    };
    metadata.Set("tokenizer.ggml.fim_pre_token_id", id(kPrefix));
    metadata.Set("tokenizer.ggml.fim_suf_token_id", id(kSuffix));
    metadata.Set("tokenizer.ggml.fim_mid_token_id", id(kMiddle));
  }
  metadata.Set(
      "tokenizer.ggml.tokens",
      {gguf::ValueType::kArray, gguf::MetadataArray{gguf::ValueType::kString, std::move(tokens)}});
  metadata.Set(
      "tokenizer.ggml.token_type",
      {gguf::ValueType::kArray, gguf::MetadataArray{gguf::ValueType::kInt32, std::move(types)}});
  metadata.Set("tokenizer.ggml.add_space_prefix", {gguf::ValueType::kBool, false});
  const std::string path = ::testing::TempDir() + "infill-" + std::to_string(::getpid()) +
                           (with_files ? "-files" : "") + (by_metadata ? "-named" : "") + ".gguf";
  const std::vector<std::byte> bytes = writer.Serialize();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  return path;
}

TestAppOptions With(const std::string& path, uint32_t context_length) {
  TestAppOptions options;
  options.model_path = path;
  options.engine.context_length = context_length;
  return options;
}

// A server of such a model. The file is not needed once it is loaded.
class InfillApp : public TestApp {
 public:
  explicit InfillApp(bool with_files, bool by_metadata = false, uint32_t context_length = 0)
      : InfillApp(With(ModelWithInfill(with_files, by_metadata), context_length)) {}

 private:
  explicit InfillApp(const TestAppOptions& options) : TestApp(options) {
    std::filesystem::remove(options.model_path);
  }
};

// What a plain prompt of these tokens is continued with.
json Continued(const TestApp& app, const std::vector<int>& prompt, int tokens) {
  return app.PostOk("/v1/completions", {{"prompt", prompt},
                                        {"max_tokens", tokens},
                                        {"temperature", 0},
                                        {"stop_token_ids", {kRepository, kFile}}});
}

std::vector<int> Prompt(std::initializer_list<std::vector<int>> parts) {
  std::vector<int> prompt;
  for (const auto& part : parts) prompt.insert(prompt.end(), part.begin(), part.end());
  return prompt;
}

TEST(Infill, PutsTheTextsBetweenItsTokens) {
  for (const bool by_metadata : {false, true}) {
    const InfillApp app(false, by_metadata);
    const json answer = app.PostOk("/infill", {{"input_prefix", "AB 1"},
                                               {"input_suffix", "!"},
                                               {"prompt", "C"},
                                               {"n_predict", 9},
                                               {"temperature", 0}});
    const auto prompt =
        Prompt({{kBos, kPrefix}, Bytes("AB 1"), {kSuffix}, Bytes("!"), {kMiddle}, Bytes("C")});
    const json expected = Continued(app, prompt, 9);
    EXPECT_EQ(answer["content"], expected["choices"][0]["text"]);
    EXPECT_FALSE(answer["content"].get<std::string>().empty());
    EXPECT_EQ(answer["tokens_evaluated"], prompt.size());
    EXPECT_EQ(answer["tokens_predicted"], expected["usage"]["completion_tokens"]);
    EXPECT_EQ(answer["stop"], true);
    EXPECT_EQ(answer["truncated"], false);
    EXPECT_EQ(answer["stop_type"],
              expected["choices"][0]["finish_reason"] == "length" ? "limit" : "eos");
    EXPECT_EQ(answer["timings"]["predicted_n"], answer["tokens_predicted"]);
  }
}

TEST(Infill, OtherFilesComeFirst) {
  const InfillApp app(true);
  const json extra = {{{"filename", "A.B"}, {"text", "1 2"}}, {{"text", "3"}}};
  json body = {{"input_prefix", "A"},
               {"input_suffix", "B"},
               {"input_extra", extra},
               {"n_predict", 6},
               {"temperature", 0}};
  const json answer = app.PostOk("/infill", body);
  // "\n" and small letters are not in this vocabulary: they are <unk> here.
  const auto unknown = [&](const std::string& text) {
    return app.PostOk("/tokenize", {{"content", text}, {"add_special", false}})["tokens"]
        .get<std::vector<int>>();
  };
  const auto prompt = Prompt({{kBos, kRepository},
                              unknown("project\n"),
                              {kFile},
                              unknown("A.B\n1 2"),
                              {kFile},
                              unknown("file\n3"),
                              {kFile},
                              unknown("file\n"),
                              {kPrefix},
                              Bytes("A"),
                              {kSuffix},
                              Bytes("B"),
                              {kMiddle}});
  EXPECT_EQ(answer["content"], Continued(app, prompt, 6)["choices"][0]["text"]);
  EXPECT_EQ(answer["tokens_evaluated"], prompt.size());
}

TEST(Infill, WhatDoesNotFitIsCutFromTheOtherFiles) {
  const InfillApp app(true, false, 48);
  const json body = {{"input_prefix", "A"},
                     {"input_suffix", "B"},
                     {"input_extra", {{{"text", std::string(100, '7')}}}},
                     {"n_predict", 8},
                     {"temperature", 0}};
  const json answer = app.PostOk("/infill", body);
  EXPECT_EQ(answer["truncated"], true);
  EXPECT_EQ(answer["tokens_evaluated"], 40);
  json longer = body;
  longer["input_prefix"] = std::string(60, 'A');
  const auto refused = app.Post("/infill", longer);
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(json::parse(refused.body)["error"]["code"], "context_length_exceeded");
}

TEST(Infill, AStreamSaysWhatTheWholeAnswerSays) {
  const InfillApp app(false);
  json body = {
      {"input_prefix", "A 1"}, {"input_suffix", "B"}, {"n_predict", 12}, {"temperature", 0}};
  const json whole = app.PostOk("/infill", body);
  body["stream"] = true;
  const EventStream stream(app.Post("/infill", body).body);
  std::string text;
  for (const json& chunk : stream.chunks) text += chunk["content"].get<std::string>();
  EXPECT_EQ(text, whole["content"]);
  EXPECT_EQ(stream.chunks.back()["stop"], true);
  EXPECT_EQ(stream.chunks.back()["tokens_predicted"], whole["tokens_predicted"]);
  EXPECT_EQ(stream.chunks.front()["stop"], false);
}

TEST(Infill, NothingIsGeneratedForAPromptOnly) {
  const InfillApp app(false);
  const json body = {
      {"input_prefix", "A 1234567890 1234567890"}, {"input_suffix", "B"}, {"n_predict", 0}};
  const json answer = app.PostOk("/infill", body);
  EXPECT_EQ(answer["content"], "");
  EXPECT_EQ(answer["tokens_predicted"], 0);
  EXPECT_GT(app.PostOk("/infill", body)["tokens_cached"].get<int>(), 20);
}

TEST(Infill, SuffixOfACompletionIsTheSame) {
  const InfillApp app(false);
  const json infill = app.PostOk(
      "/infill",
      {{"input_prefix", "A 1"}, {"input_suffix", "B"}, {"n_predict", 9}, {"temperature", 0}});
  const json completion =
      app.PostOk("/v1/completions",
                 {{"prompt", "A 1"}, {"suffix", "B"}, {"max_tokens", 9}, {"temperature", 0}});
  EXPECT_EQ(completion["choices"][0]["text"], infill["content"]);
  EXPECT_EQ(completion["usage"]["prompt_tokens"], infill["tokens_evaluated"]);
}

TEST(Infill, ErrorsNameTheParameter) {
  const InfillApp able(false);
  const TestApp unable;
  const json body = {{"input_prefix", "A"}, {"input_suffix", "B"}};
  const auto expect = [](const TestApp& app, const std::string& path, const json& request,
                         const char* code, const char* param) {
    const auto response = app.Post(path, request);
    EXPECT_EQ(response.status, 400) << request;
    const json error = json::parse(response.body)["error"];
    EXPECT_EQ(error["code"], code) << response.body;
    EXPECT_EQ(error["param"], param) << response.body;
  };
  const auto with = [&](const char* name, const json& value) {
    json changed = body;
    changed[name] = value;
    return changed;
  };
  expect(unable, "/infill", body, "unsupported_parameter", "input_prefix");
  expect(unable, "/v1/completions", {{"prompt", "A"}, {"suffix", "B"}}, "unsupported_parameter",
         "suffix");
  expect(able, "/infill", {{"input_suffix", "B"}}, "missing_required_parameter", "input_prefix");
  expect(able, "/infill", {{"input_prefix", "B"}}, "missing_required_parameter", "input_suffix");
  expect(able, "/infill", with("n", 2), "unsupported_parameter", "n");
  expect(able, "/infill", with("n_predict", -2), "invalid_value", "n_predict");
  expect(able, "/infill", with("input_extra", {{{"filename", "a"}}}), "missing_required_parameter",
         "input_extra[0].text");
  expect(able, "/v1/completions", {{"prompt", {5, 6}}, {"suffix", "B"}}, "invalid_value", "suffix");
  expect(able, "/v1/completions", {{"prompt", "A"}, {"suffix", "B"}, {"echo", true}},
         "invalid_value", "suffix");
  // What only tunes another server has no effect, and is said.
  const auto ignored = able.Post("/v1/infill", with("samplers", {"top_k", "infill"}));
  EXPECT_EQ(ignored.status, 200);
  EXPECT_EQ(ignored.Header("x-tern-ignored-parameters"), "samplers");
}

}  // namespace
}  // namespace server
