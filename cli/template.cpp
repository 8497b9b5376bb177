#include <ctime>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/command.h"
#include "cli/model_path.h"
#include "cli/text_file.h"
#include "config/config.h"
#include "engine/text/chat_template.h"
#include "gguf/reader.h"
#include "server/api_error.h"
#include "server/json.h"

namespace cli {
namespace {

constexpr const char* kTemplateExamples =
    "The input is one JSON object: messages, and any other variable of the template\n"
    "(add_generation_prompt, tools, bos_token, ...). Prints the rendering and nothing else. When "
    "the\n"
    "template refuses the messages, its own message goes to stderr and the exit code is 1.\n"
    "\n"
    "Examples:\n"
    "  tern template --file llama3.jinja --input chat.json\n"
    "  tern template --model m.gguf --input - <<< "
    "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'";

constexpr uint32_t kMaxJsonDepth = 128;

struct TemplateFlags {
  std::string file;
  std::string model;
  std::string input;
  int64_t now = 0;
  CLI::Option* now_option = nullptr;
};

std::string SourceOf(const TemplateFlags& flags) {
  if (!flags.file.empty()) return ReadTextFile(flags.file);
  const config::Config config = config::Load({.environment = config::TernEnvironment()}).config;
  const gguf::File file = gguf::File::Open(ChooseModelPath(flags.model, config));
  return file.metadata().GetString("tokenizer.chat_template");
}

// ParseJson() speaks of a request's body.
std::string WhyNoJson(const std::string& path, std::string_view what) {
  constexpr std::string_view kOfARequest = "We could not parse the JSON body of your request: ";
  const std::string name = path == "-" ? "Standard input" : path;
  if (!what.starts_with(kOfARequest)) return name + ": " + std::string(what);
  what.remove_prefix(kOfARequest.size());
  return name + " is no JSON: " + std::string(what) + ".";
}

int RunTemplate(const TemplateFlags& flags) {
  const std::string source = SourceOf(flags);
  engine::text::Value input;
  try {
    input = server::ToValue(server::ParseJson(ReadTextFile(flags.input), kMaxJsonDepth));
  } catch (const server::ApiError& error) {
    throw std::runtime_error(WhyNoJson(flags.input, error.what()));
  }
  if (input.as_object() == nullptr) {
    throw std::runtime_error(flags.input + " must hold a JSON object of template variables.");
  }
  const int64_t now = flags.now_option->count() != 0 ? flags.now : std::time(nullptr);
  try {
    const engine::text::ChatTemplate chat_template(source);
    std::cout << chat_template.Render(*input.as_object(), now) << std::flush;
  } catch (const engine::text::TemplateError& error) {
    // The template's own words, for whoever compares them.
    std::cerr << error.what() << "\n";
    return kFailed;
  }
  return kSuccess;
}

}  // namespace

void AddTemplate(CLI::App& root, Run* run) {
  auto flags = std::make_shared<TemplateFlags>();
  CLI::App* command = root.add_subcommand("template", "Render a chat template");
  command->footer(kTemplateExamples);
  CLI::Option* file =
      command->add_option("--file", flags->file, "Jinja template")->type_name("FILE");
  command->add_option("-m,--model", flags->model, "take the template of this GGUF file")
      ->type_name("FILE")
      ->excludes(file);
  command->add_option("--input", flags->input, "JSON object of variables; - is standard input")
      ->type_name("FILE")
      ->required();
  flags->now_option =
      command->add_option("--now", flags->now, "Unix time for strftime_now (default: now)")
          ->type_name("SECONDS");
  command->callback([flags, run] { *run = [flags] { return RunTemplate(*flags); }; });
}

}  // namespace cli
