#include "server/generation_job.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <utility>

#include "engine/text/detokenizer.h"
#include "server/admission.h"
#include "server/answer_grammar.h"
#include "server/api_error.h"
#include "server/chat_syntax.h"
#include "server/infill.h"
#include "server/structured_output.h"
#include "server/tool_prompt.h"
#include "server/tool_request.h"

namespace server {
namespace {

using engine::TokenId;
using engine::text::Object;
using engine::text::Tokenizer;
using engine::text::Value;

constexpr uint32_t kMaxChoicesOfRequest = 512;
// To find which of many schemas is at fault.
constexpr std::chrono::seconds kSchemaTime{2};

int64_t RandomSeed() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return static_cast<int64_t>(random() >> 1);
}

std::string SpecialText(const Tokenizer& tokenizer, std::optional<TokenId> token) {
  return token ? tokenizer.TokenBytes(*token, true) : std::string();
}

// Where the final message's content ends in the rendered text, so that the answer continues it.
std::string CutAfterFinalMessage(std::string rendered, const ChatPrompt& prompt) {
  const Object* message = prompt.messages.back().as_object();
  const Value* content = message == nullptr ? nullptr : message->Find("content");
  const std::string* text = content == nullptr ? nullptr : content->as_string();
  const std::string trimmed = [&] {
    if (text == nullptr) return std::string();
    const size_t begin = text->find_first_not_of(" \t\r\n");
    if (begin == std::string::npos) return std::string();
    return text->substr(begin, text->find_last_not_of(" \t\r\n") - begin + 1);
  }();
  const size_t found = trimmed.empty() ? std::string::npos : rendered.rfind(trimmed);
  if (found == std::string::npos) {
    throw InvalidValue("continue_final_message",
                       "'continue_final_message' needs a final message whose text the chat "
                       "template shows as it is.");
  }
  rendered.resize(found + trimmed.size());
  return rendered;
}

// Every token whose text contains one of the strings, ascending.
std::vector<TokenId> TokensWith(const std::vector<std::string>& strings,
                                const Tokenizer& tokenizer) {
  std::vector<TokenId> tokens;
  for (uint32_t i = 0; i < tokenizer.size(); ++i) {
    const auto token = static_cast<TokenId>(i);
    const std::string bytes = tokenizer.TokenBytes(token, true);
    const auto contained = [&](const std::string& text) {
      return bytes.find(text) != std::string::npos;
    };
    if (std::any_of(strings.begin(), strings.end(), contained)) tokens.push_back(token);
  }
  return tokens;
}

void CheckAgainstModel(GenerationJob& job, std::string_view prompt_param) {
  const ServedModel& model = *job.model;
  std::string param;
  if (const std::string problem = job.params.sampling.Validate(model.tokenizer().size(), &param);
      !problem.empty()) {
    throw InvalidValue(param, problem);
  }
  CheckTokens(job.params.stop_token_ids, model, "stop_token_ids");
  for (const std::vector<TokenId>& prompt : job.prompts) {
    CheckTokens(prompt, model, prompt_param);
    if (prompt.empty()) {
      throw InvalidValue(prompt_param, "Invalid value for '" + std::string(prompt_param) +
                                           "': the prompt has no tokens.");
    }
    if (prompt.size() + 1 > model.context_length()) {
      throw ContextLengthExceeded(prompt_param, prompt.size(), model.context_length());
    }
  }
  if (job.choice_count() > kMaxChoicesOfRequest) {
    throw InvalidValue("n", "Invalid value for 'n': a request may have at most " +
                                std::to_string(kMaxChoicesOfRequest) +
                                " choices over all prompts.");
  }
  job.adapters = ResolveAdapters(job.params.lora, model.adapters());
  if (job.params.sampling.dry_multiplier > 0) {
    job.params.sampling.dry_breakers = TokensWith(job.params.dry_breakers, model.tokenizer());
  }
  if (!job.params.sampling.seed) job.params.sampling.seed = RandomSeed();
}

void CompileGrammar(GenerationJob* job) {
  if (!job->params.grammar) return;
  ServedModel& model = *job->model;
  job->grammar = model.grammars().Get(*job->params.grammar, model.tokenizer());
}

// A parameter turns out to have no effect with this model.
void Ignore(const std::string& name, GenerationJob* job) {
  if (job->params.strict) {
    throw UnsupportedParameter(name, "Unsupported parameter: '" + name +
                                         "' has no effect on the model '" + job->model->name() +
                                         "'.");
  }
  job->params.ignored.push_back(name);
}

void IgnoreWhatTheTemplateLacks(const ChatPrompt& prompt, GenerationJob* job) {
  const TemplateSupport& shows = job->model->syntax().shows;
  const bool effort =
      shows.reasoning_effort || (shows.enable_thinking && prompt.reasoning_effort == "none");
  if (!prompt.reasoning_effort.empty() && !effort) Ignore("reasoning_effort", job);
  if (prompt.enable_thinking.value_or(false) && !shows.enable_thinking) {
    Ignore("enable_thinking", job);
  }
}

// Arguments that are promised must have names that the model's calls can have.
void CheckArgumentNames(const AnswerSyntax& syntax) {
  if (syntax.tools == nullptr) return;
  for (const ToolFunction& function : syntax.tools->functions) {
    const bool promised = function.allowed && (function.strict || syntax.tools->required());
    const std::string* name = promised ? UnwritableArgument(syntax.format, function) : nullptr;
    if (name == nullptr) continue;
    const std::string param = function.param + ".parameters";
    throw InvalidValue(param, "Invalid value for '" + param +
                                  "': this model writes calls in the '" +
                                  std::string(ToolFormatName(syntax.format)) +
                                  "' format, in which no argument can be named '" + *name + "'.");
  }
}

// The grammar of the whole answer. Where it cannot be compiled because of the schema of a function
// that is not strict, any object will do for that function.
void CompileAnswerGrammar(GenerationJob* job) {
  CheckArgumentNames(job->syntax);
  const std::shared_ptr<const GrammarRequest> content = job->params.grammar;
  job->params.grammar = MakeAnswerGrammar(job->syntax, content, {});
  try {
    return CompileGrammar(job);
  } catch (const ApiError&) {
    if (job->params.grammar == content || job->syntax.tools == nullptr) throw;
  }
  std::vector<bool> loose;
  const bool required = job->syntax.tools->required();
  const Clock::time_point begin = Clock::now();
  for (const ToolFunction& function : job->syntax.tools->functions) {
    const bool used = function.allowed && (function.strict || required);
    const std::string problem = used ? SchemaProblem(function) : std::string();
    const std::string param = function.param + ".parameters";
    if (Clock::now() - begin > kSchemaTime) {
      throw InvalidValue("tools", "The schemas of the 'tools' take too long to compile.");
    }
    if (!problem.empty() && function.strict) {
      throw InvalidValue(param, "Invalid value for '" + param + "'. " + problem);
    }
    loose.push_back(!problem.empty());
    if (!problem.empty()) Ignore(param, job);
  }
  job->params.grammar = MakeAnswerGrammar(job->syntax, content, loose);
  CompileGrammar(job);
}

bool EndsWithWord(std::string_view text, std::string_view word) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return !word.empty() && last != std::string_view::npos &&
         text.substr(0, last + 1).ends_with(word);
}

