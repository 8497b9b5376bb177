// With a real model: a request gives the same tokens and log-probabilities, bit for bit, alone or
// among others, however its prompt is cut, whether its prompt was found in the prefix cache, and
// after preemption, by recomputation and by swapping.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "fabric/worker_team.h"
#include "scheduler/engine_loop.h"
#include "scheduler/model_runtime.h"
#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::TokenId;

constexpr uint32_t kContext = 256;  // 16 blocks
constexpr char kModel[] = TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf";

// Holds the engine thread after a step for as long as it lives, so that what is submitted meanwhile
// meets there, however slowly it is submitted.
class Hold {
 public:
  explicit Hold(EngineLoop& loop) {
    loop.SetStepObserver(
        [end = end_.get_future().share()](const auto&, const auto&, uint32_t) { end.wait(); });
  }
  ~Hold() { end_.set_value(); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  std::promise<void> end_;
};

class EngineLoopModel : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << "no demo model at " << kModel;
  }

  // kv_blocks: 0 = as many as the engine likes.
  std::shared_ptr<ModelRuntime> Load(const SchedulerOptions& scheduler, uint32_t kv_blocks = 0,
                                     uint32_t context = kContext) {
    ModelRuntime::Options options;
    options.name = "demo";
    options.path = model_path_;
    options.scheduler = scheduler;
    options.engine.kv_type = kv_type_;
    options.engine.sliding_window = sliding_window_;
    options.engine.context_length = context;
    options.engine.kv_bytes = kv_blocks * block_bytes_;
    auto runtime = ModelRuntime::Load(options, team_);
    block_bytes_ = runtime->engine().kv_geometry().BytesPerBlock();
    return runtime;
  }

  // Four kinds in turn: greedy, seeded sampling, penalties with two choices, nucleus.
  static std::pair<Request, std::shared_ptr<RecordingSink>> MakeRequest(uint32_t i) {
    std::vector<TokenId> prompt;
    for (uint32_t j = 0; j < 4 + 5 * i; ++j) {
      prompt.push_back(static_cast<TokenId>(300 + (i * 31 + j * j * 17) % 2000));
    }
    auto [request, sink] = RecordedRequest(prompt, 10 + i, i % 4 == 2 ? 2 : 1);
    request.sampling.logprobs = 3;
    request.sampling.temperature = i % 4 == 0 ? 0.0F : 0.9F;
    request.sampling.seed = 1000 + i;
    if (i % 4 == 2) request.sampling.repetition_penalty = 1.3F;
    if (i % 4 == 3) request.sampling.top_p = 0.8F;
    request.prompt_logprobs = i % 5 == 1;
    return {std::move(request), sink};
  }

  static void ExpectSameLogprob(const engine::TokenLogprob& a, const engine::TokenLogprob& b) {
    EXPECT_EQ(a.token, b.token);
    EXPECT_EQ(std::bit_cast<uint32_t>(a.logprob), std::bit_cast<uint32_t>(b.logprob));
  }

  static void ExpectSameEvents(const RecordingSink& a, const RecordingSink& b, uint32_t choice) {
    ASSERT_EQ(a.tokens(choice), b.tokens(choice));
    const std::vector<TokenEvent> left = EventsOf(a, choice);
    const std::vector<TokenEvent> right = EventsOf(b, choice);
    ASSERT_EQ(left.size(), right.size());
    for (size_t i = 0; i < left.size(); ++i) {
      ExpectSameLogprob(left[i].logprob, right[i].logprob);
      ASSERT_EQ(left[i].top.size(), right[i].top.size());
      for (size_t j = 0; j < left[i].top.size(); ++j) {
        ExpectSameLogprob(left[i].top[j], right[i].top[j]);
      }
      ASSERT_EQ(left[i].prompt_logprobs.size(), right[i].prompt_logprobs.size());
      for (size_t j = 0; j < left[i].prompt_logprobs.size(); ++j) {
        ExpectSameLogprob(left[i].prompt_logprobs[j].logprob, right[i].prompt_logprobs[j].logprob);
      }
    }
  }

  static std::vector<TokenEvent> EventsOf(const RecordingSink& sink, uint32_t choice) {
    std::vector<TokenEvent> events;
    for (const TokenEvent& event : sink.events()) {
      if (event.choice == choice) events.push_back(event);
    }
    return events;
  }

  // Runs requests together and waits for all of them.
  static std::vector<std::shared_ptr<RecordingSink>> Run(
      EngineLoop& loop, const std::shared_ptr<ModelRuntime>& runtime,
      std::vector<Request> requests) {
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    {
      const Hold hold(loop);
      for (Request& request : requests) {
        sinks.push_back(std::make_shared<RecordingSink>(request.choices));
        request.id = EngineLoop::NextRequestId();
        request.sink = sinks.back();
        EXPECT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
      }
    }
    for (const auto& sink : sinks) EXPECT_TRUE(sink->AwaitEnd());
    EXPECT_TRUE(loop.WaitIdle(60));
    return sinks;
  }

  // The same, one after the other, with nothing that could be shared.
  std::vector<std::shared_ptr<RecordingSink>> RunAlone(const std::vector<Request>& requests,
                                                       uint32_t context) {
    SchedulerOptions plain;
    plain.prefix_cache = PrefixCacheMode::kOff;
    const auto runtime = Load(plain, 0, context);
    EngineLoop loop;
    loop.Attach(runtime);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests) sinks.push_back(Run(loop, runtime, {request})[0]);
    return sinks;
  }

  static void ExpectSame(const std::vector<std::shared_ptr<RecordingSink>>& alone,
                         const std::vector<std::shared_ptr<RecordingSink>>& together,
                         const std::vector<Request>& requests) {
    ASSERT_EQ(alone.size(), together.size());
    for (size_t i = 0; i < alone.size(); ++i) {
      SCOPED_TRACE(i);
      for (uint32_t choice = 0; choice < requests[i].choices; ++choice) {
        ASSERT_GT(alone[i]->tokens(choice).size(), 0U);
        ExpectSameEvents(*alone[i], *together[i], choice);
      }
    }
  }

  std::string model_path_ = kModel;
  engine::KvType kv_type_ = engine::KvType::kF16;
  uint32_t sliding_window_ = 0;
  fabric::WorkerTeam team_{1};  // two would spin against whatever else the machine tests
  uint64_t block_bytes_ = 0;
};

