// The bundled model says the same on every Fabric device, whatever faults the device has while it
// answers; a device that keeps failing costs no request, and /ready and /metrics tell of it.
#include <gmock/gmock.h>

#include <thread>

#include "tests/integration/test_app.h"

namespace server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

fabric::FabricOptions DeviceOf(const std::string& name, const std::string& faults = "") {
  fabric::FabricOptions options;
  options.device = name;
  options.layout = fabric::TernaryLayout::kPanel2Bit;  // nothing is measured
  options.faults = fabric::ParseFaultPlan(faults);
  if (options.faults.timeout > 0) options.watchdog_ms = 100;
  return options;
}

TestAppOptions AppWith(const std::string& device, const std::string& faults = "") {
  TestAppOptions options;
  options.fabric = DeviceOf(device, faults);
  return options;
}

// Token ids and log-probabilities as they are written: equal texts are equal bits.
std::string Answer(const TestApp& app, const std::string& content, int max_tokens) {
  json body = ChatBody(content, max_tokens);
  body["logprobs"] = true;
  const json answer = app.PostOk("/v1/chat/completions", body);
  return answer["choices"][0].dump();
}

constexpr char kQuestion[] = "Tell me about your favorite book.";

TEST(Devices, GiveTheSameTokensAndLogProbabilities) {
  const std::string expected = Answer(TestApp(), kQuestion, 16);
  EXPECT_THAT(expected, HasSubstr("logprob"));
  for (const char* device : {"reference", "stub", "ioctl"}) {
    const TestApp app(AppWith(device));
    EXPECT_EQ(Answer(app, kQuestion, 16), expected) << device;
    EXPECT_EQ(app.Get("/ready").status, 200);
    EXPECT_EQ(app.Metric("tern_fabric_host_fallbacks_total"), 0);
    EXPECT_GT(app.Metric("tern_fabric_projections_total"), 0);
  }
}

TEST(Devices, APoolSmallerThanTheModelGivesTheSameTokensAndLogProbabilities) {
  std::string expected;
  uint64_t all = 0;  // what the ternary matrices take
  {
    TestAppOptions options = AppWith("sim");
    options.fabric.pool_bytes = uint64_t{1} << 30;
    const TestApp app(options);
    expected = Answer(app, kQuestion, 16);
    all = static_cast<uint64_t>(app.Metric("tern_residency_fetched_bytes_total"));
    EXPECT_EQ(app.Metric("tern_residency_misses_total"), 0);
  }
  EXPECT_EQ(Answer(TestApp(), kQuestion, 16), expected);
  for (const uint64_t pool : {all / 2, all / 4}) {
    TestAppOptions options = AppWith("sim");
    options.fabric.pool_bytes = pool;
    const TestApp app(options);
    EXPECT_EQ(Answer(app, kQuestion, 16), expected) << pool;
    EXPECT_GT(app.Metric("tern_residency_hits_total"), 0);
    EXPECT_GT(app.Metric("tern_residency_evictions_total"), 0);
    EXPECT_GT(app.Metric("tern_residency_fetched_bytes_total"), static_cast<double>(all));
  }
}

TEST(Devices, FaultsUnderLoadFailNoRequest) {
  const std::vector<std::string> questions = {kQuestion, "Do you like movies?", "Hello!",
                                              "What did you do today?"};
  std::vector<std::string> expected;
  {
    const TestApp app;
    for (const std::string& question : questions) expected.push_back(Answer(app, question, 24));
  }
  const TestApp app(AppWith("ioctl", "timeout=0.003,busy=0.03,corrupt=0.03,seed=4"));
  std::vector<std::thread> clients;
  for (size_t client = 0; client < questions.size(); ++client) {
    clients.emplace_back([&, client] {
      for (int repeat = 0; repeat < 3; ++repeat) {
        EXPECT_EQ(Answer(app, questions[client], 24), expected[client]);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (const char* kind : {"timeout", "busy", "corrupt"}) {
    const std::string name = "tern_fabric_faults_total{kind=\"" + std::string(kind) + "\"";
    EXPECT_GT(app.Metric(name), 0) << name;
  }
  EXPECT_EQ(app.Metric("tern_fabric_faults_total{kind=\"refused\""), 0);
  EXPECT_EQ(app.Get("/ready").status, 200);
}

TEST(Devices, OutOfServiceIsToldAndStillAnswers) {
  const std::string expected = Answer(TestApp(), kQuestion, 16);
  const TestApp app(AppWith("ioctl", "disconnect=100"));
  EXPECT_EQ(app.Get("/ready").status, 200);
  EXPECT_EQ(app.Metric("tern_fabric_in_service"), 1);
  EXPECT_EQ(Answer(app, kQuestion, 16), expected);
  const auto ready = app.Get("/ready");
  EXPECT_EQ(ready.status, 503);
  const json body = json::parse(ready.body);
  EXPECT_EQ(body["status"], "device_out_of_service");
  EXPECT_EQ(body["models"][0]["device"], "out_of_service");
  EXPECT_EQ(app.Get("/health").status, 503);
  EXPECT_EQ(app.Get("/live").status, 200);
  EXPECT_EQ(app.Metric("tern_fabric_in_service"), 0);
  EXPECT_EQ(app.Metric("tern_fabric_faults_total{kind=\"disconnected\""), 1);
  EXPECT_EQ(Answer(app, kQuestion, 16), expected) << "the host has taken over";
}

}  // namespace
}  // namespace server
