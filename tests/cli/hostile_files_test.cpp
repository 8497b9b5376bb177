// Property: a hostile model file ends every command that reads it with exit code 1 and one sentence
// on standard error, nothing on standard output and no file written.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/cli/process.h"
#include "tests/support/gguf_builder.h"

namespace cli {
namespace {

using testing::HasSubstr;

std::string Bundled() { return TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf"; }

std::string BytesOfBundled() {
  std::ifstream file(Bundled(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The bundled model with other metadata.
std::string WithMetadata(const std::function<void(gguf::Metadata*)>& change) {
  const gguf::File file = gguf::File::Open(Bundled());
  gguf::Writer writer;
  writer.metadata() = file.metadata();
  change(&writer.metadata());
  for (const gguf::TensorInfo& info : file.tensors()) {
    const auto bytes = file.TensorBytes(info);
    writer.AddTensor(info.name, info.type, {info.extents.begin(), info.extents.begin() + info.rank},
                     {bytes.begin(), bytes.end()});
  }
  return Text(writer.Serialize());
}

void ExpectOneSentence(const std::vector<std::string>& arguments, const std::string& words) {
  const ProcessResult result = RunTern(arguments);
  SCOPED_TRACE(arguments[0] + ": " + result.err);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.err.starts_with("tern: "));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1);
  EXPECT_THAT(result.err, HasSubstr(words));
}

TEST(HostileFiles, BrokenContainersEndEveryCommand) {
  using support::GgufBuilder;
  const std::string whole = BytesOfBundled();
  std::string lied_about = whole;
  lied_about[15] = '\x7f';  // the highest byte of the number of tensors
  GgufBuilder tl2(1, 1);
  tl2.Text("general.architecture", "bitnet-b1.58").Tensor("blk.0.attn_q.weight", {256, 4}, 39, 0);
  tl2.Data(4096);
  GgufBuilder unknown(1, 1);
  unknown.Text("general.architecture", "llama").Tensor("t", {256, 4}, 977, 0).Data(4096);
  const std::vector<std::pair<std::string, std::string>> files = {
      {"", "the file is empty"},
      {std::string(1 << 16, '\0'), "not a GGUF file"},
      {"PK\x03\x04" + std::string(1000, 'z'), "not a GGUF file"},
      {whole.substr(0, 20), "the file ends inside"},
      {whole.substr(0, 5000), "bytes left can hold at most"},
      {whole.substr(0, whole.size() / 2), "truncated"},
      {lied_about, "the tensor count is"},
      {Text(tl2.bytes()), "TL2"},
      {Text(unknown.bytes()), "977"}};
  for (const auto& [bytes, words] : files) {
    const ScratchFile model("gguf", bytes);
    const std::string output = model.path() + ".out";
    ExpectOneSentence({"inspect", model.path()}, words);
    ExpectOneSentence({"generate", "--model", model.path(), "--prompt", "x"}, words);
    ExpectOneSentence({"tokenize", "--model", model.path(), "--text", "x"}, words);
    ExpectOneSentence({"quantize", model.path(), output}, words);
    EXPECT_FALSE(std::filesystem::exists(output));
  }
}

TEST(HostileFiles, BadVocabulariesAndTemplatesEndTheLoad) {
  const auto strings = [](gguf::Metadata* metadata, const char* key,
                          const std::function<void(std::vector<std::string>*)>& change) {
    std::vector<std::string> values = *metadata->FindStrings(key);
    change(&values);
    metadata->Set(key, {gguf::ValueType::kArray,
                        gguf::MetadataArray{gguf::ValueType::kString, std::move(values)}});
  };
  const auto set_text = [](const char* key, const std::string& value) {
    return [=](gguf::Metadata* metadata) { metadata->Set(key, {gguf::ValueType::kString, value}); };
  };
  std::string deep = "{{ ";
  for (int i = 0; i < 60000; ++i) deep += '(';
  const std::vector<std::pair<std::function<void(gguf::Metadata*)>, std::string>> changes = {
      {[&](gguf::Metadata* metadata) {
         strings(metadata, "tokenizer.ggml.tokens",
                 [](auto* tokens) { tokens->at(9) = std::string(5000, 'a'); });
       },
       "expected at most 2048"},
      {[&](gguf::Metadata* metadata) {
         strings(metadata, "tokenizer.ggml.tokens", [](auto* tokens) { tokens->pop_back(); });
       },
       "entries, expected"},
      {[](gguf::Metadata* metadata) {
         metadata->Set("tokenizer.ggml.bos_token_id",
                       {gguf::ValueType::kUint32, uint64_t{1} << 30});
       },
       "expected a token id below"},
      {set_text("tokenizer.ggml.model", "plamo2"), "plamo2"},
      {set_text("tokenizer.chat_template", deep), "nested deeper"},
      {set_text("tokenizer.chat_template", "{% include '/etc/passwd' %}"), "is not supported"},
      {set_text("tokenizer.chat_template", std::string((1 << 20) + 1, 'a')), "limit"}};
  for (const auto& [change, words] : changes) {
    const ScratchFile model("gguf", WithMetadata(change));
    ExpectOneSentence({"generate", "--model", model.path(), "--chat", "--prompt", "x"}, words);
  }
  // What only shows when a conversation is rendered ends that, with one sentence too.
  for (const auto& [source, words] :
       {std::pair{"{% for i in range(10**9) %}{% endfor %}", "range"},
        {"{{ ''.__class__.__mro__ }}", "unsafe"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"}}) {
    const ScratchFile model("gguf", WithMetadata(set_text("tokenizer.chat_template", source)));
    ExpectOneSentence({"generate", "--model", model.path(), "--chat", "--prompt", "x"}, words);
  }
}

}  // namespace
}  // namespace cli
