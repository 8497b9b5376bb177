#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/load_runner.h"
#include "cli/load_stats.h"
#include "cli/output_file.h"
#include "cli/progress_line.h"
#include "cli/text_file.h"
#include "server/json.h"

namespace cli {
namespace {

using server::Json;

constexpr const char* kLoadTestExamples =
    "Sends streamed requests to a server with OpenAI's API and tells how long answers took.\n"
    "  --concurrency N   closed loop: N clients, each sends again when it has its answer\n"
    "  --rate R          open loop: R requests per second, at random times (Poisson), whether or\n"
    "                    not earlier ones have been answered\n"
    "\n"
    "TTFT: request sent to first piece of answer that is not empty. E2E: to the last one. ITL: "
    "gaps\n"
    "between pieces, of all answers together. TPOT: (E2E - TTFT) / (output tokens - 1), per "
    "answer.\n"
    "Goodput: answers per second that met every --goal. Tokens are those that the server counted.\n"
    "\n"
    "A dataset is JSONL: {\"prompt\": \"...\"} or {\"messages\": [...]}, with \"max_tokens\" if "
    "you "
    "like.\n"
    "\n"
    "Examples:\n"
    "  tern loadtest --concurrency 8 --requests 200\n"
    "  tern loadtest --url https://host/v1 --api-key $KEY --rate 2.5 --duration 60 --goal ttft=1\n"
    "  tern loadtest --prompt-tokens 512 --output-tokens 128 --ignore-eos --markdown report.md\n"
    "  tern loadtest --dataset prompts.jsonl --json > result.json";

struct LoadTestFlags {
  std::string url = "http://127.0.0.1:8080/v1";
  std::string api_key;
  std::string model;
  std::string endpoint = "chat";
  std::string dataset;
  uint32_t prompt_tokens = 128;
  uint32_t output_tokens = 64;
  uint32_t random_ids = 0;
  bool ignore_eos = false;
  uint32_t requests = 0;
  double duration = 0;
  uint32_t concurrency = 1;
  double rate = 0;
  int64_t warmup = -1;
  std::vector<std::string> goals;
  double timeout = 600;
  uint64_t seed = 1;
  bool insecure = false;
  std::string ca_file;
  bool json = false;
  std::string markdown;
};

// Words that most vocabularies have as one token each.
constexpr const char* kWords[] = {
    "time",  "year",   "people", "way",    "day",   "man",  "thing",  "woman", "life",  "child",
    "world", "school", "state",  "family", "house", "hand", "part",   "place", "case",  "week",
    "work",  "night",  "point",  "home",   "water", "room", "mother", "area",  "money", "story",
    "fact",  "month",  "lot",    "right",  "study", "book", "eye",    "job",   "word",  "side"};

// About that many tokens, different every time, so that no prompt is found in a cache.
std::string RandomText(uint32_t words, std::mt19937_64& random) {
  std::string text;
  for (uint32_t i = 0; i < words; ++i) {
    text += (i == 0 ? "" : " ") + std::string(kWords[random() % std::size(kWords)]);
  }
  return text;
}

Json Common(const LoadTestFlags& flags, const std::string& model) {
  Json body = {{"model", model},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"temperature", 0}};
  if (flags.ignore_eos) body["ignore_eos"] = true;
  return body;
}

Json MessagesOf(const std::string& prompt) {
  return Json::array({Json{{"role", "user"}, {"content", prompt}}});
}

std::vector<std::string> SyntheticBodies(const LoadTestFlags& flags, const std::string& model,
                                         size_t count) {
  std::mt19937_64 random(flags.seed);
  std::vector<std::string> bodies;
  for (size_t i = 0; i < count; ++i) {
    Json body = Common(flags, model);
    body["max_tokens"] = flags.output_tokens;
    if (flags.random_ids > 0) {
      std::vector<uint64_t> ids(flags.prompt_tokens);
      for (uint64_t& id : ids) id = random() % flags.random_ids;
      body["prompt"] = ids;
    } else if (flags.endpoint == "chat") {
      body["messages"] = MessagesOf(RandomText(flags.prompt_tokens, random));
    } else {
      body["prompt"] = RandomText(flags.prompt_tokens, random);
    }
    bodies.push_back(server::Dump(body));
  }
  return bodies;
}

std::vector<std::string> DatasetBodies(const LoadTestFlags& flags, const std::string& model) {
  std::istringstream lines(ReadTextFile(flags.dataset));
  std::vector<std::string> bodies;
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json entry = Json::parse(line, nullptr, false);
    const auto refuse = [&](const char* expected) {
      throw std::runtime_error(flags.dataset + ":" + std::to_string(number) + ": " + expected);
    };
    if (!entry.is_object()) refuse("expected a JSON object.");
    Json body = Common(flags, model);
    const Json& limit =
        entry.contains("max_tokens") ? entry["max_tokens"] : Json(flags.output_tokens);
    if (!limit.is_number_integer()) refuse("expected a whole number for \"max_tokens\".");
    body["max_tokens"] = limit;
    const bool chat = flags.endpoint == "chat";
    if (chat && entry.contains("messages")) {
      if (!entry["messages"].is_array()) refuse("expected a list for \"messages\".");
      body["messages"] = entry["messages"];
    } else if (entry.contains("prompt") && entry["prompt"].is_string()) {
      const std::string prompt = entry["prompt"];
      if (chat) {
        body["messages"] = MessagesOf(prompt);
      } else {
        body["prompt"] = prompt;
      }
    } else {
      refuse(chat ? "expected \"prompt\" or \"messages\"." : "expected \"prompt\".");
    }
    bodies.push_back(server::Dump(body));
  }
  if (bodies.empty()) throw std::runtime_error(flags.dataset + " holds no request.");
  return bodies;
}