// The same with every storage of keys and values, and with a sliding window.
class EngineLoopKvTypes : public EngineLoopModel,
                          public testing::WithParamInterface<std::pair<engine::KvType, uint32_t>> {
 protected:
  void SetUp() override {
    EngineLoopModel::SetUp();
    kv_type_ = GetParam().first;
    sliding_window_ = GetParam().second;
  }
};

INSTANTIATE_TEST_SUITE_P(KvTypes, EngineLoopKvTypes,
                         testing::Values(std::pair{engine::KvType::kF16, 0U},
                                         std::pair{engine::KvType::kQ8, 0U},
                                         std::pair{engine::KvType::kT2, 0U},
                                         std::pair{engine::KvType::kF16, 48U}));

TEST_P(EngineLoopKvTypes, SixteenConcurrentRequestsEqualTheirSoloRunsBitForBit) {
  std::vector<std::shared_ptr<RecordingSink>> alone;
  {
    const auto runtime = Load({});
    EngineLoop loop;
    loop.Attach(runtime);
    for (uint32_t i = 0; i < 16; ++i) {
      auto [request, sink] = MakeRequest(i);
      ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
      ASSERT_TRUE(sink->AwaitEnd());
      ASSERT_EQ(sink->end().reason, FinishReason::kLength) << sink->end().error;
      alone.push_back(sink);
    }
    EXPECT_EQ(loop.Stats(*runtime).scheduler.preemptions, 0U);
  }

  // Small chunks, and blocks for a few of the sixteen.
  SchedulerOptions tight;
  tight.max_batch_tokens = 48;
  tight.prefill_chunk = 13;
  const auto runtime = Load(tight, sliding_window_ > 0 ? 8 : 16);
  EngineLoop loop;
  loop.Attach(runtime);
  std::vector<std::shared_ptr<RecordingSink>> together;
  {
    const Hold hold(loop);
    for (uint32_t i = 0; i < 16; ++i) {
      auto [request, sink] = MakeRequest(i);
      ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
      together.push_back(sink);
    }
  }
  for (uint32_t i = 0; i < 16; ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(together[i]->AwaitEnd());
    ExpectSameEvents(*alone[i], *together[i], 0);
    if (i % 4 == 2) ExpectSameEvents(*alone[i], *together[i], 1);
  }
  ASSERT_TRUE(loop.WaitIdle(60));
  const LoopStats stats = loop.Stats(*runtime);
  EXPECT_GT(stats.scheduler.preemptions, 0U);
  EXPECT_EQ(stats.scheduler.kv_blocks_used, 0U);
  EXPECT_GT(stats.device.projections, 0U);
}

