#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <map>
#include <mutex>

#include "server/admission.h"

namespace server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

// vLLM's buckets, so that its dashboards and alert rules keep their meaning.
const Buckets kFirstTokenBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kTokenTimeBuckets = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                   .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const Buckets kRequestTimeBuckets = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                     30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokenCountBuckets = {1,   2,    5,    10,   20,    50,    100,   200,
                                    500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const Buckets kStepBuckets = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kChoiceBuckets = {1, 2, 5, 10, 20};
const Buckets kHttpBuckets = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300};

struct Alias {
  std::string_view tern;
  std::string_view vllm;
};

constexpr std::array kAliases = {
    Alias{"tern_requests_running", "vllm:num_requests_running"},
    Alias{"tern_requests_waiting", "vllm:num_requests_waiting"},
    Alias{"tern_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc"},
    Alias{"tern_prompt_tokens_total", "vllm:prompt_tokens_total"},
    Alias{"tern_generation_tokens_total", "vllm:generation_tokens_total"},
    Alias{"tern_request_success_total", "vllm:request_success_total"},
    Alias{"tern_preemptions_total", "vllm:num_preemptions_total"},
    Alias{"tern_spec_drafts_total", "vllm:spec_decode_num_drafts_total"},
    Alias{"tern_spec_draft_tokens_total", "vllm:spec_decode_num_draft_tokens_total"},
    Alias{"tern_spec_accepted_tokens_total", "vllm:spec_decode_num_accepted_tokens_total"},
    Alias{"tern_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"},
    Alias{"tern_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"},
    Alias{"tern_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
    Alias{"tern_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"},
    Alias{"tern_request_time_per_output_token_seconds",
          "vllm:request_time_per_output_token_seconds"},
    Alias{"tern_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds"},
    Alias{"tern_request_queue_time_seconds", "vllm:request_queue_time_seconds"},
    Alias{"tern_request_prefill_time_seconds", "vllm:request_prefill_time_seconds"},
    Alias{"tern_request_decode_time_seconds", "vllm:request_decode_time_seconds"},
    Alias{"tern_request_inference_time_seconds", "vllm:request_inference_time_seconds"},
    Alias{"tern_request_prompt_tokens", "vllm:request_prompt_tokens"},
    Alias{"tern_request_generation_tokens", "vllm:request_generation_tokens"},
    Alias{"tern_request_params_n", "vllm:request_params_n"},
    Alias{"tern_request_params_max_tokens", "vllm:request_params_max_tokens"},
    Alias{"tern_iteration_tokens", "vllm:iteration_tokens_total"},
};

// Builds families whose values are read elsewhere.
class FamilyBuilder {
 public:
  void Gauge(const std::string& name, const std::string& help, const Labels& labels, double value) {
    Add(name, help, MetricType::Gauge, labels).gauge.value = value;
  }
  void Counter(const std::string& name, const std::string& help, const Labels& labels,
               double value) {
    Add(name, help, MetricType::Counter, labels).counter.value = value;
  }
  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  ClientMetric& Add(const std::string& name, const std::string& help, MetricType type,
                    const Labels& labels) {
    const auto [slot, added] = index_.try_emplace(name, families_.size());
    if (added) families_.push_back({name, help, type, {}});
    std::vector<ClientMetric>& metrics = families_[slot->second].metric;
    metrics.emplace_back();
    for (const auto& [key, value] : labels) metrics.back().label.push_back({key, value});
    return metrics.back();
  }

  std::vector<MetricFamily> families_;
  std::map<std::string, size_t> index_;
};

constexpr char kTokensPerJoule[] = "Tokens computed per joule, since the start.";

double Number(uint64_t count) { return static_cast<double>(count); }

void AddSpeculation(FamilyBuilder& out, const MetricsSnapshot::Model& model, Labels labels) {
  const scheduler::SchedulerStats& stats = model.stats.scheduler;
  labels["kind"] = std::string(scheduler::Name(model.speculation));
  out.Counter("tern_spec_drafts_total", "Rows with drafted tokens.", labels, Number(stats.drafts));
  out.Counter("tern_spec_draft_tokens_total", "Tokens drafted.", labels,
              Number(stats.draft_tokens));
  out.Counter("tern_spec_accepted_tokens_total", "Drafted tokens that were right.", labels,
              Number(stats.accepted_draft_tokens));
  out.Counter("tern_spec_draft_seconds_total",
              "Wall time of a model that drafts, beside that of the steps that check.", labels,
              model.stats.draft_seconds);
}

void AddScheduler(FamilyBuilder& out, const MetricsSnapshot::Model& model, const Labels& labels) {
  const scheduler::SchedulerStats& stats = model.stats.scheduler;
  out.Gauge("tern_requests_running", "Sequences in the running batch.", labels, stats.running);
  out.Gauge("tern_requests_waiting", "Sequences that wait for their first step.", labels,
            stats.waiting);
  out.Gauge("tern_waiting_tokens", "Prompt tokens that wait.", labels, stats.waiting_tokens);
  out.Gauge("tern_kv_cache_usage_ratio", "Referenced KV blocks over all blocks, 0 to 1.", labels,
            stats.KvUsage());
  out.Gauge("tern_kv_blocks", "Blocks of the KV pool.", labels, stats.kv_blocks_total);
  out.Gauge("tern_kv_blocks_used", "KV blocks that sequences refer to.", labels,
            stats.kv_blocks_used);
  out.Gauge("tern_kv_blocks_cached",
            "KV blocks that only the prefix cache remembers; given away when needed.", labels,
            stats.kv_blocks_cached);
  out.Gauge("tern_kv_swap_blocks", "KV blocks that host memory holds for preempted sequences.",
            labels, stats.swap_slots_total);
  out.Gauge("tern_kv_swap_blocks_used", "Of these, in use.", labels, stats.swap_slots_used);
  out.Counter("tern_prompt_tokens_total",
              "Prompt tokens computed or found in the prefix cache, recomputation excluded.",
              labels, Number(stats.prompt_tokens));
  out.Counter("tern_prefix_cache_queries_total",
              "Prompt tokens looked up, once per request that started.", labels,
              Number(stats.prefix_queries));
  out.Counter("tern_prefix_cache_hits_total", "Of these, found.", labels,
              Number(stats.prefix_hits));
  out.Counter("tern_prefix_cache_evictions_total", "Blocks that the prefix cache gave up.", labels,
              Number(stats.prefix_evictions));
  out.Counter("tern_generation_tokens_total", "Tokens generated.", labels,
              Number(stats.generated_tokens));
  out.Counter("tern_preemptions_total", "Sequences that lost their KV blocks for a while.", labels,
              Number(stats.preemptions));
  out.Counter("tern_swapped_preemptions_total", "Of these, kept in host memory.", labels,
              Number(stats.swapped_preemptions));
  AddSpeculation(out, model, labels);
  out.Counter("tern_queue_deadline_misses_total", "Requests that waited too long and failed.",
              labels, Number(stats.deadline_misses));
}

void AddResidency(FamilyBuilder& out, const MetricsSnapshot::Model& model, const Labels& labels) {
  const ModelRegistry::Status& status = model.status;
  out.Gauge("tern_model_ready", "1 when the model answers.", labels, model.ready ? 1 : 0);
  out.Gauge("tern_model_load_progress", "0 to 1.", labels, status.progress);
  out.Gauge("tern_model_memory_bytes", "Weights, KV pool and workspace of the loaded model.",
            labels, model.loaded && status.facts ? Number(status.facts->memory_bytes) : 0);
  out.Gauge("tern_fabric_in_service", "0 when the Fabric device has failed for good.", labels,
            status.device_in_service ? 1 : 0);
  out.Gauge("tern_model_in_use", "Requests that hold the model.", labels, status.in_use);
  out.Gauge("tern_model_load_waiting", "Requests that wait until the model is loaded.", labels,
            status.waiting);
  out.Gauge("tern_model_load_seconds", "Duration of the last load.", labels, status.load_seconds);
  const auto with = [&labels](const char* name, const char* value) {
    Labels more = labels;
    more[name] = value;
    return more;
  };
  for (const engine::LoadPhase& phase : status.load_phases) {
    out.Gauge("tern_model_load_phase_seconds", "Parts of the last load.",
              with("phase", std::string(phase.name).c_str()), phase.seconds);
  }
  constexpr char kLoads[] = "Loads that ended.";
  out.Counter("tern_model_loads_total", kLoads, with("result", "ok"), Number(status.loads));
  out.Counter("tern_model_loads_total", kLoads, with("result", "failed"),
              Number(status.failed_loads));
  constexpr std::array<const char*, ModelRegistry::kCauses> kReasons = {"idle", "memory",
                                                                        "operator", "shutdown"};
  for (size_t cause = 0; cause < kReasons.size(); ++cause) {
    out.Counter("tern_model_unloads_total", "Models that were unloaded.",
                with("reason", kReasons[cause]), Number(status.unloads[cause]));
  }
}

void AddEngine(FamilyBuilder& out, const scheduler::LoopStats& stats, const Labels& labels) {
  out.Counter("tern_engine_steps_total", "Steps of the engine.", labels, Number(stats.steps));
  out.Counter("tern_engine_step_tokens_total", "Tokens computed in steps.", labels,
              Number(stats.step_tokens));
  out.Counter("tern_engine_step_seconds_total", "Wall time in steps.", labels, stats.step_seconds);
  out.Counter("tern_engine_projection_seconds_total", "Of it, in projections.", labels,
              stats.projection_seconds);
  out.Counter("tern_engine_attention_seconds_total", "Of it, in attention.", labels,
              stats.attention_seconds);
  out.Counter("tern_engine_head_seconds_total", "Of it, in the LM head.", labels,
              stats.head_seconds);
  out.Counter("tern_head_screened_positions_total",
              "Positions whose best logits were found from the head's sketch.", labels,
              Number(stats.screened_positions));
  out.Counter("tern_head_refined_rows_total",
              "Rows of the head computed exactly for these positions.", labels,
              Number(stats.refined_rows));
  out.Counter("tern_head_screen_fallbacks_total",
              "Positions computed in full because the sketch could not settle them.", labels,
              Number(stats.screen_fallbacks));
  out.Counter("tern_head_guard_trips_total",
              "Of these, positions where an exact logit was beyond the sketch's guard.", labels,
              Number(stats.guard_trips));
  out.Counter("tern_kv_bytes_read_total", "Bytes of K and V that attention read.", labels,
              Number(stats.kv_bytes_read));
}

// Of a bounded pool; zeros where everything stays.
void AddResidency(FamilyBuilder& out, const fabric::DeviceCounters& device, const Labels& labels) {
  const auto with = [&labels](const char* value) {
    Labels more = labels;
    more["result"] = value;
    return more;
  };
  out.Counter("tern_residency_hits_total",
              "Products whose matrix was in the Fabric's pool or on its way.", labels,
              Number(device.residency_hits));
  out.Counter("tern_residency_misses_total", "Products that had to have their matrix fetched.",
              labels, Number(device.residency_misses));
  out.Counter("tern_residency_evictions_total", "Matrices that made room for others.", labels,
              Number(device.evictions));
  constexpr char kPrefetches[] = "Matrices fetched ahead: read later, or evicted before.";
  out.Counter("tern_residency_prefetches_total", kPrefetches, with("used"),
              Number(device.prefetches_used));
  out.Counter("tern_residency_prefetches_total", kPrefetches, with("wasted"),
              Number(device.prefetches_wasted));
  out.Counter("tern_residency_fetched_bytes_total", "Bytes copied into the Fabric's pool.", labels,
              Number(device.fetched_bytes));
  out.Counter("tern_residency_fetch_seconds_total", "Time in which they were copied.", labels,
              device.fetch_seconds);
  out.Counter("tern_residency_wait_seconds_total",
              "Of it, the time that products waited; the rest was hidden behind others.", labels,
              device.fetch_wait_seconds);
}

void AddFabric(FamilyBuilder& out, const scheduler::LoopStats& stats, const Labels& labels) {
  const fabric::DeviceCounters& device = stats.device;
  const auto with = [&labels](const char* name, const char* value) {
    Labels more = labels;
    more[name] = value;
    return more;
  };
  const double bytes =
      Number(device.weight_bytes) + Number(device.dense_bytes) + Number(stats.kv_bytes_read);
  const double tokens = Number(stats.step_tokens);
  out.Gauge("tern_bytes_per_token",
            "Bytes of weights and KV moved per token computed, since the start.", labels,
            tokens == 0 ? 0 : bytes / tokens);
  out.Gauge("tern_fabric_skip_rate",
            "Share of multiply-adds with a zero weight or activation, since the start.", labels,
            device.SkipRate());
  out.Counter("tern_fabric_projections_total", "Ternary matrix-vector products.", labels,
              Number(device.projections));
  out.Counter("tern_fabric_ops_total", "Multiply-adds of dense products of the same shape.", labels,
              Number(device.total_ops));
  out.Counter("tern_fabric_effective_ops_total",
              "Multiply-adds with weight and activation both non-zero.", labels,
              Number(device.active_ops));
  constexpr char kCycles[] = "Cycles of the modelled fabric.";
  out.Counter("tern_fabric_cycles_total", kCycles, with("model", "gated"),
              Number(device.cycles_gated));
  out.Counter("tern_fabric_cycles_total", kCycles, with("model", "column_skip"),
              Number(device.cycles_column_skip));
  constexpr char kBytes[] = "Bytes moved: streamed by kernels, or read and written by the model.";
  out.Counter("tern_fabric_bytes_total", kBytes, with("direction", "weights"),
              Number(device.weight_bytes));
  out.Counter("tern_fabric_bytes_total", kBytes, with("direction", "dense"),
              Number(device.dense_bytes));
  out.Counter("tern_fabric_bytes_total", kBytes, with("direction", "read"),
              Number(device.mem_reads));
  out.Counter("tern_fabric_bytes_total", kBytes, with("direction", "write"),
              Number(device.mem_writes));
  out.Counter("tern_fabric_broadcasts_total", "Activation broadcasts of the modelled fabric.",
              labels, Number(device.broadcasts));
  out.Gauge("tern_fabric_lanes_used", "Lanes with a row, mean over projections.", labels,
            device.projections == 0 ? 0 : Number(device.lanes_used) / Number(device.projections));
  out.Counter("tern_fabric_cost_total", "Cost units of the modelled fabric.", labels,
              device.fabric_cost);
  out.Counter("tern_fabric_seconds_total", "Wall time in ternary projections.", labels,
              device.fabric_seconds);
  out.Counter("tern_host_seconds_total", "Wall time of steps outside ternary projections.", labels,
              std::max(0.0, stats.step_seconds - device.fabric_seconds));
  constexpr char kOverlap[] =
      "Share of the time that devices behind a queue or copies into a pool worked in which nobody "
      "waited for them.";
  const double beside = device.queue_busy_seconds + device.fetch_seconds;
  const double waited = device.queue_wait_seconds + device.fetch_wait_seconds;
  out.Counter("tern_fabric_busy_seconds_total", "Time that devices behind a queue worked.", labels,
              device.queue_busy_seconds);
  out.Counter("tern_fabric_wait_seconds_total", "Time that the host waited for them.", labels,
              device.queue_wait_seconds);
  out.Gauge("tern_fabric_overlap_ratio", kOverlap, labels,
            beside == 0 ? 0 : std::max(0.0, 1 - waited / beside));
  const double joules = device.energy_picojoules * 1e-12;
  out.Counter("tern_energy_proxy_joules_total",
              "Energy by the table of picojoules per event; never measured.", labels, joules);
  out.Gauge("tern_tokens_per_joule", kTokensPerJoule, with("source", "proxy"),
            joules == 0 ? 0 : tokens / joules);
  AddResidency(out, device, labels);
  for (size_t kind = 0; kind < fabric::kFaultKinds; ++kind) {
    const std::string name(fabric::FaultKindName(static_cast<fabric::FaultKind>(kind)));
    out.Counter("tern_fabric_faults_total", "Submissions that the device failed, retries included.",
                with("kind", name.c_str()), Number(device.faults[kind]));
  }
  out.Counter("tern_fabric_host_fallbacks_total",
              "Projections that the host ran after the device failed twice.", labels,
              Number(device.host_fallbacks));
  out.Counter("tern_fabric_shadow_rows_total",
              "Rows of plane products that were compared with the exact weights.", labels,
              Number(device.shadow_rows));
  out.Counter("tern_fabric_shadow_differing_rows_total", "Those of them with other bits.", labels,
              Number(device.shadow_differing_rows));
  out.Gauge("tern_fabric_shadow_relative_error",
            "Root of squared differences over squared exact values, since the start.", labels,
            device.ShadowError());
}

// Each key has seven series; the names beyond this many share theirs, so that a long file of keys
// cannot drown the scraper.
constexpr size_t kMostKeys = 500;
constexpr char kOtherKeys[] = "(other)";

void AddKeys(FamilyBuilder& out, const std::vector<Authenticator::KeyUse>& keys) {
  if (keys.empty()) return;
  std::vector<Authenticator::KeyUse> shown(
      keys.begin(), keys.begin() + static_cast<ptrdiff_t>(std::min(keys.size(), kMostKeys)));
  if (keys.size() > kMostKeys) shown.push_back({kOtherKeys, {}});
  for (size_t i = kMostKeys; i < keys.size(); ++i) shown.back().totals += keys[i].totals;
  for (const auto& [name, totals] : shown) {
    const Labels labels = {{"key", name}};
    out.Counter("tern_key_requests_total", "Requests of an API key that its limits admitted.",
                labels, Number(totals.requests));
    constexpr std::array<const char*, KeyBudget::kLimits> kNames = {"requests", "tokens",
                                                                    "concurrent"};
    for (size_t limit = 0; limit < kNames.size(); ++limit) {
      out.Counter("tern_key_refusals_total", "Requests of an API key that a limit refused.",
                  {{"key", name}, {"limit", kNames[limit]}}, Number(totals.refusals[limit]));
    }
    out.Counter("tern_key_prompt_tokens_total", "Prompt tokens of an API key's ended requests.",
                labels, Number(totals.prompt_tokens));
    out.Counter("tern_key_generation_tokens_total",
                "Tokens generated for an API key's ended requests.", labels,
                Number(totals.completion_tokens));
    out.Gauge("tern_key_requests_running", "Requests of an API key that are being answered.",
              labels, totals.running);
  }
}

// Of the whole machine, so without a model; the proxy is another series.
void AddEnergy(FamilyBuilder& out, const MetricsSnapshot& snapshot) {
  out.Gauge("tern_energy_rapl_readable", "1 when the processor's energy counters can be read.", {},
            snapshot.energy.empty() ? 0 : 1);
  if (snapshot.energy.empty()) return;
  double joules = 0;
  for (const EnergyMeter::Package& package : snapshot.energy) {
    joules += package.joules;
    out.Counter("tern_energy_rapl_joules_total",
                "Measured energy of a processor package since the start, all processes together.",
                {{"package", package.name}}, package.joules);
  }
  double tokens = 0;
  for (const MetricsSnapshot::Model& model : snapshot.models) {
    tokens += Number(model.stats.step_tokens);
  }
  out.Gauge("tern_tokens_per_joule", kTokensPerJoule, {{"source", "rapl"}},
            joules > 0 ? tokens / joules : 0);
}

void AddTraces(FamilyBuilder& out, const SpanExporter::Stats& traces) {
  constexpr char kSpans[] = "Spans that the collector took, that found the queue full, or failed.";
  const auto add = [&](const char* result, uint64_t count) {
    out.Counter("tern_trace_spans_total", kSpans, {{"result", result}}, Number(count));
  };
  add("sent", traces.sent);
  add("dropped", traces.dropped);
  add("failed", traces.failed);
}

double ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long total = 0;
  unsigned long resident = 0;
  const int fields = std::fscanf(file, "%lu %lu", &total, &resident);
  std::fclose(file);
  return fields == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE))
                     : 0;
}

