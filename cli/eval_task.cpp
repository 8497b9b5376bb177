#include "cli/eval_task.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "cli/text_file.h"
#include "server/json.h"

namespace cli {
namespace {

namespace fs = std::filesystem;
using engine::TokenId;
using server::Json;

constexpr std::string_view kSpaces = " \t\r\n";
constexpr uint32_t kMaxDepth = 8;
// More choices than any test has: a bound on what one line can make the engine hold.
constexpr size_t kMaxChoices = 64;

std::string TrimRight(std::string text) {
  text.erase(text.find_last_not_of(kSpaces) + 1);
  return text;
}

std::string TrimLeft(const std::string& text) {
  const size_t first = text.find_first_not_of(kSpaces);
  return first == std::string::npos ? "" : text.substr(first);
}

// One line of a file, with errors that say where.
class Line {
 public:
  Line(std::string where, const std::string& text) : where_(std::move(where)) {
    try {
      json_ = server::ParseJson(text, kMaxDepth);
    } catch (const std::exception&) {
      Throw("expected a JSON object, found \"" + text.substr(0, 60) + "\"");
    }
    if (!json_.is_object()) Throw("expected a JSON object, found " + Found(json_));
  }

  [[noreturn]] void Throw(const std::string& what) const {
    throw std::runtime_error(where_ + ": " + what + ".");
  }

  bool Has(const char* key) const { return json_.contains(key); }

  std::string Text(const char* key) const { return TextOf(Require(key), key); }

  std::vector<std::string> Texts(const char* key) const {
    const Json& list = Require(key);
    if (!list.is_array() || list.size() < 2 || list.size() > kMaxChoices) {
      Throw("\"" + std::string(key) + "\" must be an array of 2 to " + std::to_string(kMaxChoices) +
            " strings, found " + Found(list));
    }
    std::vector<std::string> texts;
    for (const Json& element : list) texts.push_back(TextOf(element, key));
    return texts;
  }

  size_t Index(const char* key, size_t count) const {
    const Json& value = Require(key);
    if (!value.is_number_integer() || value.get<double>() < 0 ||
        value.get<double>() >= static_cast<double>(count)) {
      Throw("\"" + std::string(key) + "\" must be an integer from 0 to " +
            std::to_string(count - 1) + ", found " + value.dump().substr(0, 60));
    }
    return value.get<size_t>();
  }

 private:
  static std::string Found(const Json& value) {
    return std::string(server::TypeName(value)) +
           (value.is_array() ? " of " + std::to_string(value.size()) : "");
  }

  const Json& Require(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) Throw("there is no \"" + std::string(key) + "\"");
    return *found;
  }

  std::string TextOf(const Json& value, const char* key) const {
    if (!value.is_string()) {
      Throw("\"" + std::string(key) + "\" must hold text, found " + Found(value));
    }
    return value.get<std::string>();
  }