LoadGoals ParseGoals(const std::vector<std::string>& texts) {
  LoadGoals goals;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    char* end = nullptr;
    const std::string number = equals == std::string::npos ? "" : text.substr(equals + 1);
    const double seconds = std::strtod(number.c_str(), &end);
    std::optional<double>* goal = name == "ttft"   ? &goals.first
                                  : name == "tpot" ? &goals.per_token
                                  : name == "e2e"  ? &goals.last
                                                   : nullptr;
    if (goal == nullptr || number.empty() || *end != '\0' || !(seconds > 0)) {
      throw UsageError("--goal must be ttft=SECONDS, tpot=SECONDS or e2e=SECONDS, not \"" + text +
                       "\".");
    }
    *goal = seconds;
  }
  return goals;
}

// The base with or without /v1; the endpoint's path comes after it.
server::ClientUrl UrlOf(const LoadTestFlags& flags, const std::string& path) {
  server::ClientUrl url;
  try {
    url = server::ClientUrl::Parse(flags.url);
  } catch (const std::invalid_argument& error) {
    throw UsageError(std::string("--url ") + error.what() + ".");
  }
  while (url.path.ends_with('/')) url.path.pop_back();
  if (!url.path.ends_with("/v1")) url.path += "/v1";
  url.path += path;
  return url;
}

std::string FirstModel(server::HttpClient& client, const LoadTestFlags& flags,
                       const server::HeaderList& headers) {
  constexpr double kPatience = 30;
  const Json list =
      Json::parse(Fetch(client, UrlOf(flags, "/models"), headers, kPatience), nullptr, false);
  if (list.is_object() && list.contains("data") && list["data"].is_array() &&
      !list["data"].empty() && list["data"][0].is_object() && list["data"][0].contains("id") &&
      list["data"][0]["id"].is_string()) {
    return list["data"][0]["id"];
  }
  throw std::runtime_error("The server lists no model; name one with --model.");
}

