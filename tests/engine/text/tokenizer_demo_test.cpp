// The bundled model's tokenizer gives the ids that it was trained with, as its golden file has
// them.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "gguf/reader.h"

namespace engine::text {
namespace {

class DemoTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("TERN_TEST_DATA");
    const std::filesystem::path models =
        std::filesystem::path(folder != nullptr ? folder : TERN_SOURCE_DIR "/../shared/data") /
        "models";
    const std::filesystem::path model = models / "tern-demo-7m-i2_s.gguf";
    if (!std::filesystem::exists(model)) GTEST_SKIP() << "no model at " << model;
    tokenizer_ = Tokenizer::FromMetadata(gguf::File::Open(model.string()).metadata());
    std::ifstream(models / "golden.json") >> golden_;
  }

  std::vector<TokenId> Prompt(const char* name) const {
    return golden_.at(name).at("prompt").get<std::vector<TokenId>>();
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  nlohmann::json golden_;
};

TEST_F(DemoTokenizer, EncodesTheGoldenPrompts) {
  EXPECT_EQ(tokenizer_->Encode("Once upon a time there was a little", {}), Prompt("raw"));
  const EncodeOptions chat{.add_special = true, .parse_special = true};
  EXPECT_EQ(tokenizer_->Encode("<|user|>Do you like movies?<|end|><|assistant|>", chat),
            Prompt("movies"));
  EXPECT_EQ(tokenizer_->Encode("<|user|>Who are you?<|end|><|assistant|>", chat), Prompt("who"));
  EXPECT_EQ(tokenizer_->Encode("<|user|>Do you like music?<|end|><|assistant|>Yes, I love music. "
                               "What kind do you like?<|end|><|user|>I like rock and jazz.<|end|>"
                               "<|assistant|>",
                               chat),
            Prompt("multi"));
}

TEST_F(DemoTokenizer, GoldenIdsSurviveTheTripThroughText) {
  for (const auto& [name, golden] : golden_.items()) {
    const std::vector<TokenId> prompt = Prompt(name.c_str());
    const std::string text = tokenizer_->Decode(prompt, true);
    EXPECT_EQ(tokenizer_->Encode(text, {.add_special = false, .parse_special = true}), prompt)
        << name;
  }
}

TEST_F(DemoTokenizer, StopsAtTheEndOfATurn) {
  EXPECT_TRUE(tokenizer_->adds_bos());
  EXPECT_FALSE(tokenizer_->adds_space_prefix());
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), 6);
  EXPECT_TRUE(tokenizer_->IsStop(6));
  EXPECT_TRUE(tokenizer_->IsStop(2));
}

}  // namespace
}  // namespace engine::text
