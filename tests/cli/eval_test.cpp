// Property: `tern eval` gives each choice the log-probability that teacher forcing gives it alone,
// whatever was batched or shared, and counts accuracies from them; broken files are told by line.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "tests/cli/process.h"

namespace cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

std::vector<json> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<json> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<int> TokensOf(const std::string& text) {
  const ProcessResult result = RunTern({"tokenize", "--text", text, "--add-special"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::istringstream stream(result.out);
  std::vector<int> tokens;
  for (int token; stream >> token;) tokens.push_back(token);
  return tokens;
}

std::string Joined(std::span<const int> tokens) {
  std::string text;
  for (const int token : tokens) text += (text.empty() ? "" : ",") + std::to_string(token);
  return text;
}

struct Forced {
  double logprob = 0;
  bool greedy = true;
};

// The independent way: one sequence, token by token, through another command.
Forced ForcedLogprob(const std::string& context, const std::string& continuation) {
  const std::vector<int> before = TokensOf(context);
  const std::vector<int> whole = TokensOf(context + continuation);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), whole.begin())) << context;
  const ProcessResult result =
      RunTern({"generate", "--prompt-tokens", Joined(before), "--force-tokens",
               Joined(std::span(whole).subspan(before.size())), "--logprobs", "1", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Forced forced;
  const json answer = json::parse(result.out);
  for (const json& token : answer["logprobs"]) {
    forced.logprob += token["logprob"].get<double>();
    forced.greedy = forced.greedy && token["top"][0]["token"] == token["token"];
  }
  return forced;
}

constexpr const char* kMultipleChoice =
    R"({"query": "Once upon a time there was a little", "choices": ["girl named Lily.", "carburettor made of brass and rust.", "boy"], "gold": 0}
{"query": "Question: What do you like to watch?  ", "choices": [" movies", "the hand of the clock"], "gold": 0}

{"query": "I like", "choices": ["zebras zoology zinc", "it."], "gold": 1}
)";

