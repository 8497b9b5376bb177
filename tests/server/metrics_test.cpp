// /metrics has the names that dashboards rely on, counts what happened, and shows vLLM's names with
// the same values.
#include "server/metrics.h"

#include <gmock/gmock.h>

namespace server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MetricsSnapshot OneModel() {
  MetricsSnapshot snapshot;
  MetricsSnapshot::Model model;
  model.name = "demo";
  model.ready = model.loaded = true;
  model.status.loads = 2;
  model.status.unloads[static_cast<size_t>(ModelRegistry::Cause::kMemory)] = 1;
  model.block_size = 16;
  model.stats.scheduler.running = 3;
  model.stats.scheduler.waiting = 2;
  model.stats.scheduler.kv_blocks_total = 8;
  model.stats.scheduler.kv_blocks_used = 2;
  model.stats.scheduler.kv_blocks_cached = 5;
  model.stats.scheduler.prefix_queries = 11;
  model.stats.scheduler.prefix_hits = 6;
  model.prefix_cache = true;
  model.speculation = scheduler::Speculation::kSelf;
  model.stats.scheduler.draft_tokens = 9;
  model.stats.draft_seconds = 1.5;
  model.stats.scheduler.prompt_tokens = 11;
  model.stats.scheduler.generated_tokens = 22;
  model.stats.step_tokens = 10;
  model.stats.kv_bytes_read = 100;
  model.stats.step_seconds = 5;
  model.stats.device.weight_bytes = 700;
  model.stats.device.dense_bytes = 200;
  model.stats.device.total_ops = 100;
  model.stats.device.active_ops = 40;
  model.stats.device.cycles_gated = 7;
  model.stats.device.fabric_seconds = 2;
  model.stats.device.energy_picojoules = 5e12;
  model.stats.device.shadow_rows = 16;
  model.stats.device.shadow_differing_rows = 4;
  model.stats.device.shadow_squared_error = 1;
  model.stats.device.shadow_squared_norm = 16;
  snapshot.models.push_back(model);
  return snapshot;
}

TEST(Metrics, MeasuredEnergyIsASeriesOfItsOwn) {
  MetricsSnapshot snapshot = OneModel();
  const std::string without = Metrics(true).Render(snapshot);
  EXPECT_THAT(without, HasSubstr("tern_energy_rapl_readable 0\n"));
  EXPECT_THAT(without, Not(HasSubstr("tern_energy_rapl_joules_total")));
  snapshot.energy = {{"package-0", 1.5}, {"package-1", 0.5}};
  const std::string with = Metrics(true).Render(snapshot);
  EXPECT_THAT(with, HasSubstr("tern_energy_rapl_readable 1\n"));
  EXPECT_THAT(with, HasSubstr("tern_energy_rapl_joules_total{package=\"package-0\"} 1.5\n"));
  EXPECT_THAT(with, HasSubstr("tern_energy_rapl_joules_total{package=\"package-1\"} 0.5\n"));
  EXPECT_THAT(with, HasSubstr("tern_tokens_per_joule{source=\"rapl\"} 5\n"));
  // The proxy's figures are what they were.
  EXPECT_THAT(with, HasSubstr("tern_tokens_per_joule{model_name=\"demo\",source=\"proxy\"} 2\n"));
  EXPECT_THAT(with, HasSubstr("tern_energy_proxy_joules_total{model_name=\"demo\"} 5\n"));
}