void CheckFlags(const LoadTestFlags& flags) {
  if (flags.random_ids > 0 && flags.endpoint == "chat") {
    throw UsageError("--random-ids needs --endpoint completions: messages are text.");
  }
  if (!flags.dataset.empty() && flags.random_ids > 0) {
    throw UsageError("Give --dataset or --random-ids, not both.");
  }
  if (!flags.ca_file.empty() && flags.insecure) {
    throw UsageError("Give --ca-file or --insecure, not both.");
  }
}

std::string LoopText(const LoadPlan& plan) {
  std::ostringstream text;
  if (plan.rate > 0) {
    text << "open loop, " << plan.rate << " requests/s";
  } else {
    text << "closed loop, " << plan.concurrency << " at once";
  }
  return text.str();
}

std::vector<LoadSample> RunShown(server::HttpClient& client, const LoadPlan& plan,
                                 const std::string& what) {
  ProgressLine progress;
  return RunLoad(
      client, plan,
      [&](size_t done, double share) {
        progress.Show(share, what + ": " + std::to_string(done) + " answers");
      },
      [] { return Interrupted(); });
}

void Report(const LoadTestFlags& flags, const LoadPlan& plan, const std::string& model,
            const LoadSummary& summary) {
  const std::string title = model + " at " + plan.url.Authority() + ", " + LoopText(plan);
  if (!flags.markdown.empty()) {
    std::ofstream file(flags.markdown);
    file << "## " << title << "\n\n" << ToMarkdown(summary);
    if (!file.flush()) throw std::runtime_error("Cannot write " + flags.markdown + ".");
  }
  if (flags.json) {
    Json json = {{"url", flags.url},
                 {"model", model},
                 {"endpoint", flags.endpoint},
                 {"loop", plan.rate > 0 ? "open" : "closed"},
                 {"concurrency", plan.rate > 0 ? Json(nullptr) : Json(plan.concurrency)},
                 {"rate", plan.rate > 0 ? Json(plan.rate) : Json(nullptr)}};
    json.update(ToJson(summary));
    std::cout << server::Dump(json) << std::endl;
  } else {
    std::cout << title << "\n\n" << ToMarkdown(summary) << std::flush;
  }
}

int RunLoadTest(const LoadTestFlags& flags) {
  CheckFlags(flags);
  if (!flags.markdown.empty()) CheckOutputFile(flags.markdown, {flags.dataset});
  const LoadGoals goals = ParseGoals(flags.goals);
  const std::string path = flags.endpoint == "chat" ? "/chat/completions" : "/completions";
  LoadPlan plan;
  plan.url = UrlOf(flags, path);
  plan.headers = {{"Content-Type", "application/json"}, {"User-Agent", "tern-loadtest"}};
  const char* variable = std::getenv("OPENAI_API_KEY");
  const std::string key = flags.api_key.empty() && variable != nullptr ? variable : flags.api_key;
  if (!key.empty()) plan.headers.emplace_back("Authorization", "Bearer " + key);
  plan.concurrency = flags.concurrency;
  plan.rate = flags.rate;
  plan.duration = flags.duration;
  constexpr uint32_t kRequests = 100;
  plan.requests = flags.requests == 0 && flags.duration <= 0 ? kRequests : flags.requests;
  plan.seed = flags.seed;
  plan.timeout_seconds = flags.timeout;

  server::HttpClient client({.verify = !flags.insecure, .ca_file = flags.ca_file});
  const std::string model =
      flags.model.empty() ? FirstModel(client, flags, plan.headers) : flags.model;
  LoadPlan warmup = plan;
  warmup.rate = 0;
  warmup.duration = 0;
  warmup.requests = flags.warmup < 0 ? std::max(1U, plan.rate > 0 ? 1U : plan.concurrency)
                                     : static_cast<uint32_t>(flags.warmup);
  constexpr size_t kMaxBodies = 4096;
  const size_t measured =
      plan.requests > 0 ? std::min<size_t>(plan.requests, kMaxBodies) : kMaxBodies;
  std::vector<std::string> bodies = flags.dataset.empty()
                                        ? SyntheticBodies(flags, model, measured + warmup.requests)
                                        : DatasetBodies(flags, model);
  warmup.bodies = bodies;
  if (flags.dataset.empty()) {
    bodies.erase(bodies.begin(), bodies.begin() + warmup.requests);
  }
  plan.bodies = std::move(bodies);
  const InterruptGuard guard(InterruptGuard::Signals::kAndTerminate);
  if (warmup.requests > 0) RunShown(client, warmup, "warm-up");
  LoadSummary summary = Summarise(RunShown(client, plan, LoopText(plan)), goals);
  summary.interrupted = Interrupted();
  if (summary.requests == 0) {
    throw std::runtime_error(summary.interrupted ? "Interrupted before a request was measured."
                                                 : "No request was sent.");
  }
  Report(flags, plan, model, summary);
  return summary.completed == summary.requests && !summary.interrupted ? kSuccess : kFailed;
}

}  // namespace

