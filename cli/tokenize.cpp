#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/model_path.h"
#include "cli/text_file.h"
#include "config/config.h"
#include "engine/text/tokenizer.h"
#include "gguf/reader.h"

namespace cli {
namespace {

constexpr const char* kTokenizeExamples =
    "Works on vocabulary-only files too, of any architecture.\n"
    "\n"
    "Examples:\n"
    "  tern tokenize --text \"Hello world\"\n"
    "  tern tokenize --model vocab.gguf --cases vocab.inp     one line of ids per case; cases end\n"
    "                                                         with a line __ggml_vocab_test__\n"
    "  echo -n Hello | tern tokenize --file -";

constexpr std::string_view kCaseEnd = "\n__ggml_vocab_test__\n";

struct TokenizeFlags {
  std::string model;
  std::string text;
  std::string file;
  std::string cases;
  CLI::Option* text_option = nullptr;
  CLI::Option* file_option = nullptr;
  CLI::Option* cases_option = nullptr;
  bool add_special = false;
  bool parse_special = false;
};

std::vector<std::string> CasesOf(const std::string& text) {
  std::vector<std::string> cases;
  size_t begin = 0;
  for (size_t end; (end = text.find(kCaseEnd, begin)) != std::string::npos;) {
    cases.push_back(text.substr(begin, end - begin));
    begin = end + kCaseEnd.size();
  }
  if (begin < text.size()) {
    throw std::runtime_error(
        "The cases do not end with a line \"__ggml_vocab_test__\", which ends every case.");
  }
  return cases;
}

std::vector<std::string> TextsOf(const TokenizeFlags& flags) {
  if (flags.text_option->count() != 0) return {flags.text};
  if (flags.file_option->count() != 0) return {ReadTextFile(flags.file)};
  if (flags.cases_option->count() != 0) return CasesOf(ReadTextFile(flags.cases));
  throw UsageError("Give --text TEXT, --file FILE or --cases FILE.");
}

int RunTokenize(const TokenizeFlags& flags) {
  const std::vector<std::string> texts = TextsOf(flags);
  const config::Config config = config::Load({.environment = config::TernEnvironment()}).config;
  const gguf::File file = gguf::File::Open(ChooseModelPath(flags.model, config));
  const auto tokenizer = engine::text::Tokenizer::FromMetadata(file.metadata());
  for (const std::string& text : texts) {
    std::string line;
    for (const engine::TokenId token : tokenizer->Encode(
             text, {.add_special = flags.add_special, .parse_special = flags.parse_special})) {
      if (!line.empty()) line += ' ';
      line += std::to_string(token);
    }
    std::cout << line << "\n";
  }
  std::cout.flush();
  return kSuccess;
}

}  // namespace

void AddTokenize(CLI::App& root, Run* run) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = root.add_subcommand("tokenize", "Token ids of texts");
  command->footer(kTokenizeExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  flags->text_option = command->add_option("--text", flags->text, "text to encode");
  flags->file_option = command->add_option("--file", flags->file, "file to encode; - is stdin")
                           ->excludes(flags->text_option);
  flags->cases_option = command->add_option("--cases", flags->cases, "file of test cases")
                            ->excludes(flags->text_option)
                            ->excludes(flags->file_option);
  command->add_flag("--add-special", flags->add_special, "add BOS and EOS as the model wants");
  command->add_flag("--parse-special", flags->parse_special,
                    "read control tokens that are written in the text");
  command->callback([flags, run] { *run = [flags] { return RunTokenize(*flags); }; });
}

}  // namespace cli