// A model with a recurrent state: a preempted sequence computes it again, choices compute their
// own, and slots go from sequence to sequence.
TEST_F(EngineLoopModel, RecurrentModelGivesItsSoloBitsAfterPreemptionAndForEveryChoice) {
  model_path_ = TERN_SOURCE_DIR "/tests/data/golden/arch/qwen35.gguf";
  constexpr uint32_t kShort = 128;
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 12; ++i) {
    Request request = MakeRequest(i).first;
    for (TokenId& token : request.prompt) token = token % 45 + 3;
    request.max_tokens = 50;
    request.sampling.ignore_eos = true;
    request.stop_tokens.clear();
    requests.push_back(request);
  }
  const auto alone = RunAlone(requests, kShort);

  SchedulerOptions options;  // a prefix cache, host memory and drafts that it must not use
  options.speculation = Speculation::kNgram;
  options.max_batch_tokens = 40;
  options.prefill_chunk = 9;
  options.max_sequences = 6;
  options.swap_bytes = 1 << 20;
  const auto runtime = Load(options, 16, kShort);
  EXPECT_EQ(runtime->engine().kv_geometry().state_slots, 6U);
  EngineLoop loop;
  loop.Attach(runtime);
  for (int round = 0; round < 2; ++round) {
    const auto together = Run(loop, runtime, requests);
    ExpectSame(alone, together, requests);
    for (const auto& sink : together) EXPECT_EQ(sink->events().at(0).cached_tokens, 0U);
  }
  const LoopStats stats = loop.Stats(*runtime);
  EXPECT_GT(stats.scheduler.preemptions, 0U);
  EXPECT_EQ(stats.scheduler.swapped_preemptions, 0U);
  EXPECT_EQ(stats.scheduler.drafts, 0U);
  EXPECT_EQ(stats.scheduler.kv_blocks_used, 0U);
}

// Prefixes that end inside a block, at its end, and beyond the first attention partition.
TEST_P(EngineLoopKvTypes, FoundPromptsGiveTheBitsOfComputedOnes) {
  constexpr uint32_t kLong = 512;
  std::vector<TokenId> text;
  for (uint32_t i = 0; i < 330; ++i) text.push_back(static_cast<TokenId>(300 + (i * i * 7) % 2500));
  std::vector<Request> requests;
  for (const uint32_t shared : {330U, 5U, 16U, 31U, 100U, 256U, 257U, 300U, 330U, 330U}) {
    Request request = MakeRequest(static_cast<uint32_t>(requests.size())).first;
    request.prompt.insert(request.prompt.begin(), text.begin(), text.begin() + shared);
    request.prompt_logprobs = false;
    requests.push_back(request);
  }
  requests[9].prompt_logprobs = true;  // computes all of its prompt again
  const auto alone = RunAlone(requests, kLong);

  SchedulerOptions options;
  options.max_batch_tokens = 100;
  options.prefill_chunk = 37;
  const auto runtime = Load(options, 0, kLong);
  EngineLoop loop;
  loop.Attach(runtime);
  auto together = Run(loop, runtime, {requests[0]});
  const auto rest = Run(loop, runtime, std::vector<Request>(requests.begin() + 1, requests.end()));
  together.insert(together.end(), rest.begin(), rest.end());
  ExpectSame(alone, together, requests);
  constexpr uint32_t kFound[] = {0, 5, 16, 31, 100, 256, 257, 300, 330, 0};
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i]->events().at(0).cached_tokens, kFound[i]) << i;
  }
  // The same again: all but the last token is found.
  const auto again = Run(loop, runtime, {requests[1], requests[7]});
  ExpectSame({alone[1], alone[7]}, again, {requests[1], requests[7]});
  EXPECT_EQ(again[1]->events().at(0).cached_tokens, requests[7].prompt.size() - 1);
  EXPECT_EQ(loop.Stats(*runtime).scheduler.kv_blocks_used, 0U);
}