AnswerSyntax MakeAnswerSyntax(const ChatRequest& request, const ChatSyntax& model,
                              const std::string& rendered) {
  AnswerSyntax syntax;
  syntax.format = model.tool_format;
  syntax.markers = model.reasoning;
  syntax.call_open = model.call_open;
  syntax.call_close = model.call_close;
  syntax.one_call = model.shows.one_call;
  syntax.reasoning_as_content = request.reasoning == ReasoningPlace::kContent;
  syntax.hides_reasoning = request.reasoning == ReasoningPlace::kNowhere;
  const ChatPrompt& prompt = request.prompt;
  if (prompt.tools != nullptr && prompt.tools->offered()) syntax.tools = prompt.tools;
  if (!syntax.markers.empty()) {
    using Reasoning = AnswerSyntax::Reasoning;
    syntax.reasoning = Reasoning::kPossible;
    if (EndsWithWord(rendered, syntax.markers.open)) syntax.reasoning = Reasoning::kOpen;
    if (EndsWithWord(rendered, syntax.markers.close)) syntax.reasoning = Reasoning::kNone;
    if (prompt.continue_final_message) {
      // The answer goes on where the given words end.
      const size_t open = rendered.rfind(syntax.markers.open);
      const size_t close = rendered.rfind(syntax.markers.close);
      const bool inside = open != std::string::npos && (close == std::string::npos || close < open);
      syntax.reasoning = inside ? Reasoning::kOpen : Reasoning::kNone;
    }
  }
  const bool reads = syntax.tools != nullptr || syntax.reasoning != AnswerSyntax::Reasoning::kNone;
  if (reads) syntax.marker_tokens = model.marker_tokens;
  return syntax;
}

// The template's variables but for the conversation.
Object VariablesOf(const ChatPrompt& prompt, const ChatSyntax& syntax) {
  Object variables = prompt.template_variables;
  const auto set = [&variables](const char* name, Value value) {
    if (variables.Find(name) == nullptr) variables.Set(name, std::move(value));
  };
  if (syntax.shows.enable_thinking) {
    if (prompt.enable_thinking) set("enable_thinking", Value(*prompt.enable_thinking));
    if (prompt.reasoning_effort == "none") set("enable_thinking", Value(false));
  }
  if (syntax.shows.reasoning_effort && !prompt.reasoning_effort.empty()) {
    set("reasoning_effort", Value(prompt.reasoning_effort));
  }
  return variables;
}

}  // namespace

