#include "server/exposition.h"

#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>

namespace server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricType;

// The longest shortest form of a double has 24 characters.
using Digits = std::array<char, 32>;

template <typename T>
void AppendDigits(T number, std::string* out) {
  Digits digits;
  const std::to_chars_result end = std::to_chars(digits.begin(), digits.end(), number);
  out->append(digits.data(), end.ptr);
}

void AppendNumber(double number, std::string* out) {
  constexpr double kExactIntegers = 9007199254740992.0;  // 2^53
  if (std::isnan(number)) {
    *out += "NaN";
  } else if (std::isinf(number)) {
    *out += number > 0 ? "+Inf" : "-Inf";
  } else if (std::abs(number) < kExactIntegers && number == std::trunc(number)) {
    AppendDigits(static_cast<int64_t>(number), out);
  } else {
    AppendDigits(number, out);
  }
}

void AppendEscaped(std::string_view text, bool quotes, std::string* out) {
  for (const char c : text) {
    if (c == '\n') {
      *out += "\\n";
    } else {
      if (c == '\\' || (quotes && c == '"')) *out += '\\';
      *out += c;
    }
  }
}

std::string_view TypeName(MetricType type) {
  switch (type) {
    case MetricType::Counter:
      return "counter";
    case MetricType::Gauge:
      return "gauge";
    case MetricType::Histogram:
      return "histogram";
    default:
      assert(false);
      return "untyped";
  }
}

// The labels as they stand in every sample of a metric, without the braces.
std::string LabelText(const ClientMetric& metric) {
  std::string text;
  for (const ClientMetric::Label& label : metric.label) {
    if (!text.empty()) text += ',';
    text += label.name;
    text += "=\"";
    AppendEscaped(label.value, true, &text);
    text += '"';
  }
  return text;
}

void AppendSample(std::string_view name, std::string_view suffix, std::string_view labels,
                  double value, std::string* out) {
  *out += name;
  *out += suffix;
  if (!labels.empty()) {
    *out += '{';
    *out += labels;
    *out += '}';
  }
  *out += ' ';
  AppendNumber(value, out);
  *out += '\n';
}

void AppendBucket(std::string_view name, std::string_view labels, double bound, uint64_t count,
                  std::string* out) {
  *out += name;
  *out += "_bucket{";
  *out += labels;
  if (!labels.empty()) *out += ',';
  *out += "le=\"";
  AppendNumber(bound, out);
  *out += "\"} ";
  AppendDigits(count, out);
  *out += '\n';
}

void AppendHistogram(std::string_view name, std::string_view labels,
                     const ClientMetric::Histogram& histogram, std::string* out) {
  AppendSample(name, "_count", labels, static_cast<double>(histogram.sample_count), out);
  AppendSample(name, "_sum", labels, histogram.sample_sum, out);
  for (const ClientMetric::Bucket& bucket : histogram.bucket) {
    AppendBucket(name, labels, bucket.upper_bound, bucket.cumulative_count, out);
  }
  constexpr double kAll = std::numeric_limits<double>::infinity();
  if (histogram.bucket.empty() || histogram.bucket.back().upper_bound != kAll) {
    AppendBucket(name, labels, kAll, histogram.sample_count, out);
  }
}

}  // namespace

void AppendFamily(const prometheus::MetricFamily& family, std::string_view name, std::string* out) {
  *out += "# HELP ";
  *out += name;
  *out += ' ';
  AppendEscaped(family.help, false, out);
  *out += "\n# TYPE ";
  *out += name;
  *out += ' ';
  *out += TypeName(family.type);
  *out += '\n';
  for (const ClientMetric& metric : family.metric) {
    const std::string labels = LabelText(metric);
    if (family.type == MetricType::Histogram) {
      AppendHistogram(name, labels, metric.histogram, out);
    } else {
      const bool counter = family.type == MetricType::Counter;
      AppendSample(name, "", labels, counter ? metric.counter.value : metric.gauge.value, out);
    }
  }
}

}  // namespace server
