#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/text/value.h"

namespace engine::text {

// A template that does not parse, raises, or exceeds a limit. what() is the template's own message
// when it called raise_exception (raised() is true), else a sentence with the line.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& message, bool raised = false)
      : std::runtime_error(message), raised_(raised) {}
  bool raised() const { return raised_; }

 private:
  bool raised_;
};

// Bounds on one rendering; a template in a model file is untrusted.
struct TemplateLimits {
  size_t source_bytes = 1 << 20;
  uint32_t nesting = 100;          // of blocks and expressions, and of macro calls
  uint64_t steps = 2'000'000;      // statements and expression nodes evaluated
  size_t output_bytes = 16 << 20;  // of the text and of any one string made on the way
  uint32_t milliseconds = 2000;    // wall time
};

// A compiled Jinja template, rendered as transformers' apply_chat_template does: trim_blocks,
// lstrip_blocks, loop controls, tojson without key sorting or escaping, raise_exception,
// strftime_now.
//
// Threads: immutable; Render() from any thread.
// Errors:  TemplateError.
class ChatTemplate {
 public:
  explicit ChatTemplate(std::string source, const TemplateLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // variables: messages, add_generation_prompt, bos_token, eos_token, tools and whatever else the
  // request adds. now_seconds: Unix time for strftime_now, rendered in UTC.
  std::string Render(const Object& variables, int64_t now_seconds) const;

  const std::string& source() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace engine::text
