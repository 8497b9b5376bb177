// The text of a family is what the public library's serialiser writes, byte for byte where the
// spelling of a number leaves no choice, and the same value elsewhere.
#include "server/exposition.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <limits>
#include <random>

namespace server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string Text(const MetricFamily& family) {
  std::string text;
  AppendFamily(family, family.name, &text);
  return text;
}

std::string Theirs(const MetricFamily& family) {
  return prometheus::TextSerializer().Serialize({family});
}

ClientMetric Gauge(double value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  return metric;
}

TEST(Exposition, GaugesAndCountersAreWhatTheLibraryWrites) {
  MetricFamily gauges = {"some_gauge", "Help.", MetricType::Gauge, {}};
  for (const double value :
       {0.0, 1.0, -3.0, 0.5, 0.25, 1024.0, 123456789.0, kInfinity, -kInfinity}) {
    gauges.metric.push_back(Gauge(value, {{"kind", std::to_string(value)}}));
  }
  gauges.metric.push_back(Gauge(7));
  gauges.metric.push_back(Gauge(7, {{"a", "x"}, {"b", "quote \" slash \\ line\nend"}}));
  EXPECT_EQ(Text(gauges), Theirs(gauges));

  MetricFamily counters = {"some_total", "Help.", MetricType::Counter, {ClientMetric()}};
  counters.metric[0].counter.value = 12;
  EXPECT_EQ(Text(counters), Theirs(counters));
}

TEST(Exposition, HistogramsAreWhatTheLibraryWrites) {
  MetricFamily family = {"some_seconds", "Help.", MetricType::Histogram, {ClientMetric(), {}, {}}};
  ClientMetric::Histogram histogram;
  histogram.sample_count = 12;
  histogram.sample_sum = 3.5;
  histogram.bucket = {{1, 0.5}, {4, 100}, {9, 100000}};
  family.metric[0].histogram = histogram;
  family.metric[1].histogram = histogram;
  family.metric[1].label = {{"model_name", "m"}};
  family.metric[2].histogram.bucket = {{0, 1}, {0, kInfinity}};
  EXPECT_EQ(Text(family), Theirs(family));
}

// The library spells these otherwise than the format's description does.
TEST(Exposition, HelpIsEscapedAndNoNumberIsNaN) {
  const MetricFamily family = {
      "g", "A \\ and\na second line.", MetricType::Gauge, {Gauge(std::nan(""))}};
  EXPECT_EQ(Text(family), "# HELP g A \\\\ and\\na second line.\n# TYPE g gauge\ng NaN\n");
}

// Counters of bytes and operations pass a million quickly, and le="100000" must not become 1e+05.
TEST(Exposition, WholeNumbersHaveNoExponent) {
  const MetricFamily family = {"g", "Help.", MetricType::Gauge, {Gauge(1e5), Gauge(1e15)}};
  EXPECT_EQ(Text(family), "# HELP g Help.\n# TYPE g gauge\ng 100000\ng 1000000000000000\n");
}

TEST(Exposition, NumbersReadBackToTheSameValue) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> digits(-1, 1);
  std::uniform_int_distribution<int> exponent(-300, 300);
  for (int i = 0; i < 1000; ++i) {
    const double value = std::ldexp(digits(random), exponent(random));
    const std::string text = Text({"g", "", MetricType::Gauge, {Gauge(value)}});
    EXPECT_EQ(std::stod(text.substr(text.rfind(' '))), value);
  }
}

TEST(Exposition, AnAliasHasTheSameSamples) {
  const MetricFamily family = {"tern_x", "Help.", MetricType::Gauge, {Gauge(3, {{"a", "b"}})}};
  std::string text;
  AppendFamily(family, "vllm:x", &text);
  EXPECT_EQ(text, "# HELP vllm:x Help.\n# TYPE vllm:x gauge\nvllm:x{a=\"b\"} 3\n");
}

}  // namespace
}  // namespace server
