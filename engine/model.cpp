#include "engine/model.h"

#include <chrono>
#include <future>
#include <map>
#include <utility>

#include "engine/errors.h"
#include "engine/packed_cache.h"
#include "engine/stopwatch.h"
#include "gguf/reader.h"

namespace engine {
namespace {

// Weights are nearly all of a load's time.
constexpr double kWeightsShare = 0.95;

class LoadedModel : public Model {
 public:
  LoadedModel(std::string path, ModelConfig config,
              std::unique_ptr<const text::Tokenizer> tokenizer,
              std::unique_ptr<const text::ChatTemplate> chat_template, Weights weights,
              LoadReport load_report)
      : path_(std::move(path)),
        config_(std::move(config)),
        tokenizer_(std::move(tokenizer)),
        chat_template_(std::move(chat_template)),
        weights_(std::move(weights)),
        load_report_(std::move(load_report)) {}

  const ModelConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { return *tokenizer_; }
  const text::ChatTemplate* chat_template() const override { return chat_template_.get(); }
  const Weights& weights() const override { return weights_; }
  const std::string& path() const override { return path_; }
  const LoadReport& load_report() const override { return load_report_; }

 private:
  std::string path_;
  ModelConfig config_;
  std::unique_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<const text::ChatTemplate> chat_template_;
  Weights weights_;
  LoadReport load_report_;
};

}  // namespace

gguf::ReadOptions ReadOptionsFor(const EngineOptions& options) {
  static const std::map<std::string, gguf::I2SLayout, std::less<>> kLayouts = {
      {"x86", gguf::I2SLayout::kX86},
      {"arm64", gguf::I2SLayout::kArm64},
      {"interleaved4", gguf::I2SLayout::kInterleaved4}};
  const auto layout = kLayouts.find(options.i2s_layout);
  if (layout == kLayouts.end()) {
    throw ModelError("The I2_S layout must be x86, arm64 or interleaved4, but it is \"" +
                     options.i2s_layout + "\".");
  }
  return {.i2s_layout = layout->second};
}

namespace {

// The published files of BitNet b1.58 2B-4T carry a placeholder, so for them the template comes
// from the model's own documentation.
constexpr std::string_view kBitnet2BTemplate =
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

bool IsBitnet2BPlaceholder(const ModelConfig& config, const std::string& source) {
  return config.architecture.starts_with("bitnet") && config.vocabulary == 128256 &&
         source.find("BITNETAssistant") != std::string::npos;
}

std::unique_ptr<const text::ChatTemplate> LoadTemplate(const gguf::Metadata& metadata,
                                                       const ModelConfig& config) {
  std::optional<std::string> source = ChatTemplateSource(metadata, config);
  if (!source) return nullptr;
  try {
    return std::make_unique<const text::ChatTemplate>(*std::move(source));
  } catch (const text::TemplateError& error) {
    throw ModelError("The file's tokenizer.chat_template cannot be used: " +
                     std::string(error.what()));
  }
}

// Builds the tokenizer beside the rest of the load: it is the work of one thread.
class TokenizerTask {
 public:
  // metadata outlives the task.
  TokenizerTask(const gguf::Metadata& metadata, uint32_t vocabulary)
      : vocabulary_(vocabulary), future_(std::async(std::launch::async, [&metadata] {
          return text::Tokenizer::FromMetadata(metadata);
        })) {}

  // What is wrong with a tokenizer is told before gigabytes are packed. Errors: as Take().
  void CheckIfDone() {
    if (future_.valid() && future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
      Finish();
    }
  }
  // Waits for it. Errors: ModelError, gguf::FormatError.
  std::unique_ptr<const text::Tokenizer> Take() {
    if (future_.valid()) Finish();
    return std::move(tokenizer_);
  }