TEST(Eval, ScoresEqualTeacherForcing) {
  const ScratchFile task("jsonl", kMultipleChoice);
  const ScratchFile samples("jsonl");
  const ProcessResult result =
      RunTern({"eval", task.path(), "--samples", samples.path(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::ifstream file(samples.path());
  const std::vector<json> scored =
      Lines({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
  ASSERT_EQ(scored.size(), 3u);
  // The white space between context and answer belongs to the answer.
  const std::vector<std::pair<std::string, std::vector<std::string>>> questions = {
      {"Once upon a time there was a little",
       {" girl named Lily.", " carburettor made of brass and rust.", " boy"}},
      {"Question: What do you like to watch?\nAnswer:", {" movies", " the hand of the clock"}},
      {"I like", {" zebras zoology zinc", " it."}}};
  const size_t gold[] = {0, 0, 1};
  int right = 0, right_per_byte = 0;
  for (size_t q = 0; q < questions.size(); ++q) {
    std::vector<double> logprobs, per_byte;
    for (size_t c = 0; c < questions[q].second.size(); ++c) {
      const std::string& answer = questions[q].second[c];
      const Forced expected = ForcedLogprob(questions[q].first, answer);
      const json& choice = scored[q]["choices"][c];
      EXPECT_NEAR(choice["logprob"], expected.logprob, 1e-4) << q << " " << c;
      EXPECT_EQ(choice["greedy"], expected.greedy) << q << " " << c;
      EXPECT_EQ(choice["bytes"], answer.size() - 1);
      logprobs.push_back(expected.logprob);
      per_byte.push_back(expected.logprob / static_cast<double>(answer.size() - 1));
    }
    const auto best = [](const std::vector<double>& values) {
      return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
    };
    right += best(logprobs) == gold[q] ? 1 : 0;
    right_per_byte += best(per_byte) == gold[q] ? 1 : 0;
  }
  const json total = json::parse(result.out);
  EXPECT_EQ(total["questions"], 3);
  EXPECT_NEAR(total["acc"], right / 3.0, 1e-12);
  EXPECT_NEAR(total["acc_norm"], right_per_byte / 3.0, 1e-12);
  const double p = right / 3.0;
  EXPECT_NEAR(total["acc_stderr"], std::sqrt(p * (1 - p) / 2), 1e-12);
  // A batch of other size computes the same bits.
  const ScratchFile again("jsonl");
  ASSERT_EQ(RunTern({"eval", task.path(), "--samples", again.path()}, "",
                    {"TERN_SCHEDULER_MAX_BATCH_TOKENS=16", "TERN_SCHEDULER_MAX_SEQUENCES=4"})
                .exit_code,
            0);
  std::ifstream a(samples.path()), b(again.path());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(a), {}),
            std::string(std::istreambuf_iterator<char>(b), {}));
}

TEST(Eval, SchemaComparesContexts) {
  const ScratchFile task(
      "jsonl",
      R"({"context_options": ["The dog barked because the dog", "The dog barked because the mathematics"], "continuation": "was happy.", "gold": 0})");
  const ScratchFile samples("jsonl");
  const ProcessResult result =
      RunTern({"eval", task.path(), "--samples", samples.path(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out)["kind"], "schema");
  std::ifstream file(samples.path());
  const json scored = json::parse(file);
  EXPECT_NEAR(scored["choices"][0]["logprob"],
              ForcedLogprob("The dog barked because the dog", " was happy.").logprob, 1e-4);
  EXPECT_NEAR(scored["choices"][1]["logprob"],
              ForcedLogprob("The dog barked because the mathematics", " was happy.").logprob, 1e-4);
}

TEST(Eval, ClozeWantsEveryTokenToBeTheFirstChoice) {
  // What the model itself says is right, what it does not is wrong.
  const ProcessResult said = RunTern({"generate", "--prompt", "Once upon a time there was a little",
                                      "--temperature", "0", "-n", "3", "--json"});
  const std::string text = json::parse(said.out)["text"];
  const json right = {{"context", "Once upon a time there was a little"}, {"continuation", text}};
  const json wrong = {{"context", "Once upon a time there was a little"},
                      {"continuation", "zinc zinc zinc"}};
  const ScratchFile task("jsonl", right.dump() + "\n" + wrong.dump() + "\n");
  const ProcessResult result = RunTern({"eval", task.path(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json total = json::parse(result.out);
  EXPECT_EQ(total["kind"], "cloze");
  EXPECT_EQ(total["acc"], 0.5);
  const double sum =
      ForcedLogprob("Once upon a time there was a little", text).logprob +
      ForcedLogprob("Once upon a time there was a little", " zinc zinc zinc").logprob;
  EXPECT_NEAR(std::log(total["perplexity"].get<double>()), -sum / 2, 1e-4);
}

TEST(Eval, FolderOfMinimalPairsIsAveragedOverItsFiles) {
  const fs::path folder = fs::path(testing::TempDir()) / ("tern_blimp_" + std::to_string(getpid()));
  fs::create_directories(folder / "data");
  std::ofstream(folder / "data" / "agreement.jsonl")
      << R"({"sentence_good": "The dogs are happy.", "sentence_bad": "The dogs is zinc zinc.", "UID": "x"})"
      << "\n"
      << R"({"sentence_good": "Zinc zinc zinc zinc.", "sentence_bad": "She was happy."})"
      << "\n";
  std::ofstream(folder / "data" / "word_order.jsonl")
      << R"({"sentence_good": "He likes to play.", "sentence_bad": "Likes play to zinc he."})"
      << "\n";
  const ProcessResult result = RunTern({"eval", folder.string(), "--json"});
  fs::remove_all(folder);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<json> lines = Lines(result.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["task"], "agreement");
  EXPECT_EQ(lines[0]["acc"], 0.5);
  EXPECT_EQ(lines[1]["task"], "word_order");
  EXPECT_EQ(lines[1]["acc"], 1.0);
  EXPECT_EQ(lines[2]["kind"], "average");
  EXPECT_EQ(lines[2]["acc"], 0.75);
  EXPECT_EQ(lines[2]["questions"], 3);
}

TEST(Eval, ContextsThatAreTooLongLoseTheirBeginning) {
  std::string context;
  for (int i = 0; i < 100; ++i) context += "the dog and ";
  const json question = {{"query", context}, {"choices", {"the cat", "zinc zinc"}}, {"gold", 0}};
  const ScratchFile task("jsonl", question.dump() + "\n" + question.dump());
  const ProcessResult result = RunTern({"eval", task.path(), "--context-length", "64", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out)["truncated"], 2);
  EXPECT_EQ(json::parse(result.out)["acc"], 1.0);
}

TEST(Eval, BrokenFilesAreToldByLine) {
  const std::string good = R"({"query": "a", "choices": ["b", "c"], "gold": 0})";
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"", "no questions"},
      {"\n \n", "no questions"},
      {good + "\n{", ":2: expected a JSON object"},
      {"[1]", "found an array"},
      {R"({"a": 1})", "expected \"query\""},
      {R"({"query": "a", "choices": ["b"], "gold": 0})", "2 to 64"},
      {R"({"query": "a", "choices": "b", "gold": 0})", "found a string"},
      {R"({"query": "a", "choices": ["b", 1], "gold": 0})", "must hold text"},
      {R"({"query": "a", "choices": ["b", " "], "gold": 0})", "an answer is empty"},
      {R"({"query": "a", "choices": ["b", "c"], "gold": 2})", "from 0 to 1"},
      {R"({"query": "a", "choices": ["b", "c"], "gold": -1})", "from 0 to 1"},
      {R"({"query": "a", "choices": ["b", "c"]})", "no \"gold\""},
      {R"({"choices": ["b", "c"], "gold": 0})", "no \"query\""},
      {R"({"sentence_good": "a", "sentence_bad": ""})", "is empty"},
      {good + "\n" + R"({"context": "a", "continuation": "b"})", "cloze question in a file"}};
  for (const auto& [text, word] : broken) {
    const ScratchFile task("jsonl", text);
    const ProcessResult result = RunTern({"eval", task.path()});
    EXPECT_EQ(result.exit_code, 1) << text;
    EXPECT_THAT(result.err, HasSubstr(word)) << text;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(RunTern({"eval", "/nonexistent.jsonl"}).exit_code, 1);
  EXPECT_EQ(RunTern({"eval"}).exit_code, 2);
}

TEST(Eval, NegativeLimitIsBadUsage) {
  const ScratchFile task("jsonl", kMultipleChoice);
  const ProcessResult result = RunTern({"eval", task.path(), "--limit", "-1"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("--limit: Value -1 not in range"));
}

// What was there stays until the new file is complete.
TEST(Eval, SamplesHaveTheirNameWhenTheyAreComplete) {
  const ScratchFile task("jsonl", kMultipleChoice);
  const ScratchFile samples("jsonl", "before\n");
  ASSERT_EQ(
      RunTern({"eval", task.path(), "--model", "/nonexistent.gguf", "--samples", samples.path()})
          .exit_code,
      1);
  std::ifstream kept(samples.path());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(kept), {}), "before\n");
  EXPECT_FALSE(fs::exists(samples.path() + ".partial"));
}

TEST(Eval, SharedTasksHaveTheirSizes) {
  TERN_NEEDS_SHARED_DATA("eval/copa.jsonl");
  const std::vector<std::pair<const char*, double>> tasks = {{"copa", 100}, {"winograd_wsc", 273}};
  for (const auto& [name, questions] : tasks) {
    const ProcessResult result =
        RunTern({"eval", SharedData("eval/" + std::string(name) + ".jsonl"), "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json total = json::parse(result.out);
    EXPECT_EQ(total["questions"], questions);
    // Chance is 50 %; a 7 M model is near it, and far from it something is wrong.
    EXPECT_GT(total["acc"], 0.4) << name;
    EXPECT_LT(total["acc"], 0.75) << name;
  }
}

}  // namespace
}  // namespace cli
