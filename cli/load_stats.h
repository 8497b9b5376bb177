#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "server/json.h"

namespace cli {

// What one request of a load test has shown. Seconds since it was sent.
struct LoadSample {
  double sent = 0;                // seconds since the test began
  double late = 0;                // behind its time in the schedule
  std::string error = {};         // its kind: "http_503", "timeout", ...; empty = complete
  std::string message = {};       // why, in one line; empty where nobody said
  double first = 0;               // TTFT: the first piece of answer that is not empty
  double last = 0;                // E2E: the last one
  std::vector<double> gaps = {};  // ITL: between pieces
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;

  // (E2E - TTFT) / (output tokens - 1); nullopt for an answer of one token.
  std::optional<double> TimePerToken() const;
};

// What an answer must keep to count in the goodput; absent = any.
struct LoadGoals {
  std::optional<double> first = {};      // ttft
  std::optional<double> per_token = {};  // tpot
  std::optional<double> last = {};       // e2e
  bool any() const { return first || per_token || last; }
  bool Met(const LoadSample& sample) const;
};

struct Distribution {
  size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

// Percentiles between two values are interpolated linearly.
Distribution Describe(std::vector<double> values);

struct LoadSummary {
  size_t requests = 0;
  size_t completed = 0;
  bool interrupted = false;                     // the plan was not carried out to its end
  std::map<std::string, size_t> errors;         // by kind
  std::map<std::string, std::string> messages;  // the first of each kind that has one
  double seconds = 0;                           // from the first request to the last end
  double requests_per_second = 0;               // completed ones
  double output_tokens_per_second = 0;
  double total_tokens_per_second = 0;  // with those of the prompts
  double concurrency = 0;              // mean number of requests under way
  std::optional<double> goodput;       // requests per second that met every goal
  uint64_t prompt_tokens = 0;
  uint64_t output_tokens = 0;
  Distribution first, per_token, gap, last, late;
};

LoadSummary Summarise(const std::vector<LoadSample>& samples, const LoadGoals& goals);
server::Json ToJson(const LoadSummary& summary);
// A table with a line per figure.
std::string ToMarkdown(const LoadSummary& summary);

}  // namespace cli