void CheckFits(std::string_view text, const ServedModel& model, std::string_view param) {
  const uint64_t least = model.tokenizer().LeastTokens(text.size());
  if (least < model.context_length()) return;
  throw ContextLengthExceeded(param, least, model.context_length(), true);
}

void CheckTokens(std::span<const TokenId> tokens, const ServedModel& model, std::string_view name) {
  const uint32_t vocabulary = model.tokenizer().size();
  const auto bad = std::find_if(tokens.begin(), tokens.end(), [&](TokenId token) {
    return static_cast<uint32_t>(token) >= vocabulary;
  });
  if (bad == tokens.end()) return;
  throw InvalidValue(name, "Invalid value for '" + std::string(name) + "': token id " +
                               std::to_string(*bad) + " is outside the vocabulary of " +
                               std::to_string(vocabulary) + ".");
}

std::string RenderChat(const ChatPrompt& prompt, const ServedModel& model) {
  const engine::text::ChatTemplate* chat_template = model.chat_template();
  if (chat_template == nullptr) {
    throw InvalidValue(
        "messages", "The model '" + model.name() + "' has no chat template; use /v1/completions.");
  }
  Object variables = VariablesOf(prompt, model.syntax());
  SetConversation(prompt, *chat_template, model.syntax(), &variables);
  variables.Set("add_generation_prompt", Value(prompt.add_generation_prompt));
  variables.Set("bos_token", Value(SpecialText(model.tokenizer(), model.tokenizer().bos())));
  variables.Set("eos_token", Value(SpecialText(model.tokenizer(), model.tokenizer().eos())));
  std::string rendered;
  try {
    rendered = chat_template->Render(variables, std::time(nullptr));
  } catch (const engine::text::TemplateError& error) {
    throw InvalidValue("messages", error.raised()
                                       ? error.what()
                                       : std::string("The chat template failed: ") + error.what());
  }
  return prompt.continue_final_message ? CutAfterFinalMessage(std::move(rendered), prompt)
                                       : rendered;
}

std::vector<TokenId> EncodeChat(const std::string& rendered, const Tokenizer& tokenizer) {
  std::vector<TokenId> tokens =
      tokenizer.Encode(rendered, {.add_special = false, .parse_special = true});
  const bool lacks_bos = tokenizer.adds_bos() && tokenizer.bos() &&
                         (tokens.empty() || tokens.front() != *tokenizer.bos());
  if (lacks_bos) tokens.insert(tokens.begin(), *tokenizer.bos());
  return tokens;
}

GenerationJob PrepareChat(const ChatRequest& request, std::shared_ptr<ServedModel> model) {
  GenerationJob job;
  job.kind = ApiKind::kChat;
  job.model = std::move(model);
  job.params = request.params;
  const std::string rendered = RenderChat(request.prompt, *job.model);
  CheckFits(rendered, *job.model, "messages");
  job.syntax = MakeAnswerSyntax(request, job.model->syntax(), rendered);
  IgnoreWhatTheTemplateLacks(request.prompt, &job);
  job.prompts.push_back(EncodeChat(rendered, job.model->tokenizer()));
  CheckAgainstModel(job, "messages");
  CompileAnswerGrammar(&job);
  return job;
}

void CompleteJob(GenerationJob* job, std::string_view prompt_param) {
  CheckAgainstModel(*job, prompt_param);
  CompileGrammar(job);
}

GenerationJob PrepareCompletion(const CompletionRequest& request,
                                std::shared_ptr<ServedModel> model) {
  GenerationJob job;
  job.kind = ApiKind::kText;
  job.model = std::move(model);
  job.params = request.params;
  const Tokenizer& tokenizer = job.model->tokenizer();
  for (const CompletionPrompt& prompt : request.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    if (text != nullptr) CheckFits(*text, *job.model, "prompt");
    if (request.suffix) {
      if (text == nullptr) throw InvalidValue("suffix", "'suffix' needs prompts that are text.");
      CheckFits(*request.suffix, *job.model, "suffix");
      job.prompts.push_back(
          EncodeInfill({.prefix = *text, .suffix = *request.suffix}, *job.model, "suffix"));
    } else if (text != nullptr) {
      job.prompts.push_back(tokenizer.Encode(
          *text, {.add_special = request.add_special_tokens, .parse_special = true}));
      if (request.echo) job.echo_texts.push_back(*text);
    } else {
      job.prompts.push_back(std::get<std::vector<TokenId>>(prompt));
    }
  }
  CompleteJob(&job, "prompt");
  if (request.echo && job.echo_texts.empty()) {
    for (const std::vector<TokenId>& tokens : job.prompts) {
      job.echo_texts.push_back(engine::text::SanitizeUtf8(tokenizer.Decode(tokens, true)));
    }
  }
  job.score_only = request.echo && job.params.max_tokens == 0U;
  if (job.score_only) job.params.max_tokens = 1;
  return job;
}

}  // namespace server
