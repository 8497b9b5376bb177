// A request chooses LoRA adapters and their scales; requests with different ones run beside each
// other and each says what it says alone.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Of this process alone: tests run side by side.
std::filesystem::path Folder() {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / ("tern-lora-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  return folder;
}

// An adapter of the demo model's query and down projections, strong enough to change answers.
std::string WriteAdapter(const std::string& name, uint64_t seed) {
  const gguf::File model = gguf::File::Open(DemoModelPath());
  gguf::Writer writer;
  const auto text = [&](const char* key, const std::string& value) {
    writer.metadata().Set(key, {gguf::ValueType::kString, value});
  };
  text("general.type", "adapter");
  text("adapter.type", "lora");
  text("adapter.lora.task_name", "task of " + name);
  text("general.architecture", *model.metadata().FindString("general.architecture"));
  writer.metadata().Set("adapter.lora.alpha", {gguf::ValueType::kFloat32, 4.0});
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0F, 0.15F);
  constexpr uint64_t kRank = 4;
  const auto add = [&](const std::string& tensor, uint64_t cols, uint64_t rows) {
    std::vector<float> values(cols * rows);
    for (float& value : values) value = normal(random);
    std::vector<std::byte> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    writer.AddTensor(tensor, gguf::TensorType::kF32, {cols, rows}, bytes);
  };
  for (const gguf::TensorInfo& info : model.tensors()) {
    if (!info.name.ends_with("attn_q.weight") && !info.name.ends_with("ffn_down.weight")) continue;
    add(info.name + ".lora_a", info.cols(), kRank);
    add(info.name + ".lora_b", kRank, info.rows());
  }
  const std::string path = Folder() / (name + ".gguf");
  const std::vector<std::byte> bytes = writer.Serialize();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return path;
}

class LoraServer : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    plain_ = std::make_unique<TestApp>();
    TestAppOptions options;
    options.engine.lora = {{.path = WriteAdapter("tern-lora-first", 1), .scale = 0.5F},
                           {.path = WriteAdapter("tern-lora-second", 2), .scale = 0}};
    app_ = std::make_unique<TestApp>(options);
  }
  static void TearDownTestSuite() {
    app_.reset();
    plain_.reset();
    std::filesystem::remove_all(Folder());
  }

  static json Body(const json& lora) {
    json body = ChatBody("Do you like movies?", 16);
    body["logprobs"] = true;
    if (!lora.is_null()) body["lora"] = lora;
    return body;
  }
  static json Ask(TestApp& app, const json& lora) {
    return app.PostOk("/v1/chat/completions", Body(lora))["choices"][0];
  }

  static std::unique_ptr<TestApp> plain_;
  static std::unique_ptr<TestApp> app_;
};

std::unique_ptr<TestApp> LoraServer::plain_;
std::unique_ptr<TestApp> LoraServer::app_;

TEST_F(LoraServer, ListsItsAdapters) {
  const auto response = app_->Get("/lora-adapters");
  EXPECT_EQ(response.status, 200);
  const json list = json::parse(response.body);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["id"], 0);
  EXPECT_EQ(list[0]["name"], "tern-lora-first");
  EXPECT_THAT(list[0]["path"].get<std::string>(), HasSubstr("tern-lora-first.gguf"));
  EXPECT_EQ(list[0]["scale"], 0.5);
  EXPECT_EQ(list[0]["task_name"], "task of tern-lora-first");
  EXPECT_EQ(list[1]["id"], 1);
  EXPECT_EQ(list[1]["scale"], 0.0);
  EXPECT_EQ(json::parse(plain_->Get("/lora-adapters").body), json::array());
}

TEST_F(LoraServer, ScaleOfARequestDecidesItsAnswer) {
  const json plain = Ask(*plain_, nullptr);
  EXPECT_EQ(Ask(*app_, json::array()), plain) << "no adapter named: none takes part";
  EXPECT_EQ(Ask(*app_, {{{"id", 0}, {"scale", 0}}}), plain);

  const json by_default = Ask(*app_, nullptr);
  EXPECT_NE(by_default, plain);
  EXPECT_EQ(Ask(*app_, {{{"id", 0}, {"scale", 0.5}}}), by_default);
  EXPECT_EQ(Ask(*app_, {{{"name", "tern-lora-first"}, {"scale", 0.5}}}), by_default);
  EXPECT_NE(Ask(*app_, {{{"id", 0}, {"scale", 0.25}}}), by_default);
  EXPECT_NE(Ask(*app_, {{{"id", 1}, {"scale", 0.5}}}), by_default);
  // The same prompt without an adapter again: what the others left in the cache is not its own.
  EXPECT_EQ(Ask(*app_, json::array()), plain);
}

TEST_F(LoraServer, RequestsWithDifferentAdaptersRunBesideEachOther) {
  const std::vector<json> choices = {json::array(),
                                     {{{"id", 0}, {"scale", 1}}},
                                     {{{"id", 1}, {"scale", -0.5}}},
                                     {{{"id", 0}, {"scale", 0.5}}, {{"id", 1}, {"scale", 0.5}}}};
  std::vector<json> alone;
  for (const json& lora : choices) alone.push_back(Ask(*app_, lora));
  EXPECT_NE(alone[1], alone[3]);
  std::vector<json> together(12);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i] { together[i] = Ask(*app_, choices[i % choices.size()]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < together.size(); ++i) {
    EXPECT_EQ(together[i], alone[i % choices.size()]) << i;
  }
}

TEST_F(LoraServer, RefusesAdaptersThatItDoesNotHave) {
  const auto error = [&](const json& lora) {
    const auto response = app_->Post("/v1/chat/completions", Body(lora));
    const json body = json::parse(response.body).at("error");
    return std::to_string(response.status) + " " + body.at("param").get<std::string>() + ": " +
           body.at("message").get<std::string>();
  };
  EXPECT_THAT(error({{{"id", 2}, {"scale", 1}}}),
              HasSubstr("400 lora[0].id: Invalid value for 'lora[0].id': the model has 2 LoRA"));
  EXPECT_THAT(error({{{"name", "third"}, {"scale", 1}}}),
              HasSubstr("400 lora[0].name: Invalid value for 'lora[0].name': the model has no"));
  EXPECT_THAT(error({{{"id", 0}, {"scale", 1}}, {{"id", 0}, {"scale", 1}}}),
              HasSubstr("400 lora[1]: Invalid value for 'lora[1]': adapter 0 is given twice."));
  EXPECT_THAT(error({{{"id", 0}}}), HasSubstr("400 lora[0].scale"));
  EXPECT_THAT(error({{{"scale", 1}}}), HasSubstr("400 lora[0].id"));
  EXPECT_THAT(error({{{"id", 0}, {"scale", 1000}}}), HasSubstr("400 lora[0].scale"));
  EXPECT_THAT(error("first"), HasSubstr("400 lora"));
}

}  // namespace
}  // namespace server
