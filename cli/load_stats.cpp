#include "cli/load_stats.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace cli {
namespace {

using server::Json;

double Percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - std::floor(place));
}

Json ToJson(const Distribution& values) {
  return {{"count", values.count}, {"mean", values.mean}, {"p50", values.p50}, {"p90", values.p90},
          {"p95", values.p95},     {"p99", values.p99},   {"max", values.max}};
}

std::string Row(const char* name, const Distribution& values) {
  char text[160];
  std::snprintf(text, sizeof text, "| %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", name,
                values.mean * 1e3, values.p50 * 1e3, values.p90 * 1e3, values.p95 * 1e3,
                values.p99 * 1e3, values.max * 1e3);
  return text;
}

std::string Line(const char* name, double value) {
  char text[96];
  std::snprintf(text, sizeof text, "| %s | %.2f |\n", name, value);
  return text;
}

// ": message", as a table's cell can hold it.
std::string Because(const LoadSummary& summary, const std::string& kind) {
  const auto found = summary.messages.find(kind);
  if (found == summary.messages.end()) return "";
  std::string text = ": ";
  for (const char c : found->second) text += c == '|' ? "\\|" : std::string(1, c);
  return text;
}

}  // namespace

std::optional<double> LoadSample::TimePerToken() const {
  if (output_tokens < 2) return std::nullopt;
  return (last - first) / (output_tokens - 1);
}

bool LoadGoals::Met(const LoadSample& sample) const {
  if (!sample.error.empty()) return false;
  if (first && sample.first > *first) return false;
  if (last && sample.last > *last) return false;
  return !per_token || sample.TimePerToken().value_or(0) <= *per_token;
}

Distribution Describe(std::vector<double> values) {
  Distribution result{.count = values.size()};
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  result.p50 = Percentile(values, 0.50);
  result.p90 = Percentile(values, 0.90);
  result.p95 = Percentile(values, 0.95);
  result.p99 = Percentile(values, 0.99);
  result.max = values.back();
  return result;
}

LoadSummary Summarise(const std::vector<LoadSample>& samples, const LoadGoals& goals) {
  LoadSummary summary;
  std::vector<double> first, per_token, gaps, last, late;
  double begin = 0;
  double end = 0;
  size_t good = 0;
  for (const LoadSample& sample : samples) {
    begin = summary.requests == 0 ? sample.sent : std::min(begin, sample.sent);
    end = std::max(end, sample.sent + sample.last);
    ++summary.requests;
    late.push_back(sample.late);
    if (!sample.error.empty()) {
      ++summary.errors[sample.error];
      if (!sample.message.empty()) summary.messages.emplace(sample.error, sample.message);
      continue;
    }
    ++summary.completed;
    good += goals.Met(sample) ? 1 : 0;
    summary.prompt_tokens += sample.prompt_tokens;
    summary.output_tokens += sample.output_tokens;
    first.push_back(sample.first);
    last.push_back(sample.last);
    gaps.insert(gaps.end(), sample.gaps.begin(), sample.gaps.end());
    if (const auto time = sample.TimePerToken()) per_token.push_back(*time);
  }
  summary.seconds = end - begin;
  if (summary.seconds > 0) {
    const double seconds = summary.seconds;
    const auto output = static_cast<double>(summary.output_tokens);
    summary.requests_per_second = static_cast<double>(summary.completed) / seconds;
    summary.output_tokens_per_second = output / seconds;
    summary.total_tokens_per_second =
        (output + static_cast<double>(summary.prompt_tokens)) / seconds;
    summary.concurrency = std::accumulate(last.begin(), last.end(), 0.0) / seconds;
    if (goals.any()) summary.goodput = static_cast<double>(good) / seconds;
  }
  summary.first = Describe(std::move(first));
  summary.per_token = Describe(std::move(per_token));
  summary.gap = Describe(std::move(gaps));
  summary.last = Describe(std::move(last));
  summary.late = Describe(std::move(late));
  return summary;
}

Json ToJson(const LoadSummary& summary) {
  Json json = {
      {"requests", summary.requests},
      {"completed", summary.completed},
      {"interrupted", summary.interrupted},
      {"errors", Json::object()},
      {"error_messages", Json::object()},
      {"seconds", summary.seconds},
      {"requests_per_second", summary.requests_per_second},
      {"goodput_requests_per_second", summary.goodput ? Json(*summary.goodput) : Json(nullptr)},
      {"output_tokens_per_second", summary.output_tokens_per_second},
      {"total_tokens_per_second", summary.total_tokens_per_second},
      {"mean_concurrency", summary.concurrency},
      {"prompt_tokens", summary.prompt_tokens},
      {"output_tokens", summary.output_tokens},
      {"ttft_seconds", ToJson(summary.first)},
      {"tpot_seconds", ToJson(summary.per_token)},
      {"itl_seconds", ToJson(summary.gap)},
      {"e2e_seconds", ToJson(summary.last)},
      {"schedule_lag_seconds", ToJson(summary.late)}};
  for (const auto& [kind, count] : summary.errors) json["errors"][kind] = count;
  for (const auto& [kind, message] : summary.messages) json["error_messages"][kind] = message;
  return json;
}

std::string ToMarkdown(const LoadSummary& summary) {
  std::string text = "| | |\n|---|---|\n";
  text += "| completed / requests | " + std::to_string(summary.completed) + " / " +
          std::to_string(summary.requests) + " |\n";
  if (summary.interrupted) text += "| interrupted | yes: the plan was not finished |\n";
  for (const auto& [kind, count] : summary.errors) {
    text += "| error " + kind + " | " + std::to_string(count) + Because(summary, kind) + " |\n";
  }
  text += Line("seconds", summary.seconds);
  text += Line("requests/s", summary.requests_per_second);
  if (summary.goodput) text += Line("goodput, requests/s", *summary.goodput);
  text += Line("output tokens/s", summary.output_tokens_per_second);
  text += Line("all tokens/s", summary.total_tokens_per_second);
  text += Line("requests at once, mean", summary.concurrency);
  text += "| prompt / output tokens | " + std::to_string(summary.prompt_tokens) + " / " +
          std::to_string(summary.output_tokens) + " |\n\n";
  text += "| ms | mean | p50 | p90 | p95 | p99 | max |\n|---|---|---|---|---|---|---|\n";
  text += Row("TTFT", summary.first) + Row("TPOT", summary.per_token) + Row("ITL", summary.gap) +
          Row("E2E", summary.last);
  // Only an open loop has a schedule to be behind.
  if (summary.late.max > 0) text += Row("behind schedule", summary.late);
  return text;
}

}  // namespace cli