TEST(Metrics, SpansAreCountedWhenTheyAreExported) {
  MetricsSnapshot snapshot;
  EXPECT_THAT(Metrics(true).Render(snapshot), Not(HasSubstr("tern_trace_spans_total")));
  snapshot.traces = SpanExporter::Stats{.sent = 3, .dropped = 2, .failed = 1};
  const std::string text = Metrics(true).Render(snapshot);
  EXPECT_THAT(text, HasSubstr("tern_trace_spans_total{result=\"sent\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("tern_trace_spans_total{result=\"dropped\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("tern_trace_spans_total{result=\"failed\"} 1\n"));
}

TEST(Metrics, StateOfTheModelHasOurNamesAndVllms) {
  const std::string text = Metrics(true).Render(OneModel());
  for (const char* line :
       {"tern_requests_running{model_name=\"demo\"} 3\n",
        "tern_requests_waiting{model_name=\"demo\"} 2\n",
        "tern_kv_cache_usage_ratio{model_name=\"demo\"} 0.25\n",
        "tern_kv_blocks_cached{model_name=\"demo\"} 5\n",
        "tern_prefix_cache_hits_total{model_name=\"demo\"} 6\n",
        "vllm:prefix_cache_queries_total{model_name=\"demo\"} 11\n",
        "tern_spec_draft_tokens_total{kind=\"self\",model_name=\"demo\"} 9\n",
        "vllm:spec_decode_num_draft_tokens_total{kind=\"self\",model_name=\"demo\"} 9\n",
        "tern_spec_draft_seconds_total{kind=\"self\",model_name=\"demo\"} 1.5\n",
        "enable_prefix_caching=\"True\"",
        "tern_prompt_tokens_total{model_name=\"demo\"} 11\n",
        "tern_generation_tokens_total{model_name=\"demo\"} 22\n",
        "tern_bytes_per_token{model_name=\"demo\"} 100\n",
        "tern_fabric_skip_rate{model_name=\"demo\"} 0.6\n",
        "tern_fabric_cycles_total{model=\"gated\",model_name=\"demo\"} 7\n",
        "tern_fabric_shadow_rows_total{model_name=\"demo\"} 16\n",
        "tern_fabric_shadow_differing_rows_total{model_name=\"demo\"} 4\n",
        "tern_fabric_shadow_relative_error{model_name=\"demo\"} 0.25\n",
        "tern_host_seconds_total{model_name=\"demo\"} 3\n",
        "tern_tokens_per_joule{model_name=\"demo\",source=\"proxy\"} 2\n",
        "vllm:num_requests_running{model_name=\"demo\"} 3\n",
        "vllm:num_requests_waiting{model_name=\"demo\"} 2\n",
        "vllm:kv_cache_usage_perc{model_name=\"demo\"} 0.25\n",
        "# TYPE tern_prompt_tokens_total counter\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info{"));
}

TEST(Metrics, AModelThatIsNotLoadedKeepsItsCounters) {
  MetricsSnapshot snapshot = OneModel();
  snapshot.models.push_back({});
  snapshot.models[1].name = "never";
  snapshot.models[0].ready = snapshot.models[0].loaded = false;
  snapshot.model_memory_limit = 100;
  const std::string text = Metrics(true).Render(snapshot);
  for (const char* line : {"tern_model_ready{model_name=\"demo\"} 0\n",
                           "tern_model_loads_total{model_name=\"demo\",result=\"ok\"} 2\n",
                           "tern_model_unloads_total{model_name=\"demo\",reason=\"memory\"} 1\n",
                           "tern_model_unloads_total{model_name=\"demo\",reason=\"shutdown\"} 0\n",
                           "tern_generation_tokens_total{model_name=\"demo\"} 22\n",
                           "tern_model_memory_limit_bytes 100\n",
                           "tern_model_loads_total{model_name=\"never\",result=\"ok\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("tern_generation_tokens_total{model_name=\"never\"}")));
  EXPECT_THAT(text, Not(HasSubstr("vllm:cache_config_info{")));
}

TEST(Metrics, AliasesCanBeLeftOut) {
  EXPECT_THAT(Metrics(false).Render(OneModel()), Not(HasSubstr("vllm:")));
}

TEST(Metrics, RequestsFillHistogramsAndCounters) {
  Metrics metrics(true);
  ModelMetrics* model = metrics.ForModel("demo");
  model->OnSubmitted(30, 2, 100);
  model->OnFirstToken({.first_token_seconds = 0.03,
                       .queue_seconds = 0.01,
                       .prefill_seconds = 0.02,
                       .cached_tokens = 16});
  model->OnInterToken(0.02);
  model->OnFinished({.reason = "stop",
                     .total_seconds = 1,
                     .decode_seconds = 0.9,
                     .inference_seconds = 0.95,
                     .generated_tokens = 10});
  model->OnFinished({.reason = "length", .generated_tokens = 1});
  model->OnAborted();
  model->OnRejected("queue_full");
  model->OnStep(33);
  const std::string text = metrics.Render({});
  for (const char* line :
       {"tern_request_success_total{finished_reason=\"stop\",model_name=\"demo\"} 1\n",
        "tern_request_success_total{finished_reason=\"length\",model_name=\"demo\"} 1\n",
        "tern_request_success_total{finished_reason=\"abort\",model_name=\"demo\"} 1\n",
        "tern_admission_rejections_total{model_name=\"demo\",reason=\"queue_full\"} 1\n",
        "tern_admission_rejections_total{model_name=\"demo\",reason=\"key_queue_full\"} 0\n",
        "tern_admission_rejections_total{model_name=\"demo\",reason=\"prompt_too_long\"} 0\n",
        "tern_admission_rejections_total{model_name=\"demo\",reason=\"draining\"} 0\n",
        "tern_time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.02\"} 0\n",
        "tern_time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.04\"} 1\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.04\"} 1\n",
        "tern_inter_token_latency_seconds_count{model_name=\"demo\"} 1\n",
        "tern_request_time_per_output_token_seconds_count{model_name=\"demo\"} 1\n",
        "tern_prompt_tokens_cached_total{model_name=\"demo\"} 16\n",
        "vllm:iteration_tokens_total_bucket{model_name=\"demo\",le=\"64\"} 1\n",
        "vllm:e2e_request_latency_seconds_count{model_name=\"demo\"} 2\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Metrics, KeysHaveSeriesUpToABound) {
  MetricsSnapshot snapshot;
  EXPECT_THAT(Metrics(false).Render(snapshot), Not(HasSubstr("tern_key_")));
  for (int i = 0; i < 503; ++i) {
    snapshot.keys.push_back(
        {"key-" + std::to_string(i), {.requests = 2, .refusals = {0, 0, 1}, .prompt_tokens = 5}});
  }
  const std::string text = Metrics(false).Render(snapshot);
  for (const char* line : {"tern_key_requests_total{key=\"key-0\"} 2\n",
                           "tern_key_refusals_total{key=\"key-499\",limit=\"concurrent\"} 1\n",
                           "tern_key_requests_total{key=\"(other)\"} 6\n",
                           "tern_key_prompt_tokens_total{key=\"(other)\"} 15\n",
                           "tern_key_generation_tokens_total{key=\"key-7\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("key-500")));
}

TEST(Metrics, HttpRequestsAreCountedByRouteAndCode) {
  Metrics metrics(false);
  metrics.OnHttpRequest("/v1/models", 200, 0.001);
  metrics.OnHttpRequest("/v1/models", 200, 0.001);
  EXPECT_THAT(metrics.Render({}),
              HasSubstr("tern_http_requests_total{code=\"200\",route=\"/v1/models\"} 2\n"));
}

}  // namespace
}  // namespace server