void AddProcess(FamilyBuilder& out, double start_seconds) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  out.Counter("process_cpu_seconds_total", "User and system time.", {},
              seconds(usage.ru_utime) + seconds(usage.ru_stime));
  out.Gauge("process_resident_memory_bytes", "Resident memory.", {}, ResidentBytes());
  out.Gauge("process_start_time_seconds", "Unix time of the start.", {}, start_seconds);
}

}  // namespace

class PrometheusModelMetrics : public ModelMetrics {
 public:
  PrometheusModelMetrics(prometheus::Registry& registry, const std::string& model)
      : success_(registry, model),
        rejections_(Family<prometheus::Counter>(registry, prometheus::BuildCounter(),
                                                "tern_admission_rejections_total",
                                                "Requests that were not admitted.")),
        labels_{{"model_name", model}} {
    const auto histogram = [&](const char* name, const char* help, const Buckets& buckets) {
      return &Family<prometheus::Histogram>(registry, prometheus::BuildHistogram(), name, help)
                  .Add(labels_, buckets);
    };
    first_token_ = histogram("tern_time_to_first_token_seconds",
                             "From the request's header to its first token.", kFirstTokenBuckets);
    inter_token_ = histogram("tern_inter_token_latency_seconds", "Between two tokens of a choice.",
                             kTokenTimeBuckets);
    per_token_ =
        histogram("tern_request_time_per_output_token_seconds",
                  "Decode time over tokens after the first, per choice.", kTokenTimeBuckets);
    total_ = histogram("tern_e2e_request_latency_seconds",
                       "From the request's header to the end of a choice.", kRequestTimeBuckets);
    queue_ = histogram("tern_request_queue_time_seconds", "Waiting for the first step.",
                       kRequestTimeBuckets);
    prefill_ = histogram("tern_request_prefill_time_seconds", "First step to first token.",
                         kRequestTimeBuckets);
    decode_ =
        histogram("tern_request_decode_time_seconds", "First token to last.", kRequestTimeBuckets);
    inference_ = histogram("tern_request_inference_time_seconds", "First step to last token.",
                           kRequestTimeBuckets);
    prompt_tokens_ =
        histogram("tern_request_prompt_tokens", "Prompt tokens of a request.", kTokenCountBuckets);
    generated_ = histogram("tern_request_generation_tokens", "Tokens generated for a choice.",
                           kTokenCountBuckets);
    choices_ = histogram("tern_request_params_n", "Parameter n.", kChoiceBuckets);
    max_tokens_ = histogram("tern_request_params_max_tokens", "Parameter max_tokens, when given.",
                            kTokenCountBuckets);
    step_tokens_ = histogram("tern_iteration_tokens", "Tokens computed in one step.", kStepBuckets);
    slow_readers_ = &Family<prometheus::Counter>(
                         registry, prometheus::BuildCounter(), "tern_slow_readers_cut_total",
                         "Streams that were cancelled because nobody read them.")
                         .Add(labels_);
    // Present before the first one, or a rate would not see it.
    for (const std::string_view reason : kRejectionReasons) Rejections(reason);
    cached_ = &Family<prometheus::Counter>(registry, prometheus::BuildCounter(),
                                           "tern_prompt_tokens_cached_total",
                                           "Prompt tokens taken from the prefix cache.")
                   .Add(labels_);
  }