  std::string where_;
  Json json_;
};

EvalKind KindOf(const Line& line) {
  if (line.Has("sentence_good")) return EvalKind::kPair;
  if (line.Has("context_options")) return EvalKind::kSchema;
  if (line.Has("choices")) return EvalKind::kMultipleChoice;
  if (line.Has("continuation")) return EvalKind::kCloze;
  line.Throw(
      "expected \"query\" and \"choices\", \"context_options\" and \"continuation\", \"context\" "
      "and \"continuation\", or \"sentence_good\" and \"sentence_bad\"");
}

EvalChoice MakeChoice(const Line& line, const std::string& context, const std::string& answer,
                      const EvalTaskOptions& options) {
  EvalChoice choice = {.context = TrimRight(context), .continuation = {}, .answer_bytes = 0};
  const std::string text = TrimRight(TrimLeft(answer));
  if (text.empty()) line.Throw("an answer is empty");
  const bool question = choice.context.starts_with("Question:");
  std::string delimiter = options.delimiter.value_or(question ? "\nAnswer: " : " ");
  // White space at the border belongs to the continuation, as in running text.
  const std::string visible = TrimRight(delimiter);
  choice.context += visible;
  choice.continuation = delimiter.substr(visible.size()) + text;
  choice.answer_bytes = text.size();
  return choice;
}

EvalQuestion ReadQuestion(const Line& line, EvalKind kind, const EvalTaskOptions& options) {
  EvalQuestion question;
  switch (kind) {
    case EvalKind::kMultipleChoice:
      for (const std::string& answer : line.Texts("choices")) {
        question.choices.push_back(MakeChoice(line, line.Text("query"), answer, options));
      }
      question.gold = line.Index("gold", question.choices.size());
      break;
    case EvalKind::kSchema:
      for (const std::string& context : line.Texts("context_options")) {
        question.choices.push_back(MakeChoice(line, context, line.Text("continuation"), options));
      }
      question.gold = line.Index("gold", question.choices.size());
      break;
    case EvalKind::kCloze:
      question.choices.push_back(
          MakeChoice(line, line.Text("context"), line.Text("continuation"), options));
      break;
    case EvalKind::kPair:
      for (const char* key : {"sentence_good", "sentence_bad"}) {
        const std::string sentence = line.Text(key);
        if (sentence.empty()) line.Throw("\"" + std::string(key) + "\" is empty");
        question.choices.push_back(
            {.context = "", .continuation = sentence, .answer_bytes = sentence.size()});
      }
      break;
  }
  return question;
}

EvalTask LoadTask(const fs::path& path, const EvalTaskOptions& options) {
  EvalTask task;
  task.name = path.stem().string();
  std::istringstream lines(ReadTextFile(path.string()));
  uint64_t number = 0;
  for (std::string text; std::getline(lines, text);) {
    ++number;
    if (text.find_first_not_of(kSpaces) == std::string::npos) continue;
    const Line line(path.string() + ":" + std::to_string(number), text);
    const EvalKind kind = KindOf(line);
    if (task.questions.empty()) task.kind = kind;
    if (kind != task.kind) {
      line.Throw("a " + std::string(EvalKindName(kind)) + " question in a file of " +
                 std::string(EvalKindName(task.kind)) + " questions");
    }
    task.questions.push_back(ReadQuestion(line, kind, options));
    if (task.questions.size() == options.limit) break;
  }
  if (task.questions.empty()) throw std::runtime_error(path.string() + " has no questions.");
  return task;
}

struct Split {
  std::vector<TokenId> whole;
  size_t context = 0;  // tokens before the first that is scored
};

std::vector<TokenId> TokensOf(const std::string& text, const engine::text::Tokenizer& tokenizer) {
  std::vector<TokenId> tokens;
  if (tokenizer.adds_bos() && tokenizer.bos()) tokens.push_back(*tokenizer.bos());
  // EOS, where a model adds it, would stand between context and continuation.
  const std::vector<TokenId> rest =
      tokenizer.Encode(text, {.add_special = false, .parse_special = false});
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

Split SplitOf(const EvalChoice& choice, const engine::text::Tokenizer& tokenizer) {
  const std::vector<TokenId> context = TokensOf(choice.context, tokenizer);
  Split split;
  split.whole = TokensOf(choice.context + choice.continuation, tokenizer);
  const auto differ =
      std::mismatch(context.begin(), context.end(), split.whole.begin(), split.whole.end());
  split.context = static_cast<size_t>(differ.second - split.whole.begin());
  // Something must be scored, and something must come before it.
  split.context = std::min(split.context, split.whole.size() - 1);
  if (split.context == 0) {
    const std::optional<TokenId> start = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
    split.whole.insert(split.whole.begin(), start.value_or(0));
    split.context = 1;
  }
  return split;
}

}  // namespace

std::string_view EvalKindName(EvalKind kind) {
  switch (kind) {
    case EvalKind::kMultipleChoice:
      return "multiple choice";
    case EvalKind::kSchema:
      return "schema";
    case EvalKind::kCloze:
      return "cloze";
    case EvalKind::kPair:
      return "minimal pair";
  }
  return "?";
}

std::vector<EvalTask> LoadEvalTasks(const std::string& path, const EvalTaskOptions& options) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {LoadTask(path, options)};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file() && entry.path().extension() == ".jsonl") {
      files.push_back(entry.path());
    }
  }
  if (files.empty()) throw std::runtime_error("The folder " + path + " has no *.jsonl files.");
  std::sort(files.begin(), files.end());
  std::vector<EvalTask> tasks;
  for (const fs::path& file : files) tasks.push_back(LoadTask(file, options));
  return tasks;
}

std::vector<ScoringItem> ScoringItemsOf(const EvalQuestion& question,
                                        const engine::text::Tokenizer& tokenizer) {
  std::vector<Split> splits;
  for (const EvalChoice& choice : question.choices) splits.push_back(SplitOf(choice, tokenizer));
  // Choices after one text share the tokens up to where the first of them parts from it.
  const auto shortest =
      std::min_element(splits.begin(), splits.end(),
                       [](const Split& a, const Split& b) { return a.context < b.context; });
  const size_t shared = shortest->context;
  const bool one = std::all_of(splits.begin(), splits.end(), [&](const Split& split) {
    return std::equal(split.whole.begin(), split.whole.begin() + static_cast<ptrdiff_t>(shared),
                      splits[0].whole.begin());
  });
  const bool same_text = std::all_of(
      question.choices.begin(), question.choices.end(),
      [&](const EvalChoice& choice) { return choice.context == question.choices[0].context; });
  std::vector<ScoringItem> items;
  for (const Split& split : splits) {
    const size_t context = one && same_text ? shared : split.context;
    const auto border = split.whole.begin() + static_cast<ptrdiff_t>(context);
    if (items.empty() || !(one && same_text)) {
      items.push_back({{split.whole.begin(), border}, {}});
    }
    items.back().continuations.push_back({border, split.whole.end()});
  }
  return items;
}

}  // namespace cli