TEST_P(EngineLoopKvTypes, APrefixCacheSurvivesARestart) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("tern-kv-" + std::to_string(getpid()))).string();
  std::vector<Request> requests;
  for (uint32_t i = 3; i < 8; ++i) requests.push_back(MakeRequest(i).first);
  for (Request& request : requests) request.prompt_logprobs = false;
  const auto alone = RunAlone(requests, kContext);
  uint32_t saved = 0;
  {
    const auto runtime = Load({});
    EngineLoop loop;
    loop.Attach(runtime);
    Run(loop, runtime, requests);
    loop.Detach(runtime);
    saved = runtime->SavePrefixes(path);
  }
  EXPECT_GT(saved, 5U);
  const auto runtime = Load({});
  EXPECT_EQ(runtime->RestorePrefixes(path), saved);
  runtime->scheduler().CheckIntegrity();
  EXPECT_EQ(runtime->scheduler().stats().kv_blocks_cached, saved);
  EngineLoop loop;
  loop.Attach(runtime);
  const auto again = Run(loop, runtime, requests);
  ExpectSame(alone, again, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(again[i]->events().at(0).cached_tokens, requests[i].prompt.size() - 1);
  }
  // Another context length is no matter; another block size, KV type or window is another cache.
  ModelRuntime::Options other = runtime->options();
  other.engine.kv_block_size = 32;
  const auto changed = ModelRuntime::Load(other, team_);
  EXPECT_THROW(changed->RestorePrefixes(path), PrefixStoreError);
  EXPECT_EQ(changed->scheduler().stats().kv_blocks_cached, 0U);
  other = runtime->options();
  other.engine.kv_type = engine::KvType::kF32;
  EXPECT_THROW(ModelRuntime::Load(other, team_)->RestorePrefixes(path), PrefixStoreError);
  other = runtime->options();
  other.engine.sliding_window = 64;
  EXPECT_THROW(ModelRuntime::Load(other, team_)->RestorePrefixes(path), PrefixStoreError);
  std::filesystem::remove(path);
  std::filesystem::remove(path + ".key");
}

// Texts that repeat themselves, so that there is something to guess; greedy, sampled, penalised.
TEST_P(EngineLoopKvTypes, DraftsChangeNoBit) {
  constexpr uint32_t kLong = 256;
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 8; ++i) {
    Request request = MakeRequest(i).first;
    const std::vector<TokenId> part = request.prompt;
    while (request.prompt.size() < 60) {
      request.prompt.insert(request.prompt.end(), part.begin(), part.end());
    }
    request.max_tokens = 80;
    request.sampling.ignore_eos = true;
    request.sampling.temperature = i % 4 == 0 ? 0.0F : 0.4F;
    requests.push_back(request);
  }
  const auto alone = RunAlone(requests, kLong);
  for (const uint32_t budget : {64U, 512U}) {
    SchedulerOptions options;
    options.speculation = Speculation::kNgram;
    options.speculation_max_tokens = 48;
    options.max_batch_tokens = budget;
    const auto runtime = Load(options, 0, kLong);
    EngineLoop loop;
    loop.Attach(runtime);
    ExpectSame(alone, Run(loop, runtime, requests), requests);
    const SchedulerStats stats = loop.Stats(*runtime).scheduler;
    EXPECT_GT(stats.accepted_draft_tokens, 20U);
    EXPECT_LT(stats.accepted_draft_tokens, stats.draft_tokens) << "none was wrong";
    EXPECT_EQ(stats.kv_blocks_used, 0U);
  }
}

