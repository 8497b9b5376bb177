#include "server/infill.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "server/api_error.h"

namespace server {
namespace {

using engine::TokenId;
using engine::text::FimTokens;
using scheduler::FinishReason;
using Tokens = std::vector<TokenId>;

void Append(const Tokens& tokens, Tokens* out) {
  out->insert(out->end(), tokens.begin(), tokens.end());
}

Tokens Plain(std::string_view text, const ServedModel& model) {
  return model.tokenizer().Encode(text, {.add_special = false, .parse_special = false});
}

// The other files in the form of models that know whole repositories; the file to fill in comes
// last and has no name of its own. Without tokens for that: one text after the other.
Tokens EncodeFiles(const std::vector<InfillFile>& files, const ServedModel& model) {
  Tokens tokens;
  if (files.empty()) return tokens;
  const FimTokens& fim = model.tokenizer().fim();
  if (fim.repository) {
    tokens.push_back(*fim.repository);
    Append(Plain("project\n", model), &tokens);
  }
  for (const InfillFile& file : files) {
    if (fim.file) {
      tokens.push_back(*fim.file);
      Append(Plain(file.name + "\n" + file.text, model), &tokens);
    } else {
      Append(Plain(file.text + "\n\n", model), &tokens);
    }
  }
  if (fim.file) {
    tokens.push_back(*fim.file);
    Append(Plain("file\n", model), &tokens);
  }
  return tokens;
}

double Milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

Json RateJson(const char* name, uint64_t tokens, double milliseconds) {
  const std::string prefix(name);
  return {{prefix + "_n", tokens},
          {prefix + "_ms", milliseconds},
          {prefix + "_per_second",
           milliseconds > 0 ? static_cast<double>(tokens) * 1000 / milliseconds : 0.0}};
}

class InfillWriter : public AnswerWriter {
 public:
  explicit InfillWriter(const InfillJob& infill)
      : model_(infill.job.model->name()),
        truncated_(infill.truncated),
        prompt_tokens_(infill.job.prompts.front().size()),
        arrival_(infill.job.arrival) {}

  void Write(const Generation::Update& update) override {
    if (!first_) first_ = Clock::now();
    text_ += update.delta.text;
    if (!update.delta.text.empty()) sse_.Data(Dump(Piece(update.delta.text)));
    if (!update.finish) return;
    reason_ = *update.finish;
    stop_string_ = update.stop_string;
  }
  void End(const Usage& usage) override { sse_.Data(Dump(Last("", usage))); }
  void Fail(const ApiError& error) override { sse_.Data(ErrorBody(error)); }
  Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
             const std::vector<const EchoedPrompt*>&) override {
    reason_ = choices.front().reason;
    stop_string_ = choices.front().stop_string;
    text_ = choices.front().text;
    return Last(text_, usage);
  }

 private:
  Json Piece(const std::string& content) const {
    return {{"index", 0},
            {"content", content},
            {"tokens", Json::array()},
            {"stop", false},
            {"id_slot", -1},
            {"tokens_predicted", 0},
            {"tokens_evaluated", prompt_tokens_}};
  }

  std::string_view StopType() const {
    if (!stop_string_.empty()) return "word";
    return reason_ == FinishReason::kLength ? "limit" : "eos";
  }

  Json Last(const std::string& content, const Usage& usage) const {
    const auto now = Clock::now();
    const auto first = first_.value_or(now);
    Json json = Piece(content);
    json["stop"] = true;
    json["model"] = model_;
    json["tokens_predicted"] = usage.completion_tokens;
    json["tokens_cached"] = usage.cached_tokens;
    json["has_new_line"] = text_.find('\n') != std::string::npos;
    json["truncated"] = truncated_;
    json["stop_type"] = StopType();
    json["stopping_word"] = stop_string_;
    json["timings"] = RateJson("prompt", usage.prompt_tokens - usage.cached_tokens,
                               Milliseconds(arrival_, first));
    json["timings"].update(
        RateJson("predicted", usage.completion_tokens, Milliseconds(first, now)));
    return json;
  }

  std::string model_;
  bool truncated_;
  uint64_t prompt_tokens_;
  Clock::time_point arrival_;
  std::optional<Clock::time_point> first_;  // when the first token came
  std::string text_;
  FinishReason reason_ = FinishReason::kStop;
  std::string stop_string_;
};

}  // namespace

std::vector<TokenId> EncodeInfill(const InfillPrompt& prompt, const ServedModel& model,
                                  std::string_view param) {
  const FimTokens& fim = model.tokenizer().fim();
  if (!fim.complete()) {
    throw UnsupportedParameter(param, "The model '" + model.name() +
                                          "' has no fill-in-the-middle tokens in its vocabulary.");
  }
  Tokens tokens = {*fim.prefix};
  Append(Plain(prompt.prefix, model), &tokens);
  tokens.push_back(*fim.suffix);
  Append(Plain(prompt.suffix, model), &tokens);
  tokens.push_back(*fim.middle);
  Append(Plain(prompt.middle, model), &tokens);
  const auto& tokenizer = model.tokenizer();
  if (tokenizer.adds_bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
  return tokens;
}

InfillJob PrepareInfill(const InfillRequest& request, std::shared_ptr<ServedModel> model) {
  InfillJob infill;
  GenerationJob& job = infill.job;
  job.kind = ApiKind::kText;
  job.model = std::move(model);
  job.params = request.params;
  job.score_only = request.prompt_only;
  CheckFits(request.prefix, *job.model, "input_prefix");
  CheckFits(request.suffix, *job.model, "input_suffix");
  CheckFits(request.prompt, *job.model, "prompt");
  Tokens prompt =
      EncodeInfill({.prefix = request.prefix, .suffix = request.suffix, .middle = request.prompt},
                   *job.model, "input_prefix");

  // What the other files may take: they are help, and what is generated comes first.
  const uint64_t needed = prompt.size() + request.params.max_tokens.value_or(1);
  const uint64_t context = job.model->context_length();
  Tokens files = EncodeFiles(request.extra, *job.model);
  const uint64_t room = context > needed ? context - needed : 0;
  infill.truncated = files.size() > room;
  if (infill.truncated) files.erase(files.begin(), files.end() - static_cast<ptrdiff_t>(room));
  const bool bos = job.model->tokenizer().adds_bos();
  prompt.insert(prompt.begin() + (bos ? 1 : 0), files.begin(), files.end());
  job.prompts.push_back(std::move(prompt));

  // A model that goes on with another file has filled in what it was asked for.
  const FimTokens& fim = job.model->tokenizer().fim();
  for (const auto& token : {fim.pad, fim.repository, fim.file}) {
    if (token) job.params.stop_token_ids.push_back(*token);
  }
  CompleteJob(&job, "input_prefix");
  return infill;
}

std::unique_ptr<AnswerWriter> MakeInfillWriter(const InfillJob& infill) {
  return std::make_unique<InfillWriter>(infill);
}

}  // namespace server
