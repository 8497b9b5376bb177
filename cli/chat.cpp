#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cli/answer.h"
#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/interrupt.h"
#include "cli/local_model.h"
#include "cli/model_path.h"
#include "cli/prompt.h"
#include "cli/sampling_flags.h"
#include "engine/text/detokenizer.h"

namespace cli {
namespace {

using engine::TokenId;

constexpr const char* kChatExamples =
    "Type a message; /reset forgets the conversation, /system TEXT sets a system message, /exit "
    "ends.\n"
    "Ctrl-C stops an answer.\n"
    "\n"
    "Examples:\n"
    "  tern chat\n"
    "  tern chat --model m.gguf --system \"Answer briefly.\" --temperature 0.7 --top-p 0.9";

// Below this, no answer worth having fits behind the conversation.
constexpr uint32_t kAnswerRoom = 32;

struct ChatFlags {
  ConfigFlags config;
  std::string model;
  std::string system;
  uint32_t max_tokens = 512;
  engine::SamplingParams sampling;
};

class Conversation {
 public:
  Conversation(LocalModel& model, const ChatFlags& flags)
      : model_(model), flags_(flags), sequence_(model, 0) {
    SetSystem(flags.system);
  }

  void SetSystem(const std::string& text) {
    messages_.clear();
    if (!text.empty()) messages_.push_back({"system", text});
  }
  void Reset() { SetSystem(!messages_.empty() && IsSystem() ? messages_[0].content : ""); }

  // Streams the answer to standard output and remembers it.
  void Say(const std::string& text) {
    messages_.push_back({"user", text});
    const std::vector<TokenId> tokens = FittingPrompt();
    const size_t shared = sequence_.Truncate(static_cast<uint32_t>(SharedPrefix(tokens)));

    engine::text::Detokenizer detokenizer(model_.tokenizer(), false,
                                          model_.tokenizer().adds_space_prefix());
    std::string reply;
    const auto show = [&](const std::string& piece) {
      reply += piece;
      std::cout << piece << std::flush;
    };
    const InterruptGuard guard;
    const uint32_t room = model_.engine().context_length() - static_cast<uint32_t>(tokens.size());
    const Answer answer = Generate(model_, sequence_, std::span(tokens).subspan(shared), tokens,
                                   {.sampling = flags_.sampling,
                                    .max_tokens = std::min(room, flags_.max_tokens),
                                    .forced = {},
                                    .logprobs = -1},
                                   [&](TokenId token) {
                                     show(detokenizer.Push(token));
                                     return !Interrupted();
                                   });
    show(detokenizer.Flush());
    std::cout << std::endl;
    held_ = tokens;
    held_.insert(held_.end(), answer.tokens.begin(), answer.tokens.end());
    held_.resize(sequence_.size());
    messages_.push_back({"assistant", reply});
  }

 private:
  bool IsSystem() const { return messages_[0].role == "system"; }

  // The prompt; the oldest exchanges are forgotten when it is too long.
  std::vector<TokenId> FittingPrompt() {
    const uint32_t context = model_.engine().context_length();
    while (true) {
      std::vector<TokenId> tokens = EncodeChat(model_.model(), messages_);
      if (tokens.size() + kAnswerRoom <= context) return tokens;
      const std::ptrdiff_t first = IsSystem() ? 1 : 0;
      if (messages_.size() < static_cast<size_t>(first) + 3) {
        messages_.pop_back();
        throw std::runtime_error("The message has " + std::to_string(tokens.size()) +
                                 " tokens; the context of " + std::to_string(context) +
                                 " leaves no room for an answer.");
      }
      messages_.erase(messages_.begin() + first, messages_.begin() + first + 2);
      std::cerr << "(the oldest exchange was forgotten: the context is full)\n";
    }
  }

  // Tokens that the cache already holds; at least one is left to compute.
  size_t SharedPrefix(const std::vector<TokenId>& tokens) const {
    size_t shared = 0;
    while (shared < held_.size() && shared + 1 < tokens.size() && held_[shared] == tokens[shared]) {
      ++shared;
    }
    return shared;
  }

  LocalModel& model_;
  const ChatFlags& flags_;
  LocalSequence sequence_;
  std::vector<ChatMessage> messages_;
  std::vector<TokenId> held_;  // the tokens whose K and V are in sequence_
};

int RunChat(const ChatFlags& flags) {
  const config::Config config = flags.config.Load().config;
  LocalModel model(ChooseModelPath(flags.model, config), config);
  CheckSampling(flags.sampling, model.model().config().vocabulary);
  if (model.model().chat_template() == nullptr) {
    throw std::runtime_error("The model has no chat template; use `tern generate`.");
  }
  const uint32_t trained = model.model().config().context_length;
  model.PrepareKv(1, config.engine.context_length != 0 ? config.engine.context_length : trained);
  Conversation conversation(model, flags);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) std::cerr << model.model().config().name << ". /exit ends, /reset starts anew.\n";
  std::string line;
  while (true) {
    if (terminal) std::cerr << "> ";
    if (!std::getline(std::cin, line) || line == "/exit") return kSuccess;
    if (line.empty()) continue;
    try {
      if (line == "/reset") {
        conversation.Reset();
      } else if (line.starts_with("/system ")) {
        conversation.SetSystem(line.substr(8));
      } else if (line[0] == '/') {
        std::cerr << "Commands: /reset, /system TEXT, /exit.\n";
      } else {
        conversation.Say(line);
      }
    } catch (const std::runtime_error& error) {
      // A message that the template or the context refuses ends the message, not the conversation.
      std::cerr << "tern: " << error.what() << "\n";
      if (!terminal) return kFailed;
    }
  }
}

}  // namespace

void AddChat(CLI::App& root, Run* run) {
  auto flags = std::make_shared<ChatFlags>();
  flags->sampling.temperature = 0.7F;
  CLI::App* command = root.add_subcommand("chat", "Talk to a model on the terminal");
  command->footer(kChatExamples);
  command->add_option("-m,--model", flags->model, "GGUF file (default: the bundled model)")
      ->type_name("FILE");
  command->add_option("--system", flags->system, "system message")->type_name("TEXT");
  command->add_option("-n,--max-tokens", flags->max_tokens, "most tokens of one answer")
      ->type_name("N")
      ->check(CLI::Range(1U, std::numeric_limits<uint32_t>::max()))
      ->capture_default_str();
  AddSamplingFlags(*command, &flags->sampling);
  flags->config.AddTo(*command, {"engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunChat(*flags); }; });
}

}  // namespace cli
