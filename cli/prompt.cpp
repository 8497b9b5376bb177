#include "cli/prompt.h"

#include <charconv>
#include <ctime>
#include <stdexcept>

#include "cli/command.h"

namespace cli {

using engine::TokenId;
using engine::text::Tokenizer;

std::vector<TokenId> ParseTokenList(std::string_view flag, const std::string& text,
                                    uint32_t vocabulary) {
  std::vector<TokenId> tokens;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    uint32_t token = 0;
    const auto [stop, error] = std::from_chars(at, end, token);
    const bool separated = stop == end || (*stop == ',' && stop + 1 != end);
    if (error != std::errc() || !separated || token >= vocabulary) {
      throw UsageError(std::string(flag) + " must be token ids from 0 to " +
                       std::to_string(vocabulary - 1) + " with commas between them, not \"" + text +
                       "\".");
    }
    tokens.push_back(static_cast<TokenId>(token));
    at = stop == end ? end : stop + 1;
  }
  return tokens;
}

std::vector<TokenId> EncodeChat(const engine::Model& model,
                                const std::vector<ChatMessage>& messages) {
  if (model.chat_template() == nullptr) {
    throw std::runtime_error("The model has no chat template; use `tern generate` without --chat.");
  }
  const Tokenizer& tokenizer = model.tokenizer();
  engine::text::Array list;
  for (const ChatMessage& message : messages) {
    engine::text::Object object;
    object.Set("role", message.role);
    object.Set("content", message.content);
    list.emplace_back(std::move(object));
  }
  engine::text::Object variables;
  variables.Set("messages", std::move(list));
  variables.Set("add_generation_prompt", true);
  variables.Set("bos_token", tokenizer.bos() ? tokenizer.piece(*tokenizer.bos()) : std::string());
  variables.Set("eos_token", tokenizer.eos() ? tokenizer.piece(*tokenizer.eos()) : std::string());
  const std::string text = model.chat_template()->Render(variables, std::time(nullptr));

  std::vector<TokenId> tokens =
      tokenizer.Encode(text, {.add_special = false, .parse_special = true});
  // Templates usually write BOS themselves; a model that wants one gets exactly one.
  const bool begins_with_bos = !tokens.empty() && tokenizer.bos() == tokens.front();
  if (tokenizer.adds_bos() && tokenizer.bos() && !begins_with_bos) {
    tokens.insert(tokens.begin(), *tokenizer.bos());
  }
  return tokens;
}

}  // namespace cli