  void OnSubmitted(size_t prompt_tokens, uint32_t choices,
                   std::optional<uint32_t> max_tokens) override {
    prompt_tokens_->Observe(static_cast<double>(prompt_tokens));
    choices_->Observe(choices);
    if (max_tokens) max_tokens_->Observe(*max_tokens);
  }
  void OnRejected(std::string_view reason) override { Rejections(reason).Increment(); }
  void OnFirstToken(const FirstToken& times) override {
    first_token_->Observe(times.first_token_seconds);
    queue_->Observe(times.queue_seconds);
    prefill_->Observe(times.prefill_seconds);
    cached_->Increment(times.cached_tokens);
  }
  void OnInterToken(double seconds) override { inter_token_->Observe(seconds); }
  void OnFinished(const Finished& times) override {
    (times.reason == "length" ? success_.length : success_.stop).Increment();
    total_->Observe(times.total_seconds);
    decode_->Observe(times.decode_seconds);
    inference_->Observe(times.inference_seconds);
    generated_->Observe(times.generated_tokens);
    if (times.generated_tokens > 1) {
      per_token_->Observe(times.decode_seconds / (times.generated_tokens - 1));
    }
  }
  void OnEmbedded(double total_seconds, double queue_seconds, double inference_seconds) override {
    success_.stop.Increment();
    total_->Observe(total_seconds);
    queue_->Observe(queue_seconds);
    inference_->Observe(inference_seconds);
  }
  void OnAborted() override { success_.abort.Increment(); }
  void OnSlowReader() override { slow_readers_->Increment(); }
  void OnStep(uint32_t tokens) override { step_tokens_->Observe(tokens); }

