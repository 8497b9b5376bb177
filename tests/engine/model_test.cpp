// Property: a model talks as it was trained to, also where its published files say otherwise.
#include "engine/model.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/engine/text/template_values.h"

namespace engine {
namespace {

constexpr const char* kPlaceholder =
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Human: ' + "
    "message['content'] + '\\n\\nBITNETAssistant: ' }}{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}";

gguf::Metadata WithTemplate(const std::string& source) {
  gguf::Metadata metadata;
  metadata.Set("tokenizer.chat_template", {gguf::ValueType::kString, source});
  return metadata;
}

ModelConfig Config(const std::string& architecture, uint32_t vocabulary) {
  ModelConfig config;
  config.architecture = architecture;
  config.vocabulary = vocabulary;
  return config;
}

TEST(ChatTemplateSource, Bitnet2BHasTheTemplateOfItsDocumentation) {
  for (const char* architecture : {"bitnet-b1.58", "bitnet-25", "bitnet"}) {
    const auto source =
        ChatTemplateSource(WithTemplate(kPlaceholder), Config(architecture, 128256));
    ASSERT_TRUE(source.has_value());
    const auto variables = tests::ToValue(nlohmann::ordered_json::parse(R"json({
      "messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"},
                   {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"}],
      "bos_token": "<|begin_of_text|>", "add_generation_prompt": true})json"));
    EXPECT_EQ(text::ChatTemplate(*source).Render(*variables.as_object(), 0),
              "<|begin_of_text|>System: Be brief.<|eot_id|>User: Hi<|eot_id|>"
              "Assistant: Hello<|eot_id|>User: Bye<|eot_id|>Assistant: ");
  }
}

TEST(ChatTemplateSource, OtherFilesKeepTheirs) {
  EXPECT_EQ(ChatTemplateSource(WithTemplate(kPlaceholder), Config("llama", 128256)), kPlaceholder);
  EXPECT_EQ(ChatTemplateSource(WithTemplate(kPlaceholder), Config("bitnet", 32002)), kPlaceholder);
  EXPECT_EQ(ChatTemplateSource(WithTemplate("{{ x }}"), Config("bitnet-b1.58", 128256)), "{{ x }}");
  EXPECT_EQ(ChatTemplateSource(gguf::Metadata(), Config("bitnet-b1.58", 128256)), std::nullopt);
}

}  // namespace
}  // namespace engine