void AddLoadTest(CLI::App& root, Run* run) {
  auto flags = std::make_shared<LoadTestFlags>();
  CLI::App* command =
      root.add_subcommand("loadtest", "Measure a server with OpenAI's API under load");
  command->footer(kLoadTestExamples);
  command->add_option("--url", flags->url, "base URL, with or without /v1; http or https")
      ->type_name("URL")
      ->capture_default_str();
  command->add_option("--api-key", flags->api_key, "default: the environment's OPENAI_API_KEY")
      ->type_name("KEY");
  command->add_option("--model", flags->model, "default: the first that the server lists")
      ->type_name("NAME");
  command->add_option("--endpoint", flags->endpoint, "chat or completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--concurrency", flags->concurrency, "requests at once (closed loop)")
      ->type_name("N")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--rate", flags->rate, "requests per second (open loop) in its place")
      ->type_name("R")
      ->check(CLI::Range(0.0001, 100000.0));
  command->add_option("--requests", flags->requests, "to send (100, unless --duration is given)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000000));
  command->add_option("--duration", flags->duration, "seconds in which requests are sent")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 1e6));
  command->add_option("--warmup", flags->warmup, "requests before, not counted (--concurrency)")
      ->type_name("N")
      ->check(CLI::Range(0, 100000));
  command->add_option("--prompt-tokens", flags->prompt_tokens, "words of the random prompts")
      ->type_name("N")
      ->check(CLI::Range(1, 10000000))
      ->capture_default_str();
  command->add_option("--output-tokens", flags->output_tokens, "max_tokens")
      ->type_name("N")
      ->check(CLI::Range(1, 10000000))
      ->capture_default_str();
  command->add_flag("--ignore-eos", flags->ignore_eos,
                    "answers have exactly that length (servers that know ignore_eos)");
  command
      ->add_option("--random-ids", flags->random_ids,
                   "prompts of exactly --prompt-tokens random ids below N, where the server takes "
                   "ids")
      ->type_name("N");
  command->add_option("--dataset", flags->dataset, "JSONL of requests, taken in turn")
      ->type_name("FILE");
  command->add_option("--goal", flags->goals, "ttft=S, tpot=S or e2e=S in seconds, for goodput")
      ->type_name("GOAL")
      ->delimiter(',');
  command->add_option("--timeout", flags->timeout, "seconds that an answer may take")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of prompts and times")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--ca-file", flags->ca_file, "PEM authorities to trust instead")
      ->type_name("FILE");
  command->add_flag("--insecure", flags->insecure, "trust any certificate");
  command->add_flag("--json", flags->json, "one JSON object instead of tables");
  command->add_option("--markdown", flags->markdown, "write the tables there too")
      ->type_name("FILE");
  command->callback([flags, run] { *run = [flags] { return RunLoadTest(*flags); }; });
}

}  // namespace cli