 private:
  prometheus::Counter& Rejections(std::string_view reason) {
    auto labels = labels_;
    labels["reason"] = reason;
    return rejections_.Add(labels);
  }

  template <typename T, typename Builder>
  static prometheus::Family<T>& Family(prometheus::Registry& registry, Builder builder,
                                       const char* name, const char* help) {
    return builder.Name(name).Help(help).Register(registry);
  }

  // Present from the start, so that rates exist before the first request.
  struct Success {
    Success(prometheus::Registry& registry, const std::string& model)
        : Success(Family<prometheus::Counter>(registry, prometheus::BuildCounter(),
                                              "tern_request_success_total",
                                              "Choices that ended, by reason."),
                  model) {}
    Success(prometheus::Family<prometheus::Counter>& family, const std::string& model)
        : stop(family.Add({{"model_name", model}, {"finished_reason", "stop"}})),
          length(family.Add({{"model_name", model}, {"finished_reason", "length"}})),
          abort(family.Add({{"model_name", model}, {"finished_reason", "abort"}})) {}
    prometheus::Counter& stop;
    prometheus::Counter& length;
    prometheus::Counter& abort;
  };

  Success success_;
  prometheus::Family<prometheus::Counter>& rejections_;
  std::map<std::string, std::string> labels_;
  prometheus::Histogram* first_token_;
  prometheus::Histogram* inter_token_;
  prometheus::Histogram* per_token_;
  prometheus::Histogram* total_;
  prometheus::Histogram* queue_;
  prometheus::Histogram* prefill_;
  prometheus::Histogram* decode_;
  prometheus::Histogram* inference_;
  prometheus::Histogram* prompt_tokens_;
  prometheus::Histogram* generated_;
  prometheus::Histogram* choices_;
  prometheus::Histogram* max_tokens_;
  prometheus::Histogram* step_tokens_;
  prometheus::Counter* cached_;
  prometheus::Counter* slow_readers_;
};

