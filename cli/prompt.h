#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model.h"
#include "engine/token.h"

namespace cli {

// "1,2,3" -> {1, 2, 3}. Errors: UsageError naming `flag` when it is no list of token ids below
// `vocabulary`.
std::vector<engine::TokenId> ParseTokenList(std::string_view flag, const std::string& text,
                                            uint32_t vocabulary);

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// The tokens of a conversation with the model's chat template, ready for the assistant's answer.
// Errors: engine::text::TemplateError; std::runtime_error for a model without a template.
std::vector<engine::TokenId> EncodeChat(const engine::Model& model,
                                        const std::vector<ChatMessage>& messages);

}  // namespace cli
