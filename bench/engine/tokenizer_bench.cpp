// Encoding and decoding speed on English prose, one thread, for each vocabulary of the tokenizer
// corpus: bytes of text per second, fresh Encode() of 6.3 MB and of a chat-sized prompt.

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "gguf/reader.h"

namespace {

using engine::text::Tokenizer;

std::filesystem::path DataFolder() {
  const char* folder = std::getenv("TERN_TEST_DATA");
  return folder != nullptr ? folder : TERN_SOURCE_DIR "/../shared/data";
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string LongText() {
  std::string text;
  for (const char* name :
       {"fairytaleqa_stories.txt", "tinystories_sample_2MiB.txt", "tinyshakespeare.txt"}) {
    text += ReadText(DataFolder() / "text" / name);
  }
  return text;
}

std::filesystem::path VocabularyPath(const std::string& name) {
  if (name == "tern-demo") return DataFolder() / "models/tern-demo-7m-i2_s.gguf";
  return DataFolder() / "tokenizers" / (name + ".gguf");
}

void Load(benchmark::State& state, const std::string& name) {
  const gguf::File file = gguf::File::Open(VocabularyPath(name).string());
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::FromMetadata(file.metadata()));
}

void Encode(benchmark::State& state, const std::string& name, const std::string& text) {
  const auto tokenizer =
      Tokenizer::FromMetadata(gguf::File::Open(VocabularyPath(name).string()).metadata());
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer->Encode(text, {.parse_special = true}).size();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void Decode(benchmark::State& state, const std::string& name, const std::string& text) {
  const auto tokenizer =
      Tokenizer::FromMetadata(gguf::File::Open(VocabularyPath(name).string()).metadata());
  const auto tokens = tokenizer->Encode(text, {});
  for (auto _ : state) {
    engine::text::Detokenizer detokenizer(*tokenizer);
    for (const engine::TokenId token : tokens) {
      benchmark::DoNotOptimize(detokenizer.Push(token));
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(tokens.size()));
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::string prose = LongText();
  if (prose.empty()) {
    std::fprintf(stderr, "no texts under %s\n", DataFolder().c_str());
    return 1;
  }
  const std::string prompt = prose.substr(0, prose.find(' ', 1000));
  const std::string letters(1 << 20, 'a');
  const std::string spaces = std::string(1 << 20, ' ') + "x";
  for (const char* name :
       {"tern-demo", "llama-spm", "phi-3", "llama-bpe", "gpt-2", "deepseek-llm"}) {
    const std::string suffix = std::string("/") + name;
    const auto add = [&](const std::string& kind, const std::string& text) {
      benchmark::RegisterBenchmark((kind + suffix).c_str(), Encode, name, text)
          ->Unit(benchmark::kMillisecond);
    };
    add("Encode/prose", prose);
    add("Encode/prompt", prompt);
    add("Encode/letters", letters);
    add("Encode/spaces", spaces);
    benchmark::RegisterBenchmark(("Detokenize/prose" + suffix).c_str(), Decode, name, prompt);
    benchmark::RegisterBenchmark(("Load" + suffix).c_str(), Load, name)
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