struct Metrics::Impl {
  bool aliases;
  double start_seconds = static_cast<double>(std::time(nullptr));
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  prometheus::Family<prometheus::Counter>& http_requests;
  prometheus::Family<prometheus::Histogram>& http_seconds;
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<PrometheusModelMetrics>> models;

  explicit Impl(bool with_aliases)
      : aliases(with_aliases),
        http_requests(prometheus::BuildCounter()
                          .Name("tern_http_requests_total")
                          .Help("HTTP requests answered.")
                          .Register(registry)),
        http_seconds(prometheus::BuildHistogram()
                         .Name("tern_http_request_duration_seconds")
                         .Help("From a request's header to the end of its answer.")
                         .Register(registry)) {}
};

Metrics::Metrics(bool aliases) : impl_(std::make_unique<Impl>(aliases)) {}

Metrics::~Metrics() = default;

ModelMetrics* Metrics::ForModel(const std::string& name) {
  const std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->models[name];
  if (slot == nullptr) slot = std::make_unique<PrometheusModelMetrics>(impl_->registry, name);
  return slot.get();
}

void Metrics::OnHttpRequest(const std::string& route, int status, double seconds) {
  impl_->http_requests.Add({{"route", route}, {"code", std::to_string(status)}}).Increment();
  impl_->http_seconds.Add({{"route", route}}, kHttpBuckets).Observe(seconds);
}