// The same by models that draft: the model's first layers, and another model, for which the model
// itself stands in: then every draft is right, so its keys and values are in step whatever happens.
TEST_P(EngineLoopKvTypes, DraftsOfModelsChangeNoBit) {
  if (sliding_window_ > 0 && kv_type_ != engine::KvType::kF16) return;
  constexpr uint32_t kShort = 128;
  std::vector<Request> requests;
  uint32_t needed = 0;
  for (uint32_t i = 0; i < 12; ++i) {
    Request request = MakeRequest(i % 8).first;
    request.prompt[0] = static_cast<TokenId>(400 + i / 2);  // pairs share their prompts
    request.max_tokens = 50;
    request.sampling.ignore_eos = true;
    needed += request.choices * ((static_cast<uint32_t>(request.prompt.size()) + 50 + 15) / 16);
    requests.push_back(request);
  }
  const auto alone = RunAlone(requests, kShort);
  for (const Speculation kind : {Speculation::kSelf, Speculation::kModel}) {
    if (kind == Speculation::kModel && sliding_window_ > 0) continue;
    for (const bool swap : {false, true}) {
      SCOPED_TRACE(std::string(Name(kind)) + (swap ? " swapping" : ""));
      SchedulerOptions options;
      options.speculation = kind;
      options.speculation_layers = swap ? 4 : 7;
      options.draft_model = kModel;
      options.speculation_max_tokens = 40;
      options.max_sequences = 12;  // more than the pool can hold for long
      options.max_batch_tokens = 64;
      options.prefill_chunk = 13;
      options.prefix_cache = swap ? PrefixCacheMode::kOn : PrefixCacheMode::kOff;
      options.swap_bytes = swap ? needed * block_bytes_ : 0;
      const auto runtime = Load(options, sliding_window_ > 0 ? 9 : needed / 4, kShort);
      EngineLoop loop;
      loop.Attach(runtime);
      auto [cancelled, sink] = RecordedRequest({300, 301, 302}, 0, 2);
      const RequestId id = cancelled.id;
      ASSERT_EQ(loop.Submit(runtime, std::move(cancelled)), AdmitResult::kOk);
      ASSERT_TRUE(sink->AwaitEvents(6));
      loop.Cancel(id);
      ExpectSame(alone, Run(loop, runtime, requests), requests);
      const LoopStats stats = loop.Stats(*runtime);
      EXPECT_GT(stats.scheduler.preemptions, 0U);
      // How many are drafted follows from what drafting was measured to cost.
      EXPECT_GT(stats.scheduler.accepted_draft_tokens, 0U);
      EXPECT_GT(stats.draft_seconds, 0.0);
      EXPECT_EQ(stats.scheduler.kv_blocks_used, 0U);
      const bool always_right = kind == Speculation::kModel;
      EXPECT_EQ(stats.scheduler.wrong_drafts == 0, always_right);
    }
  }
}

TEST_F(EngineLoopModel, DraftsOfModelsChangeNoBitOnTwoThreads) {
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 4; ++i) {
    Request request = MakeRequest(i).first;
    request.max_tokens = 40;
    requests.push_back(request);
  }
  const auto alone = RunAlone(requests, kContext);
  fabric::WorkerTeam two(2);
  for (const Speculation kind : {Speculation::kSelf, Speculation::kModel}) {
    SchedulerOptions scheduler;
    scheduler.speculation = kind;
    scheduler.speculation_layers = 7;
    scheduler.draft_model = kModel;
    ModelRuntime::Options options = Load(scheduler)->options();
    const auto runtime = ModelRuntime::Load(options, two);
    EngineLoop loop;
    loop.Attach(runtime);
    ExpectSame(alone, Run(loop, runtime, requests), requests);
    EXPECT_GT(loop.Stats(*runtime).scheduler.accepted_draft_tokens, 0U);
  }
}

