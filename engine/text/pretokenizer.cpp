#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <iterator>
#include <new>
#include <span>
#include <string>

#include "engine/errors.h"

namespace engine::text {
namespace {

// Far above what a word of real text needs; a guard against expressions that explode. With it a
// match takes at most some tens of milliseconds.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kDepthLimit = 10'000;
constexpr uint32_t kHeapLimitKib = 16 * 1024;

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
                                    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing = R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})"
                                      R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";

// The letters that DeepSeek LLM splits off: those with case, as its makers listed them.
constexpr std::string_view kDeepseekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A})"
    R"(\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556})"
    R"(\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF})"
    R"(\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})"
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D})"
    R"(\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
    R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3})"
    R"(\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
// "\s+$", so put that a run of spaces is looked at once and not once from each of its spaces.
constexpr std::string_view kTrailingSpace = R"((?<!\s)\s++\z)";
constexpr std::string_view kCjk = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr std::string_view kCjkKana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kDeepseekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";

struct Rule {
  std::string_view names;  // separated by spaces
  bool ignores_merges;
  bool adds_bos;
  std::array<std::string_view, 6> expressions;  // empty ones do not count
};

// What the tokenizers' own files say, under the names that GGUF converters give them.
constexpr Rule kRules[] = {
    {"llama-bpe llama3 llama-v3 falcon3 falcon_e falcon-e falcon-h1 pixtral lfm2 midm-2.0",
     true,
     true,
     {kLlama3}},
    {"dbrx smaug-bpe chatglm-bpe glm4", false, false, {kLlama3}},
    {"qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez grok-2 solar-open", false, false, {kQwen2}},
    {"qwen35", false, false, {kQwen35}},
    {"gpt-2 phi-2 mpt olmo jais exaone4 trillion granite-docling mellum gigachat a.x-4.0 "
     "modern-bert",
     false,
     false,
     {kGpt2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     false,
     false,
     {kDigit, kGpt2}},
    {"deepseek-llm",
     false,
     false,
     {R"([\r\n])", kDeepseekLetters, kDeepseekPunctuation, kTrailingSpace, kCjk, R"(\p{N}+)"}},
    {"deepseek-coder", false, false, {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCjk, kDigit}},
    {"deepseek-v3 hunyuan-dense joyai-llm", false, false, {R"(\p{N}{1,3})", kCjkKana, kDeepseekV3}},
    {"falcon", false, false, {R"([\p{P}$+<=>^~|`]+)", kGpt2, "[0-9][0-9][0-9]"}},
    {"tekken", true, true, {kTekken}},
    {"gpt-4o llama4 kanana2 minimax-m2", false, false, {kGpt4o}},
    {"bloom poro-chat gpt3-finnish", false, false, {kBloom}},
    {"viking", false, false, {kBloom, kDigit}},
    {"bailingmoe bailingmoe2 llada-moe", false, false, {kBailing}},
    {"seed-coder", false, false, {kSeedCoder}},
    {"default", false, false, {R"([\p{P}$+<=>^~|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
};

// Expressions for which a run of ASCII letters, with a space before it or without, is one match
// when an ASCII character or nothing follows it. Three words in four of English are found so.
constexpr std::string_view kTakesPlainWords[] = {kGpt2,   kLlama3,    kQwen2,
                                                 kQwen35, kSeedCoder, kBailing};

bool IsAsciiLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Length of "word" or " word" at text[from]; 0 when there is none or it may go on past ASCII.
size_t PlainWordLength(std::string_view text, size_t from) {
  const size_t letters = text[from] == ' ' ? from + 1 : from;
  size_t at = letters;
  while (at < text.size() && IsAsciiLetter(text[at])) ++at;
  if (at == letters || (at < text.size() && static_cast<uint8_t>(text[at]) >= 0x80)) return 0;
  return at - from;
}

bool HasName(std::string_view names, std::string_view name) {
  if (name.empty() || name.find(' ') != std::string_view::npos) return false;
  for (size_t at = names.find(name); at != std::string_view::npos; at = names.find(name, at + 1)) {
    const size_t end = at + name.size();
    const bool begins = at == 0 || names[at - 1] == ' ';
    if (begins && (end == names.size() || names[end] == ' ')) return true;
  }
  return false;
}

struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};

}  // namespace

// One compiled expression; machine code where the system allows it.
class Pretokenizer::Expression {
 public:
  explicit Expression(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    if (code_ == nullptr) {
      throw ModelError("the pre-tokenizer's expression does not compile at character " +
                       std::to_string(offset));
    }
    takes_plain_words_ = std::find(std::begin(kTakesPlainWords), std::end(kTakesPlainWords),
                                   pattern) != std::end(kTakesPlainWords);
    compiled_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE) == 0;
    limits_.reset(pcre2_match_context_create(nullptr));
    if (limits_ == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(limits_.get(), kMatchLimit);
    pcre2_set_depth_limit(limits_.get(), kDepthLimit);
    pcre2_set_heap_limit(limits_.get(), kHeapLimitKib);
  }

  std::unique_ptr<pcre2_match_data, MatchDataDeleter> NewMatchData() const {
    std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(pcre2_match_data_create(1, nullptr));
    if (data == nullptr) throw std::bad_alloc();
    return data;
  }

  bool takes_plain_words() const { return takes_plain_words_; }

  // The first match that begins at or after `from`, as offsets; false when there is none.
  bool Match(std::string_view text, size_t from, pcre2_match_data* data) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (compiled_) {
      found = pcre2_jit_match(code_.get(), subject, text.size(), from, 0, data, limits_.get());
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code_.get(), subject, text.size(), from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, limits_.get());
    }
    return found >= 0;
  }

 private:
  std::unique_ptr<pcre2_code, CodeDeleter> code_;
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> limits_;
  bool compiled_ = false;
  bool takes_plain_words_ = false;
};

