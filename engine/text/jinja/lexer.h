#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace engine::text::jinja {

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,   // text holds the decoded value
  kInteger,  // text holds the literal without underscores
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  uint32_t line = 1;
  std::string text;
};

// Splits a template as Jinja's lexer does with trim_blocks and lstrip_blocks: the newline after a
// block tag and the blanks before one are removed, `-` strips all white space, `+` keeps it, and
// one newline at the end of the source is dropped. Comments and raw markers are gone.
//
// Errors: TemplateError with the line.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace engine::text::jinja