TEST_F(EngineLoopModel, ADraftModelThatDoesNotFitIsRefusedInOneSentence) {
  const auto refusal = [&](const std::string& draft, uint32_t window, uint32_t layers) {
    SchedulerOptions options;
    options.speculation = draft.empty() ? Speculation::kSelf : Speculation::kAuto;
    options.draft_model = draft;
    options.speculation_layers = layers;
    sliding_window_ = window;
    try {
      Load(options);
    } catch (const engine::ModelError& error) {
      return std::string(error.what());
    }
    return std::string("taken");
  };
  const std::string other = TERN_SOURCE_DIR "/tests/data/golden/arch/llama.gguf";
  EXPECT_THAT(refusal(other, 0, 0), testing::HasSubstr("must have the vocabulary of"));
  EXPECT_THAT(refusal(kModel, 64, 0), testing::HasSubstr("sliding window"));
  EXPECT_THAT(refusal("", 0, 8), testing::HasSubstr("fewer than the model's 8 layers"));
  EXPECT_EQ(refusal("", 64, 7), "taken");
  EXPECT_EQ(refusal(kModel, 0, 0), "taken");
}

TEST_F(EngineLoopModel, TheMemoryOfADraftModelIsCounted) {
  const auto plain = Load({});
  SchedulerOptions options;
  options.draft_model = kModel;
  const auto drafted = Load(options);
  EXPECT_GT(drafted->facts().memory_bytes, plain->facts().memory_bytes * 18 / 10);
  EXPECT_GT(ModelRuntime::Inspect(drafted->options()).memory_bytes,
            ModelRuntime::Inspect(plain->options()).memory_bytes * 18 / 10);
  // A limited pool is shared with it.
  ModelRuntime::Options limited = drafted->options();
  limited.engine.kv_bytes = 0;
  limited.engine.memory_share = uint64_t{40} << 20;
  const auto small = ModelRuntime::Load(limited, team_);
  EXPECT_LT(small->facts().memory_bytes, uint64_t{60} << 20);
}

// Sixteen requests in a quarter of the blocks that they need together.
TEST_P(EngineLoopKvTypes, AQuarterOfTheBlocksGivesTheSameBitsBySwapAndByRecomputation) {
  constexpr uint32_t kShort = 128;  // 8 blocks
  std::vector<Request> requests;
  uint32_t needed = 0;
  for (uint32_t i = 0; i < 16; ++i) {
    Request request = MakeRequest(i % 8).first;
    request.prompt[0] = static_cast<TokenId>(400 + i);
    request.max_tokens = 60;
    request.sampling.ignore_eos = true;
    needed += request.choices * ((static_cast<uint32_t>(request.prompt.size()) + 60 + 15) / 16);
    requests.push_back(request);
  }
  const auto alone = RunAlone(requests, kShort);
  for (const bool swap : {false, true}) {
    SCOPED_TRACE(swap);
    SchedulerOptions options;
    options.max_sequences = 16;  // more than the pool can hold for long
    options.prefix_cache = swap ? PrefixCacheMode::kOn : PrefixCacheMode::kOff;
    options.swap_bytes = swap ? needed * block_bytes_ : 0;
    const auto runtime = Load(options, needed / 4, kShort);
    EngineLoop loop;
    loop.Attach(runtime);
    ExpectSame(alone, Run(loop, runtime, requests), requests);
    const SchedulerStats stats = loop.Stats(*runtime).scheduler;
    EXPECT_GT(stats.preemptions, 0U);
    EXPECT_EQ(stats.swapped_preemptions, swap ? stats.preemptions : 0U);
    EXPECT_EQ(stats.kv_blocks_used, 0U);
    EXPECT_EQ(stats.swap_slots_used, 0U);
  }
}

TEST_F(EngineLoopModel, FourGreedyChoicesAreOneAndTheSame) {
  const auto runtime = Load({});
  EngineLoop loop;
  loop.Attach(runtime);
  auto [request, sink] = RecordedRequest({300, 301, 302, 303, 304, 305, 306}, 30, 4);
  request.sampling.logprobs = 0;
  ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(sink->AwaitEnd());
  EXPECT_EQ(sink->tokens(0).size(), 30U);
  for (uint32_t choice = 1; choice < 4; ++choice) {
    ASSERT_EQ(sink->tokens(choice), sink->tokens(0));
    const auto events = EventsOf(*sink, choice);
    const auto first = EventsOf(*sink, 0);
    for (size_t i = 0; i < events.size(); ++i) {
      ExpectSameLogprob(events[i].logprob, first[i].logprob);
    }
  }
}