std::string Metrics::Render(const MetricsSnapshot& snapshot) const {
  FamilyBuilder builder;
  builder.Gauge("tern_build_info", "Always 1.", {{"version", "0.1.0"}}, 1);
  builder.Gauge("tern_kernels_info", "Instruction set of the kernels in use; always 1.",
                {{"kernels", snapshot.kernels}}, 1);
  builder.Gauge("tern_draining", "1 while the server shuts down.", {}, snapshot.draining ? 1 : 0);
  builder.Gauge("tern_engine_heartbeat_age_seconds", "Since the engine thread last went round.", {},
                snapshot.heartbeat_age_seconds);
  builder.Gauge("tern_http_connections", "Open connections.", {}, snapshot.http_connections);
  builder.Gauge("tern_http_active_requests", "Requests being read or answered.", {},
                snapshot.http_active_requests);
  builder.Gauge("tern_model_memory_limit_bytes", "For the loaded models together; 0 = none.", {},
                Number(snapshot.model_memory_limit));
  for (const MetricsSnapshot::Model& model : snapshot.models) {
    const Labels labels = {{"model_name", model.name}};
    AddResidency(builder, model, labels);
    if (!model.loaded && model.status.loads == 0) continue;
    AddScheduler(builder, model, labels);
    AddEngine(builder, model.stats, labels);
    AddFabric(builder, model.stats, labels);
    if (!impl_->aliases || !model.loaded) continue;
    builder.Gauge("vllm:cache_config_info", "Shape of the KV cache; always 1.",
                  {{"model_name", model.name},
                   {"block_size", std::to_string(model.block_size)},
                   {"num_gpu_blocks", std::to_string(model.stats.scheduler.kv_blocks_total)},
                   {"enable_prefix_caching", model.prefix_cache ? "True" : "False"},
                   {"engine", "0"}},
                  1);
  }
  AddKeys(builder, snapshot.keys);
  AddEnergy(builder, snapshot);
  if (snapshot.traces) AddTraces(builder, *snapshot.traces);
  AddProcess(builder, impl_->start_seconds);

  std::vector<MetricFamily> families = builder.Take();
  for (MetricFamily& family : impl_->registry.Collect()) families.push_back(std::move(family));
  if (impl_->aliases) {
    const size_t own = families.size();
    for (size_t i = 0; i < own; ++i) {
      for (const Alias& alias : kAliases) {
        if (alias.tern != families[i].name) continue;
        families.push_back(families[i]);
        families.back().name = alias.vllm;
      }
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace server
