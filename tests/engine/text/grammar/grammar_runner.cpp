// Compiles grammars and walks them over a real vocabulary, for check_grammars.py:
//
//   grammar_runner VOCABULARY.gguf
//
// One JSON case per input line: {"schema": …} or {"gbnf": …}, {"regex": …}, {"choices": […]},
// {"json_object": true}; "generate": how many random texts, "seed"; "accept": texts to judge. One
// result per output line: {"error": …} or {"texts": [{"text", "complete"}], "accepts": [bool],
// "mask_us": […]}. A token is chosen among those of the mask only, so every text shows what the
// masks allow; a judged text is tokenised, and each of its tokens must be in the mask.

#include <ctime>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "engine/text/grammar/grammar.h"
#include "engine/text/grammar/matcher.h"
#include "engine/text/tokenizer.h"
#include "gguf/reader.h"
#include "tests/engine/text/template_values.h"

namespace {

using engine::TokenId;
using engine::text::Tokenizer;
using namespace engine::text::grammar;  // NOLINT: a test program
using Json = nlohmann::ordered_json;

GrammarSource SourceOf(const Json& input) {
  if (input.contains("schema")) return JsonSchema{tests::ToValue(input["schema"])};
  if (input.contains("gbnf")) return Gbnf{input["gbnf"].get<std::string>()};
  if (input.contains("regex")) return Regex{input["regex"].get<std::string>()};
  if (input.contains("choices")) return Choices{input["choices"].get<std::vector<std::string>>()};
  return AnyJsonObject{};
}

bool Allows(std::span<const uint64_t> mask, TokenId token) {
  const auto bit = static_cast<size_t>(token);
  return ((mask[bit / 64] >> (bit % 64)) & 1) != 0;
}

// CPU time of this thread: other programs on the machine don't count.
double Microseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

class Runner {
 public:
  explicit Runner(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer),
        trie_(std::make_shared<TokenTrie>(tokenizer)),
        stops_(tokenizer.stop_tokens().begin(), tokenizer.stop_tokens().end()),
        bytes_(256, -1) {
    for (uint32_t id = 0; id < tokenizer.size(); ++id) {
      const auto bytes = trie_->TokenBytes(static_cast<TokenId>(id));
      if (bytes.size() == 1) bytes_[static_cast<uint8_t>(bytes[0])] = static_cast<TokenId>(id);
    }
  }

  Json Run(const Json& input) {
    const double start = Microseconds();
    std::shared_ptr<const Constraint> constraint;
    try {
      constraint = std::make_shared<Constraint>(CompileGrammar(SourceOf(input)), trie_);
    } catch (const GrammarError& error) {
      return {{"error", error.what()}};
    }
    Json result = {{"compile_ms", (Microseconds() - start) / 1000},
                   {"texts", Json::array()},
                   {"accepts", Json::array()},
                   {"mask_us", Json::array()}};
    random_.seed(input.value("seed", 1U));
    for (int i = 0; i < input.value("generate", 0); ++i) {
      result["texts"].push_back(Generate(constraint, &result["mask_us"]));
    }
    for (const Json& text : input.value("accept", Json::array())) {
      result["accepts"].push_back(Accepts(constraint, text.get<std::string>()));
    }
    return result;
  }

 private:
  std::span<const uint64_t> Mask(Matcher* matcher, Json* times) {
    const double start = Microseconds();
    const auto mask = matcher->Mask();
    times->push_back(Microseconds() - start);
    return mask;
  }

  Json Generate(const std::shared_ptr<const Constraint>& constraint, Json* times) {
    constexpr int kFreeTokens = 120;
    constexpr int kMaxTokens = 1500;
    Matcher matcher(constraint, stops_);
    std::string text;
    for (int i = 0; i < kMaxTokens; ++i) {
      const TokenId token = Choose(Mask(&matcher, times), i > kFreeTokens);
      if (token < 0) return {{"text", text}, {"complete", false}, {"stuck", true}};
      text += trie_->TokenBytes(token);
      if (!matcher.Accept(token)) throw std::logic_error("a token of the mask was not accepted");
      if (matcher.IsTerminated()) return {{"text", text}, {"complete", true}};
    }
    return {{"text", text}, {"complete", false}};
  }

  // At random among the allowed, mostly single bytes; towards the end when `closing`.
  TokenId Choose(std::span<const uint64_t> mask, bool closing) {
    const bool may_stop = Allows(mask, stops_.front());
    if (may_stop && (closing || random_() % 2 == 0)) return stops_.front();
    if (closing) {
      for (const char byte : std::string_view("\"}]")) {
        const TokenId token = bytes_[static_cast<uint8_t>(byte)];
        if (token >= 0 && Allows(mask, token)) return token;
      }
    }
    if (closing || random_() % 4 != 0) {
      const size_t first = random_() % 256;
      for (size_t i = 0; i < 256; ++i) {
        const TokenId token = bytes_[(first + i) % 256];
        if (token >= 0 && Allows(mask, token)) return token;
      }
    }
    const size_t size = tokenizer_.size();
    const size_t first = random_() % size;
    for (size_t i = 0; i < size; ++i) {
      const auto token = static_cast<TokenId>((first + i) % size);
      if (Allows(mask, token)) return token;
    }
    return -1;
  }

  bool Accepts(const std::shared_ptr<const Constraint>& constraint, const std::string& text) const {
    Matcher matcher(constraint, stops_);
    for (const TokenId token : tokenizer_.Encode(text, {.add_special = false})) {
      const bool allowed = Allows(matcher.Mask(), token);
      if (allowed != matcher.Accept(token)) throw std::logic_error("mask and Accept() differ");
      if (!allowed) return false;
    }
    return matcher.IsComplete() && Allows(matcher.Mask(), stops_.front());
  }

  const Tokenizer& tokenizer_;
  std::shared_ptr<const TokenTrie> trie_;
  std::vector<TokenId> stops_;
  std::vector<TokenId> bytes_;  // the tokens of single bytes
  std::mt19937 random_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: grammar_runner VOCABULARY.gguf\n";
    return 2;
  }
  const auto file = gguf::File::Open(argv[1]);
  const auto tokenizer = Tokenizer::FromMetadata(file.metadata());
  Runner runner(*tokenizer);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << runner.Run(Json::parse(line)).dump(-1, ' ', true, Json::error_handler_t::replace)
              << "\n";
  }
  return 0;
}
