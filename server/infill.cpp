#include "server/infill.h"

#include <nlohmann/json.hpp>
#include <ranges>

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

// The end of a text of which no more than `room` tokens are wanted: tokenizing the rest of a long
// one would take seconds for nothing.
std::string_view EndOf(std::string_view text, uint64_t room, const ServedModel& model) {
  while (model.tokenizer().LeastTokens(text.size()) > room) text.remove_prefix(text.size() / 8 + 1);
  return text;
}

Tokens EncodeFile(const InfillFile& file, uint64_t room, const ServedModel& model) {
  const FimTokens& fim = model.tokenizer().fim();
  const std::string text(EndOf(file.text, room, model));
  if (!fim.file) return Plain(text + "\n\n", model);
  Tokens tokens = {*fim.file};
  Append(Plain(file.name + "\n" + text, model), &tokens);
  return tokens;
}

struct EncodedFiles {
  Tokens tokens;
  bool truncated = false;  // the beginning did not fit
};

// The other files in the form of models that know whole repositories; the file to fill in comes
// last and has no name of its own. Without tokens for that: one text after the other. The last
// `room` tokens of it, made from the end so that what cannot fit costs nothing.
EncodedFiles EncodeFiles(const std::vector<InfillFile>& files, uint64_t room,
                         const ServedModel& model) {
  EncodedFiles encoded;
  if (files.empty()) return encoded;
  Tokens& tokens = encoded.tokens;
  const auto prepend = [&](const Tokens& more) {
    tokens.insert(tokens.begin(), more.begin(), more.end());
  };
  const FimTokens& fim = model.tokenizer().fim();
  if (fim.file) {
    tokens.push_back(*fim.file);
    Append(Plain("file\n", model), &tokens);
  }
  for (const InfillFile& file : std::views::reverse(files)) {
    if (tokens.size() > room) break;
    prepend(EncodeFile(file, room, model));
  }
  if (fim.repository && tokens.size() <= room) {
    prepend(Plain("project\n", model));
    tokens.insert(tokens.begin(), *fim.repository);
  }
  encoded.truncated = tokens.size() > room;
  if (encoded.truncated) tokens.erase(tokens.begin(), tokens.end() - static_cast<ptrdiff_t>(room));
  return encoded;
}

Json RateJson(const char* name, uint64_t tokens, double seconds) {
  const std::string prefix(name);
  return {{prefix + "_n", tokens},
          {prefix + "_ms", seconds * 1000},
          {prefix + "_per_second", seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0}};
}

class InfillWriter : public AnswerWriter {
 public:
  explicit InfillWriter(const InfillJob& infill)
      : model_(infill.job.model->name()),
        truncated_(infill.truncated),
        prompt_tokens_(infill.job.prompts.front().size()) {}

  void Write(const Generation::Update& update) override {
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
    Json json = Piece(content);
    json["stop"] = true;
    json["model"] = model_;
    json["tokens_predicted"] = usage.completion_tokens;
    json["tokens_cached"] = usage.cached_tokens;
    json["has_new_line"] = text_.find('\n') != std::string::npos;
    json["truncated"] = truncated_;
    json["stop_type"] = StopType();
    json["stopping_word"] = stop_string_;
    json["timings"] =
        RateJson("prompt", usage.prompt_tokens - usage.cached_tokens, usage.first_token_seconds);
    json["timings"].update(RateJson("predicted", usage.completion_tokens, usage.decode_seconds));
    return json;
  }

  std::string model_;
  bool truncated_;
  uint64_t prompt_tokens_;
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
  const EncodedFiles files =
      EncodeFiles(request.extra, context > needed ? context - needed : 0, *job.model);
  infill.truncated = files.truncated;
  const bool bos = job.model->tokenizer().adds_bos();
  prompt.insert(prompt.begin() + (bos ? 1 : 0), files.tokens.begin(), files.tokens.end());
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