TEST_F(EngineLoopModel, FourSeededChoicesDifferAndRepeat) {
  std::vector<std::shared_ptr<RecordingSink>> runs;
  const auto runtime = Load({});
  EngineLoop loop;
  loop.Attach(runtime);
  for (int i = 0; i < 2; ++i) {
    auto [request, sink] = RecordedRequest({300, 301, 302, 303, 304, 305, 306}, 30, 4);
    request.sampling.temperature = 1;
    request.sampling.seed = 5;
    ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
    ASSERT_TRUE(sink->AwaitEnd());
    runs.push_back(sink);
  }
  for (uint32_t choice = 0; choice < 4; ++choice) {
    EXPECT_EQ(runs[0]->tokens(choice), runs[1]->tokens(choice));
  }
  EXPECT_NE(runs[0]->tokens(0), runs[0]->tokens(1));
}

TEST_F(EngineLoopModel, ForcedTokensScoreAsWhenTheyWereSampled) {
  const auto runtime = Load({});
  EngineLoop loop;
  loop.Attach(runtime);
  auto [request, sampled] = RecordedRequest({300, 301, 302}, 20);
  request.sampling.temperature = 1;
  request.sampling.seed = 9;
  request.sampling.logprobs = 2;
  ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(sampled->AwaitEnd());
  auto [again, forced] = RecordedRequest({300, 301, 302}, 0);
  again.forced_tokens = sampled->tokens();
  again.sampling.logprobs = 2;
  ASSERT_EQ(loop.Submit(runtime, std::move(again)), AdmitResult::kOk);
  ASSERT_TRUE(forced->AwaitEnd());
  ExpectSameEvents(*sampled, *forced, 0);
}

TEST_F(EngineLoopModel, PromptLogprobsAreThoseOfForcedTokens) {
  const auto runtime = Load({});
  EngineLoop loop;
  loop.Attach(runtime);
  const std::vector<TokenId> text = {300, 411, 522, 633, 744, 855, 966};
  auto [echo, echoed] = RecordedRequest(text, 1);
  echo.prompt_logprobs = true;
  echo.sampling.logprobs = 0;
  auto [force, forced] = RecordedRequest({text[0]}, 0);
  force.forced_tokens.assign(text.begin() + 1, text.end());
  force.sampling.logprobs = 0;
  ASSERT_EQ(loop.Submit(runtime, std::move(echo)), AdmitResult::kOk);
  ASSERT_EQ(loop.Submit(runtime, std::move(force)), AdmitResult::kOk);
  ASSERT_TRUE(echoed->AwaitEnd());
  ASSERT_TRUE(forced->AwaitEnd());
  const std::vector<PromptLogprob> prompt = echoed->events().at(0).prompt_logprobs;
  ASSERT_EQ(prompt.size(), text.size());
  for (size_t i = 1; i < text.size(); ++i) {
    ExpectSameLogprob(prompt[i].logprob, forced->events().at(i - 1).logprob);
  }
}

TEST_F(EngineLoopModel, CancelMidStreamFreesTheBlocks) {
  const auto runtime = Load({});
  EngineLoop loop;
  loop.Attach(runtime);
  auto [request, sink] = RecordedRequest({300, 301, 302}, 0, 3);
  request.sampling.ignore_eos = true;
  const RequestId id = request.id;
  ASSERT_EQ(loop.Submit(runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(sink->AwaitEvents(10));
  loop.Cancel(id);
  ASSERT_TRUE(sink->AwaitEnd());
  for (uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(sink->end(choice).reason, FinishReason::kCancelled);
  }
  ASSERT_TRUE(loop.WaitIdle(60));
  EXPECT_EQ(loop.Stats(*runtime).scheduler.kv_blocks_used, 0U);
}

}  // namespace
}  // namespace scheduler
