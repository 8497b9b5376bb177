#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/answer.h"
#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/prompt.h"
#include "cli/sampling_flags.h"
#include "engine/text/detokenizer.h"
#include "server/json.h"

namespace cli {
namespace {

using engine::TokenId;
using server::Json;

constexpr const char* kGenerateExamples =
    "Examples:\n"
    "  tern generate --prompt \"Once upon a time\" --max-tokens 64\n"
    "  tern generate --chat --prompt \"Do you like movies?\" --temperature 0\n"
    "  tern generate --model m.gguf --prompt Hello --temperature 0 --logprobs 5 --json\n"
    "  tern generate --model m.gguf --prompt-tokens 1,296,295 --force-tokens 327,376 --logprobs "
    "20\n"
    "                --json                     log-probabilities along a given continuation";

struct GenerateFlags {
  ConfigFlags config;
  std::string model;
  std::string prompt;
  std::string prompt_tokens;
  std::string force_tokens;
  std::string system;
  uint32_t max_tokens = 256;
  int logprobs = -1;
  bool chat = false;
  bool json = false;
  engine::SamplingParams sampling;
  CLI::Option* prompt_option = nullptr;
};

std::vector<TokenId> PromptOf(const GenerateFlags& flags, const engine::Model& model) {
  if (!flags.prompt_tokens.empty()) {
    return ParseTokenList("--prompt-tokens", flags.prompt_tokens, model.config().vocabulary);
  }
  if (!flags.chat) {
    return model.tokenizer().Encode(flags.prompt, {.add_special = true, .parse_special = false});
  }
  std::vector<ChatMessage> messages;
  if (!flags.system.empty()) messages.push_back({"system", flags.system});
  messages.push_back({"user", flags.prompt});
  return EncodeChat(model, messages);
}

// Room for the prompt and `wanted` more tokens, limited by the model's context.
uint32_t ContextFor(size_t prompt, size_t wanted, uint32_t limit) {
  if (prompt == 0) throw UsageError("The prompt has no tokens.");
  if (prompt >= limit) {
    throw UsageError("The prompt has " + std::to_string(prompt) +
                     " tokens, but the context length is " + std::to_string(limit) + ".");
  }
  return static_cast<uint32_t>(std::min<size_t>(prompt + std::max<size_t>(wanted, 1), limit));
}

Json LogprobsJson(const Answer& answer) {
  Json list = Json::array();
  for (const AnswerLogprob& entry : answer.logprobs) {
    Json top = Json::array();
    for (const engine::TokenLogprob& best : entry.top) {
      top.push_back({{"token", best.token}, {"logprob", best.logprob}});
    }
    list.push_back(
        {{"token", entry.taken.token}, {"logprob", entry.taken.logprob}, {"top", std::move(top)}});
  }
  return list;
}

Json TimingsJson(const Answer& answer, size_t prompt, double load_seconds) {
  // The first token comes out of the prompt's step; only the others are generation.
  const double decoded =
      answer.tokens.empty() ? 0.0 : static_cast<double>(answer.tokens.size() - 1);
  return {{"load_seconds", load_seconds},
          {"prompt_seconds", answer.prompt_seconds},
          {"prompt_tokens_per_second", static_cast<double>(prompt) / answer.prompt_seconds},
          {"generation_seconds", answer.generation_seconds},
          {"generation_tokens_per_second",
           answer.generation_seconds > 0 ? decoded / answer.generation_seconds : 0.0}};
}

int RunGenerate(const GenerateFlags& flags) {
  if (flags.prompt_option->count() == 0 && flags.prompt_tokens.empty()) {
    throw UsageError("Give --prompt TEXT or --prompt-tokens IDS.");
  }
  const config::Config config = flags.config.Load().config;
  LocalModel model(ChooseModelPath(flags.model, config), config);
  const engine::ModelConfig& shape = model.model().config();
  CheckSampling(flags.sampling, shape.vocabulary);
  const std::vector<TokenId> prompt = PromptOf(flags, model.model());
  const std::vector<TokenId> forced =
      ParseTokenList("--force-tokens", flags.force_tokens, shape.vocabulary);
  const uint32_t limit =
      config.engine.context_length != 0 ? config.engine.context_length : shape.context_length;
  const size_t wanted = forced.empty() ? flags.max_tokens : forced.size();
  const uint32_t context = ContextFor(prompt.size(), wanted, limit);
  if (!forced.empty() && prompt.size() + forced.size() > context) {
    throw UsageError("Prompt and forced tokens do not fit the context of " + std::to_string(limit) +
                     " tokens.");
  }
  model.PrepareKv(1, context);
  LocalSequence sequence(model, 0);

  const bool drop_space = flags.chat && model.tokenizer().adds_space_prefix();
  engine::text::Detokenizer detokenizer(model.tokenizer(), false, drop_space);
  std::string text;
  const OnToken on_token = [&](TokenId token) {
    const std::string piece = detokenizer.Push(token);
    text += piece;
    if (!flags.json) std::cout << piece << std::flush;
    return true;
  };
  AnswerRequest request{.sampling = flags.sampling,
                        .max_tokens = static_cast<uint32_t>(context - prompt.size()),
                        .forced = forced,
                        .logprobs = flags.logprobs};
  request.max_tokens = std::min(request.max_tokens, flags.max_tokens);
  const Answer answer = Generate(model, sequence, prompt, prompt, request, on_token);
  const std::string rest = detokenizer.Flush();
  text += rest;
  if (!flags.json) {
    std::cout << rest << std::endl;
    return kSuccess;
  }
  Json result = {{"prompt_tokens", prompt},
                 {"tokens", answer.tokens},
                 {"text", text},
                 {"finish_reason", answer.finish_reason}};
  if (flags.logprobs >= 0) result["logprobs"] = LogprobsJson(answer);
  result["timings"] = TimingsJson(answer, prompt.size(), model.model().load_report().seconds);
  std::cout << server::Dump(result) << std::endl;
  return kSuccess;
}

}  // namespace

void AddGenerate(CLI::App& root, Run* run) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = root.add_subcommand("generate", "Continue one prompt on the terminal");
  command->footer(kGenerateExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  flags->prompt_option =
      command->add_option("-p,--prompt", flags->prompt, "text to continue; BOS is added")
          ->type_name("TEXT");
  command
      ->add_option("--prompt-tokens", flags->prompt_tokens, "token ids to continue, nothing added")
      ->type_name("IDS")
      ->excludes(flags->prompt_option);
  command
      ->add_option("--force-tokens", flags->force_tokens,
                   "take these tokens instead of sampling (teacher forcing)")
      ->type_name("IDS");
  CLI::Option* chat = command->add_flag("--chat", flags->chat,
                                        "the prompt is a user's message in the chat template");
  command->add_option("--system", flags->system, "system message, with --chat")
      ->type_name("TEXT")
      ->needs(chat);
  command->add_option("-n,--max-tokens", flags->max_tokens, "most tokens to generate")
      ->type_name("N")
      ->check(CLI::Range(1U, std::numeric_limits<uint32_t>::max()))
      ->capture_default_str();
  CLI::Option* json =
      command->add_flag("--json", flags->json, "one JSON object instead of streamed text");
  command
      ->add_option("--logprobs", flags->logprobs,
                   "report log-probabilities of the tokens and of the K best, with --json")
      ->type_name("K")
      ->check(CLI::Range(0, 1000))
      ->needs(json);
  AddSamplingFlags(*command, &flags->sampling);
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunGenerate(*flags); }; });
}

}  // namespace cli
