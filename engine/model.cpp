#include "engine/model.h"

#include <map>
#include <utility>

#include "engine/errors.h"
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
              double load_seconds)
      : path_(std::move(path)),
        config_(std::move(config)),
        tokenizer_(std::move(tokenizer)),
        chat_template_(std::move(chat_template)),
        weights_(std::move(weights)),
        load_seconds_(load_seconds) {}

  const ModelConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { return *tokenizer_; }
  const text::ChatTemplate* chat_template() const override { return chat_template_.get(); }
  const Weights& weights() const override { return weights_; }
  const std::string& path() const override { return path_; }
  double load_seconds() const override { return load_seconds_; }

 private:
  std::string path_;
  ModelConfig config_;
  std::unique_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<const text::ChatTemplate> chat_template_;
  Weights weights_;
  double load_seconds_;
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
  const Stopwatch stopwatch;
  const auto report = [&](std::string_view phase, double fraction) {
    if (progress) progress({.phase = phase, .fraction = fraction});
  };
  const gguf::File file = gguf::File::Open(path, ReadOptionsFor(options));
  ModelConfig config = ModelConfig::FromGguf(file, options);
  // The small parts first: a broken tokenizer is told before gigabytes are repacked.
  report("tokenizer", 0.0);
  std::unique_ptr<const text::Tokenizer> tokenizer = text::Tokenizer::FromMetadata(file.metadata());
  if (tokenizer->size() > config.vocabulary) {
    throw ModelError("The tokenizer has " + std::to_string(tokenizer->size()) +
                     " tokens, but the model's vocabulary only " +
                     std::to_string(config.vocabulary) + ".");
  }
  std::unique_ptr<const text::ChatTemplate> chat_template = LoadTemplate(file.metadata(), config);
  Weights weights = LoadWeights(file, config, device, options.placement, [&](double fraction) {
    report("weights", (1.0 - kWeightsShare) + kWeightsShare * fraction);
  });
  for (const LoraSource& source : options.lora) {
    weights.adapters.push_back(LoadLora(source, config, weights, device));
    weights.resident_bytes += weights.adapters.back().resident_bytes;
  }
  return std::make_shared<const LoadedModel>(path, std::move(config), std::move(tokenizer),
                                             std::move(chat_template), std::move(weights),
                                             stopwatch.Seconds());
}

}  // namespace engine