// One Split(): every expression has match data of its own, for they are in use at once.
class Pretokenizer::Run {
 public:
  Run(const Pretokenizer& pretokenizer, const std::function<void(std::string_view)>& word)
      : expressions_(pretokenizer.expressions_), word_(word) {
    for (const auto& expression : expressions_) data_.push_back(expression->NewMatchData());
  }

  // As deep as there are expressions.
  void Split(size_t stage, std::string_view piece) const {
    // No expression after a first one cuts a plain word: digits, punctuation and scripts are what
    // they look for.
    if (stage == expressions_.size() || (stage > 0 && PlainWordLength(piece, 0) == piece.size())) {
      word_(piece);
      return;
    }
    const Expression& expression = *expressions_[stage];
    pcre2_match_data* data = data_[stage].get();
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data);
    size_t done = 0;
    while (done < piece.size()) {
      size_t begin = done;
      size_t end = done;
      if (expression.takes_plain_words()) end += PlainWordLength(piece, done);
      if (end == done) {
        if (!expression.Match(piece, done, data)) break;
        begin = range[0];
        end = range[1];
        if (end <= begin || begin < done) break;
      }
      if (begin > done) Split(stage + 1, piece.substr(done, begin - done));
      Split(stage + 1, piece.substr(begin, end - begin));
      done = end;
    }
    if (done < piece.size()) Split(stage + 1, piece.substr(done));
  }

 private:
  std::span<const std::unique_ptr<const Expression>> expressions_;
  const std::function<void(std::string_view)>& word_;
  std::vector<std::unique_ptr<pcre2_match_data, MatchDataDeleter>> data_;
};

Pretokenizer::~Pretokenizer() = default;

std::unique_ptr<const Pretokenizer> Pretokenizer::Named(std::string_view name) {
  std::string known;
  for (const Rule& rule : kRules) {
    known.append(known.empty() ? "" : " ").append(rule.names);
    if (!HasName(rule.names, name)) continue;
    std::unique_ptr<Pretokenizer> made(new Pretokenizer());
    made->ignores_merges_ = rule.ignores_merges;
    made->adds_bos_ = rule.adds_bos;
    for (const std::string_view pattern : rule.expressions) {
      if (!pattern.empty()) made->expressions_.push_back(std::make_unique<Expression>(pattern));
    }
    return made;
  }
  throw ModelError("tokenizer.ggml.pre is '" + std::string(name.substr(0, 100)) +
                   "', expected one of: " + known);
}

void Pretokenizer::Split(std::string_view text,
                         const std::function<void(std::string_view)>& word) const {
  if (!text.empty()) Run(*this, word).Split(0, text);
}

}  // namespace engine::text