 private:
  void Finish() {
    tokenizer_ = future_.get();
    if (tokenizer_->size() <= vocabulary_) return;
    throw ModelError("The tokenizer has " + std::to_string(tokenizer_->size()) +
                     " tokens, but the model's vocabulary only " + std::to_string(vocabulary_) +
                     ".");
  }

  uint32_t vocabulary_;
  std::unique_ptr<const text::Tokenizer> tokenizer_;
  std::future<std::unique_ptr<const text::Tokenizer>> future_;
};

// Seconds of one phase after the other.
class PhaseClock {
 public:
  void End(std::string_view phase) {
    const double now = stopwatch_.Seconds();
    report_.phases.push_back({.name = phase, .seconds = now - report_.seconds});
    report_.seconds = now;
  }
  // Of the last phase, so much was another.
  void Split(std::string_view phase, double seconds) {
    report_.phases.back().seconds -= seconds;
    report_.phases.push_back({.name = phase, .seconds = seconds});
  }
  const LoadReport& Report() const { return report_; }

 private:
  Stopwatch stopwatch_;
  LoadReport report_;
};

// What packed weights depend on beside the file and the device.
std::string Settings(const ModelConfig& config, const EngineOptions& options) {
  return "activation " + std::to_string(static_cast<int>(config.ternary_activation)) + "; head " +
         std::string(HeadModeName(options.head)) + " from " +
         std::to_string(options.screened_head_bytes);
}

}  // namespace

std::optional<std::string> ChatTemplateSource(const gguf::Metadata& metadata,
                                              const ModelConfig& config) {
  const std::string* source = metadata.FindString("tokenizer.chat_template");
  if (source == nullptr) return std::nullopt;
  return IsBitnet2BPlaceholder(config, *source) ? std::string(kBitnet2BTemplate) : *source;
}

std::shared_ptr<const Model> Model::Load(const std::string& path, const EngineOptions& options,
                                         fabric::Device& device, fabric::WorkerTeam& /*team*/,
                                         const std::function<void(const LoadProgress&)>& progress) {
  PhaseClock clock;
  const auto report = [&](std::string_view phase, double fraction) {
    if (progress) progress({.phase = phase, .fraction = fraction});
  };
  const gguf::File file = gguf::File::Open(path, ReadOptionsFor(options));
  ModelConfig config = ModelConfig::FromGguf(file, options);
  std::unique_ptr<const text::ChatTemplate> chat_template = LoadTemplate(file.metadata(), config);
  report("weights", 0.0);
  TokenizerTask tokenizer(file.metadata(), config.vocabulary);
  const std::string cache_path = PackedCachePath(options.packed_cache, path);
  PackedCache cache =
      cache_path.empty()
          ? PackedCache()
          : PackedCache(cache_path, PackedCacheIdentity(file, device, Settings(config, options)));
  clock.End("header");
  const auto load_weights = [&] {
    return LoadWeights(file, config, device, options, cache, [&](double fraction) {
      tokenizer.CheckIfDone();
      report("weights", kWeightsShare * fraction);
    });
  };
  Weights weights;
  try {
    weights = load_weights();
  } catch (const PackedCacheError&) {
    cache.StartAnew();
    weights = load_weights();
  }
  cache.Finish();
  clock.End("weights");
  clock.Split("head", weights.head_sketch_seconds);
  for (const LoraSource& source : options.lora) {
    weights.adapters.push_back(LoadLora(source, config, weights, device));
    weights.resident_bytes += weights.adapters.back().resident_bytes;
  }
  if (!options.lora.empty()) clock.End("adapters");
  report("tokenizer", kWeightsShare);
  auto done_tokenizer = tokenizer.Take();
  clock.End("tokenizer");
  report("tokenizer", 1.0);
  LoadReport load_report = clock.Report();
  load_report.packed_cache = cache.outcome();
  return std::make_shared<const LoadedModel>(path, std::move(config), std::move(done_tokenizer),
                                             std::move(chat_template), std::move(weights),
                                             std::move(load_report));
}

}  // namespace engine
