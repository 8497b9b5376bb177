#include "engine/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <variant>

#include "engine/errors.h"
#include "gguf/codec.h"

namespace engine {
namespace {

// Bounds on what a file may declare. They are far above any published model and keep every product
// of two of them inside 64 bits and every matrix inside what fabric::TernaryMatrix takes.
constexpr uint64_t kMaxLayers = 1024;
constexpr uint64_t kMaxWidth = (uint64_t{1} << 17) - 1;
constexpr uint64_t kMaxHeads = 1024;
constexpr uint64_t kMaxHeadDim = 1024;
constexpr uint64_t kMaxVocabulary = uint64_t{1} << 22;
constexpr uint64_t kMaxExperts = 4096;
constexpr uint64_t kMaxContext = uint64_t{1} << 20;  // PortableSinCos() takes angles up to this

constexpr float kMapleClamp = 7.0F;

bool IsBitnet(std::string_view architecture) {
  return architecture == "bitnet" || architecture == "bitnet-25" || architecture == "bitnet-b1.58";
}

constexpr std::array<std::string_view, 9> kArchitectures = {
    "bitnet", "bitnet-25", "bitnet-b1.58", "gemma3", "llama", "maple", "qwen2", "qwen3", "qwen35"};

bool IsKnown(std::string_view architecture) {
  return std::find(kArchitectures.begin(), kArchitectures.end(), architecture) !=
         kArchitectures.end();
}

// Reads `<arch>.<name>` keys, each checked against its range.
class KeyReader {
 public:
  KeyReader(const gguf::Metadata& metadata, std::string architecture)
      : metadata_(metadata), prefix_(std::move(architecture) + ".") {}

  std::string Key(std::string_view name) const { return prefix_ + std::string(name); }

  std::optional<uint32_t> FindCount(std::string_view name, uint64_t max) const {
    const std::string key = Key(name);
    const std::optional<uint64_t> value = metadata_.FindUint(key);
    if (!value) return std::nullopt;
    if (*value == 0 || *value > max) {
      throw ModelError(key + " must be between 1 and " + std::to_string(max) +
                       ", but the file says " + std::to_string(*value) + ".");
    }
    return static_cast<uint32_t>(*value);
  }

  uint32_t Count(std::string_view name, uint64_t max) const {
    const std::optional<uint32_t> value = FindCount(name, max);
    if (!value) throw ModelError("The file has no " + Key(name) + ", which the model needs.");
    return *value;
  }

  std::optional<double> FindPositive(std::string_view name, double max) const {
    const std::string key = Key(name);
    const std::optional<double> value = metadata_.FindFloat(key);
    if (!value) return std::nullopt;
    if (!(*value > 0.0) || !(*value <= max)) {
      throw ModelError(key + " must be above 0 and at most " + std::to_string(max) +
                       ", but the file says " + std::to_string(*value) + ".");
    }
    return value;
  }

  const std::string* FindString(std::string_view name) const {
    return metadata_.FindString(Key(name));
  }

  const gguf::Metadata& metadata() const { return metadata_; }
  std::string architecture() const { return prefix_.substr(0, prefix_.size() - 1); }

 private:
  const gguf::Metadata& metadata_;
  std::string prefix_;
};

std::string ReadArchitecture(const gguf::File& file) {
  const std::string* architecture = file.metadata().FindString("general.architecture");
  if (architecture == nullptr) {
    throw ModelError("The file has no general.architecture, so it holds no model.");
  }
  if (IsKnown(*architecture)) return *architecture;
  std::string known;
  for (const std::string_view name : kArchitectures) {
    if (!known.empty()) known += ", ";
    known += name;
  }
  throw ModelError("The architecture \"" + *architecture + "\" is not supported; expected one of " +
                   known + ".");
}

// What changes the computation in ways that this engine does not implement is refused: running the
// file without it would give fluent nonsense.
void RefuseUnsupported(const KeyReader& keys) {
  if (!keys.metadata().FindBool(keys.Key("attention.causal")).value_or(true)) {
    throw ModelError(keys.Key("attention.causal") +
                     " is false: models whose tokens see what comes after them are not supported.");
  }
  if (keys.architecture() == "maple") return;
  if (keys.metadata().FindUint(keys.Key("expert_count")).value_or(0) > 0) {
    throw ModelError(keys.Key("expert_count") +
                     " is set: mixture-of-experts models of architecture " + keys.architecture() +
                     " are not supported.");
  }
}

// Blocks at the end that predict further tokens; the model itself does without them.
void ReadLayers(const KeyReader& keys, ModelConfig* config) {
  const uint32_t blocks = keys.Count("block_count", kMaxLayers);
  const uint64_t drafting = keys.metadata().FindUint(keys.Key("nextn_predict_layers")).value_or(0);
  if (drafting >= blocks) {
    throw ModelError(keys.Key("nextn_predict_layers") + " (" + std::to_string(drafting) +
                     ") must be below " + keys.Key("block_count") + " (" + std::to_string(blocks) +
                     ").");
  }
  config->ignored_layers = static_cast<uint32_t>(drafting);
  config->layers = blocks - config->ignored_layers;
  config->layer_kinds.resize(config->layers);
}

// A list of booleans, one per layer.
std::optional<std::vector<bool>> FindFlags(const KeyReader& keys, std::string_view name,
                                           uint32_t layers) {
  const std::string key = keys.Key(name);
  const gguf::MetadataValue* value = keys.metadata().FindValue(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<gguf::MetadataArray>(&value->value);
  const auto* flags =
      array == nullptr ? nullptr : std::get_if<std::vector<uint64_t>>(&array->values);
  if (flags == nullptr || flags->size() < layers) {
    throw ModelError(key + " must be a list of a boolean for each of the " +
                     std::to_string(layers) + " layers.");
  }
  std::vector<bool> result;
  for (uint32_t i = 0; i < layers; ++i) result.push_back((*flags)[i] != 0);
  return result;
}

// Qwen3.5: three Gated DeltaNet layers, then one of gated attention, and so on.
void ReadDeltaNet(const KeyReader& keys, ModelConfig* config) {
  config->gated_attention = true;
  const uint32_t interval = keys.FindCount("full_attention_interval", kMaxLayers).value_or(4);
  const auto recurrent = FindFlags(keys, "attention.recurrent_layers", config->layers);
  for (uint32_t i = 0; i < config->layers; ++i) {
    config->layer_kinds[i].recurrent = recurrent ? (*recurrent)[i] : (i + 1) % interval != 0;
  }
  DeltaNetShape& shape = config->delta_net;
  shape.kernel = keys.Count("ssm.conv_kernel", 64);
  shape.key_dim = keys.Count("ssm.state_size", kMaxHeadDim);
  shape.key_heads = keys.Count("ssm.group_count", kMaxHeads);
  shape.value_heads = keys.Count("ssm.time_step_rank", kMaxHeads);
  const uint32_t inner = keys.Count("ssm.inner_size", kMaxWidth);
  if (shape.value_heads % shape.key_heads != 0) {
    throw ModelError(keys.Key("ssm.time_step_rank") + " (" + std::to_string(shape.value_heads) +
                     ") must be a multiple of " + keys.Key("ssm.group_count") + " (" +
                     std::to_string(shape.key_heads) + ").");
  }
  if (inner % shape.value_heads != 0 || inner / shape.value_heads > kMaxHeadDim) {
    throw ModelError(keys.Key("ssm.inner_size") + " (" + std::to_string(inner) + ") must be " +
                     keys.Key("ssm.time_step_rank") + " (" + std::to_string(shape.value_heads) +
                     ") heads of at most " + std::to_string(kMaxHeadDim) + ".");
  }
  shape.value_dim = inner / shape.value_heads;
  if (uint64_t{2} * shape.key_heads * shape.key_dim + inner > kMaxWidth) {
    throw ModelError("The DeltaNet heads are wider together than " + std::to_string(kMaxWidth) +
                     ", which is not supported.");
  }
  if (config->attention_layers() == 0) {
    throw ModelError("The file has no layer of full attention, which a " + config->architecture +
                     " model needs.");
  }
}

void ReadWindow(const KeyReader& keys, ModelConfig* config) {
  config->sliding_window = keys.Count("attention.sliding_window", kMaxContext);
  const auto windowed = FindFlags(keys, "attention.sliding_window_pattern", config->layers);
  if (!windowed) {
    throw ModelError("The file has no " + keys.Key("attention.sliding_window_pattern") +
                     ", which the model needs.");
  }
  for (uint32_t i = 0; i < config->layers; ++i) {
    config->layer_kinds[i].windowed = (*windowed)[i];
    // Layers that see everything have no positions of their own.
    config->layer_kinds[i].rope = (*windowed)[i];
  }
  const auto base = keys.FindPositive("rope.freq_base_swa", 1e12);
  if (base) config->rope_base = *base;
}

// Gemma 3: normalised on both sides of a block, and of six layers all but the last see a window
// only, with a rotation of their own. Files without a window (BitNet embedding) have none.
void ReadGemma(const KeyReader& keys, ModelConfig* config) {
  for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.metadata().FindFloat(keys.Key(name)).value_or(0.0) == 0.0) continue;
    throw ModelError(keys.Key(name) + " is set: soft caps are not supported.");
  }
  config->post_norms = true;
  config->embedding_scale = std::sqrt(static_cast<float>(config->hidden));
  // The one size whose queries were not scaled by the size of a head.
  constexpr uint32_t kLayersOf27B = 62;
  if (config->layers == kLayersOf27B) config->score_dim = config->hidden / config->heads;
  const std::optional<uint32_t> window = keys.FindCount("attention.sliding_window", kMaxContext);
  if (!window) return;
  config->sliding_window = *window;
  config->window_rope_base = keys.FindPositive("rope.freq_base_swa", 1e12).value_or(10000.0);
  const auto windowed = FindFlags(keys, "attention.sliding_window_pattern", config->layers);
  constexpr uint32_t kPeriod = 6;
  for (uint32_t i = 0; i < config->layers; ++i) {
    config->layer_kinds[i].windowed = windowed ? (*windowed)[i] : (i + 1) % kPeriod != 0;
  }
}

void ReadExperts(const KeyReader& keys, ModelConfig* config) {
  ExpertShape& experts = config->experts;
  experts.count = keys.Count("expert_count", kMaxExperts);
  experts.used = keys.Count("expert_used_count", kMaxExperts);
  experts.ffn = keys.Count("expert_feed_forward_length", kMaxWidth);
  if (experts.used > experts.count) {
    throw ModelError(keys.Key("expert_used_count") + " (" + std::to_string(experts.used) +
                     ") must be at most " + keys.Key("expert_count") + " (" +
                     std::to_string(experts.count) + ").");
  }
  if (keys.metadata().FindUint(keys.Key("expert_shared_count")).value_or(0) > 0) {
    throw ModelError(keys.Key("expert_shared_count") +
                     " is set: shared experts are not supported.");
  }
  // Files from before the key mean 7, as the model was trained.
  experts.clamp.assign(config->layers, kMapleClamp);
  const std::string key = keys.Key("swiglu_clamp_exp");
  const gguf::MetadataValue* value = keys.metadata().FindValue(key);
  if (value == nullptr) return;
  if (std::holds_alternative<gguf::MetadataArray>(value->value)) {
    const auto limits = keys.metadata().FindFloats(key);
    if (limits->size() < config->layers) {
      throw ModelError(key + " must have a limit for each of the " +
                       std::to_string(config->layers) + " layers, but has " +
                       std::to_string(limits->size()) + ".");
    }
    for (uint32_t i = 0; i < config->layers; ++i) {
      experts.clamp[i] = static_cast<float>((*limits)[i]);
    }
  } else {
    experts.clamp.assign(config->layers,
                         static_cast<float>(*keys.FindPositive("swiglu_clamp_exp", 1e6)));
  }
  for (float& limit : experts.clamp) {
    // 0 is written for layers without a limit.
    if (limit == 0.0F) limit = std::numeric_limits<float>::infinity();
    if (!(limit > 0.0F)) throw ModelError(key + " must have limits above 0.");
  }
}

void ReadAttention(const KeyReader& keys, ModelConfig* config) {
  config->heads = keys.Count("attention.head_count", kMaxHeads);
  config->kv_heads = keys.FindCount("attention.head_count_kv", kMaxHeads).value_or(config->heads);
  if (config->heads % config->kv_heads != 0) {
    throw ModelError(keys.Key("attention.head_count") + " (" + std::to_string(config->heads) +
                     ") must be a multiple of " + keys.Key("attention.head_count_kv") + " (" +
                     std::to_string(config->kv_heads) + ").");
  }
  const std::optional<uint32_t> key_length = keys.FindCount("attention.key_length", kMaxHeadDim);
  if (!key_length && config->hidden % config->heads != 0) {
    throw ModelError(keys.Key("embedding_length") + " (" + std::to_string(config->hidden) +
                     ") must be a multiple of " + keys.Key("attention.head_count") + " (" +
                     std::to_string(config->heads) + ") when " + keys.Key("attention.key_length") +
                     " is absent.");
  }
  config->head_dim = key_length.value_or(config->hidden / config->heads);
  if (config->head_dim > kMaxHeadDim || config->head_dim % 2 != 0) {
    throw ModelError("The head size must be even and at most " + std::to_string(kMaxHeadDim) +
                     ", but the file says " + std::to_string(config->head_dim) + ".");
  }
  const std::optional<uint32_t> value_length =
      keys.FindCount("attention.value_length", kMaxHeadDim);
  if (value_length && *value_length != config->head_dim) {
    throw ModelError(keys.Key("attention.value_length") + " (" + std::to_string(*value_length) +
                     ") must equal the key length (" + std::to_string(config->head_dim) + ").");
  }
  if (uint64_t{config->heads} * config->head_dim > kMaxWidth) {
    throw ModelError("The attention heads are " +
                     std::to_string(uint64_t{config->heads} * config->head_dim) +
                     " wide together; at most " + std::to_string(kMaxWidth) + " is supported.");
  }
}

RopeScaling ReadScalingType(const KeyReader& keys) {
  const std::string* type = keys.FindString("rope.scaling.type");
  const bool has_factor = keys.metadata().Has(keys.Key("rope.scaling.factor")) ||
                          keys.metadata().Has(keys.Key("rope.scale_linear"));
  if (type == nullptr) return has_factor ? RopeScaling::kLinear : RopeScaling::kNone;
  if (*type == "none") return RopeScaling::kNone;
  if (*type == "linear") return RopeScaling::kLinear;
  if (*type == "yarn") return RopeScaling::kYarn;
  throw ModelError(keys.Key("rope.scaling.type") +
                   " must be none, linear or yarn, but the file says \"" + *type + "\".");
}

void ReadRope(const KeyReader& keys, ModelConfig* config) {
  config->rope = config->architecture == "llama" ? RopeKind::kNorm : RopeKind::kNeox;
  config->rope_dim = keys.FindCount("rope.dimension_count", kMaxHeadDim).value_or(config->head_dim);
  if (config->rope_dim % 2 != 0 || config->rope_dim > config->head_dim) {
    throw ModelError(keys.Key("rope.dimension_count") + " must be even and at most the head size " +
                     std::to_string(config->head_dim) + ", but the file says " +
                     std::to_string(config->rope_dim) + ".");
  }
  config->rope_base = keys.FindPositive("rope.freq_base", 1e12).value_or(10000.0);
  if (config->rope_base <= 1.0) {
    throw ModelError(keys.Key("rope.freq_base") + " must be above 1, but the file says " +
                     std::to_string(config->rope_base) + ".");
  }
  config->rope_scaling = ReadScalingType(keys);
  if (config->rope_scaling == RopeScaling::kNone) return;
  // 0 is written by some converters for "none".
  const std::string factor_key = keys.metadata().Has(keys.Key("rope.scaling.factor"))
                                     ? "rope.scaling.factor"
                                     : "rope.scale_linear";
  if (keys.metadata().FindFloat(keys.Key(factor_key)).value_or(0.0) == 0.0) {
    config->rope_scaling = RopeScaling::kNone;
    return;
  }
  config->rope_scaling_factor = *keys.FindPositive(factor_key, 1e6);
  if (config->rope_scaling_factor < 1.0) {
    throw ModelError(keys.Key(factor_key) + " must be at least 1, but the file says " +
                     std::to_string(config->rope_scaling_factor) + ".");
  }
  config->rope_original_context =
      keys.FindCount("rope.scaling.original_context_length", kMaxContext)
          .value_or(config->context_length);
  config->rope_attention_factor = keys.FindPositive("rope.scaling.attn_factor", 1e3).value_or(0.0);
  config->rope_beta_fast = keys.FindPositive("rope.scaling.yarn_beta_fast", 1e6).value_or(32.0);
  config->rope_beta_slow = keys.FindPositive("rope.scaling.yarn_beta_slow", 1e6).value_or(1.0);
}

// Every published file of BitNet b1.58 2B-4T lacks the key, so the architecture decides; a 2B-4T
// that mainline converted calls itself "bitnet" and is known by its shape.
FfnActivation ReadActivation(const KeyReader& keys, const ModelConfig& config) {
  if (const std::string* name = keys.FindString("hidden_activation")) {
    if (*name == "relu2" || *name == "relu_squared" || *name == "relu^2") {
      return FfnActivation::kReluSquared;
    }
    if (*name == "silu" || *name == "swish") return FfnActivation::kSilu;
    if (*name == "gelu_pytorch_tanh") return FfnActivation::kGelu;
    throw ModelError(keys.Key("hidden_activation") +
                     " must be relu2, silu or gelu_pytorch_tanh, but the file says \"" + *name +
                     "\".");
  }
  if (config.architecture == "gemma3") return FfnActivation::kGelu;
  const bool is_2b_4t = config.vocabulary == 128256 && config.hidden == 2560 && config.layers == 30;
  const std::string& architecture = config.architecture;
  const bool relu_squared = architecture == "bitnet-b1.58" || architecture == "bitnet-25" ||
                            (architecture == "bitnet" && is_2b_4t);
  return relu_squared ? FfnActivation::kReluSquared : FfnActivation::kSilu;
}

uint32_t ReadVocabulary(const KeyReader& keys) {
  if (const auto size = keys.FindCount("vocab_size", kMaxVocabulary)) return *size;
  const std::vector<std::string>* tokens = keys.metadata().FindStrings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty() || tokens->size() > kMaxVocabulary) {
    throw ModelError("The file has neither " + keys.Key("vocab_size") +
                     " nor a usable tokenizer.ggml.tokens, so its vocabulary is unknown.");
  }
  return static_cast<uint32_t>(tokens->size());
}

// True when every group that is looked at has the first one's scale. Looks at 17 rows from the
// first to the last: a format with a scale per group or shard shows two scales there, and decoding
// whole models only to find that they have one would double the load time.
bool HasOneScale(const gguf::File& file, const gguf::TensorInfo& info) {
  const gguf::TernaryDecoder decoder(info, file.TensorBytes(info), file.options());
  if (decoder.scale_layout() == gguf::ScaleLayout::kTensor) return true;
  std::vector<int8_t> trits(info.cols());
  std::vector<float> scales(decoder.scales_per_row());
  std::optional<float> first;
  const uint64_t steps = std::min<uint64_t>(info.rows() - 1, 16);
  for (uint64_t i = 0; i <= steps; ++i) {
    const uint64_t row = steps == 0 ? 0 : (info.rows() - 1) * i / steps;
    decoder.DecodeRow(row, trits, scales);
    for (size_t group = 0; group < scales.size(); ++group) {
      const auto begin = trits.begin() + static_cast<ptrdiff_t>(group * decoder.group());
      const auto end = trits.begin() + static_cast<ptrdiff_t>(std::min<size_t>(
                                           (group + 1) * decoder.group(), trits.size()));
      if (std::all_of(begin, end, [](int8_t trit) { return trit == 0; })) continue;
      if (!first) first = scales[group];
      if (scales[group] != *first) return false;
    }
  }
  return true;
}

ActivationMode ResolveActivation(const gguf::File& file, const std::string& architecture,
                                 ActivationMode wanted) {
  if (wanted != ActivationMode::kAuto) return wanted;
  if (IsBitnet(architecture)) return ActivationMode::kToken;
  for (const gguf::TensorInfo& info : file.tensors()) {
    if (info.name.starts_with("blk.") &&
        gguf::TernaryDecoder::Accepts(info, file.TensorBytes(info)) && !HasOneScale(file, info)) {
      return ActivationMode::kBlock;
    }
  }
  return ActivationMode::kToken;
}

// Numbers of GGUF's pooling_type. Files for generating have none, or 0 or -1: the last token is the
// only one that has seen everything. Rank pooling reads the last token too, before its classifier.
Pooling ReadPooling(const KeyReader& keys, const std::optional<Pooling>& wanted) {
  if (wanted) return *wanted;
  const double type = keys.metadata().FindFloat(keys.Key("pooling_type")).value_or(3);
  if (type == 1) return Pooling::kMean;
  return type == 2 ? Pooling::kCls : Pooling::kLast;
}

// Where the tensors that every attention layer has are looked for.
std::string FirstAttention(const ModelConfig& config) {
  uint32_t layer = 0;
  while (config.layer_kinds[layer].recurrent) ++layer;
  return "blk." + std::to_string(layer) + ".";
}

}  // namespace

uint32_t ModelConfig::attention_layers() const {
  const auto recurrent = std::count_if(layer_kinds.begin(), layer_kinds.end(),
                                       [](const LayerKind& kind) { return kind.recurrent; });
  return layers - static_cast<uint32_t>(recurrent);
}

ModelConfig ModelConfig::FromGguf(const gguf::File& file, const EngineOptions& options) {
  ModelConfig config;
  config.architecture = ReadArchitecture(file);
  const KeyReader keys(file.metadata(), config.architecture);
  RefuseUnsupported(keys);
  const std::string* name = file.metadata().FindString("general.name");
  config.name = name != nullptr && !name->empty() ? *name : config.architecture;
  ReadLayers(keys, &config);
  config.hidden = keys.Count("embedding_length", kMaxWidth);
  const bool mixture = config.architecture == "maple";
  if (mixture) {
    ReadExperts(keys, &config);
  } else {
    config.ffn = keys.Count("feed_forward_length", kMaxWidth);
  }
  config.context_length = keys.Count("context_length", kMaxContext);
  // Inside its window, sliding-window attention is full attention.
  if (const auto window = file.metadata().FindUint(keys.Key("attention.sliding_window"))) {
    const bool windows = config.architecture == "maple" || config.architecture == "gemma3";
    if (!windows && *window > 0 && *window < config.context_length) {
      config.context_length = static_cast<uint32_t>(*window);
    }
  }
  config.vocabulary = ReadVocabulary(keys);
  const std::optional<double> eps = keys.FindPositive("attention.layer_norm_rms_epsilon", 1.0);
  if (!eps) {
    throw ModelError("The file has no " + keys.Key("attention.layer_norm_rms_epsilon") +
                     ", which the model needs.");
  }
  config.norm_eps = static_cast<float>(*eps);
  ReadAttention(keys, &config);
  ReadRope(keys, &config);
  if (config.architecture == "qwen35") ReadDeltaNet(keys, &config);
  if (config.architecture == "maple") ReadWindow(keys, &config);
  if (config.architecture == "gemma3") ReadGemma(keys, &config);
  config.hadamard = HadamardRotation::FromGguf(file);
  config.activation = ReadActivation(keys, config);

  const auto has = [&](const std::string& tensor) { return file.FindTensor(tensor) != nullptr; };
  config.attention_sub_norm = has("blk.0.attn_sub_norm.weight");
  config.ffn_sub_norm = has("blk.0.ffn_sub_norm.weight");
  config.qk_norm = has(FirstAttention(config) + "attn_q_norm.weight");
  config.input_norms = has(FirstAttention(config) + "attn_q_norm_in.weight");
  config.qkv_bias = has(FirstAttention(config) + "attn_q.bias");
  config.tied_head = !has("output.weight");
  config.pooling = ReadPooling(keys, options.pooling);
  config.ternary_activation = ResolveActivation(file, config.architecture, options.activation);
  return config;
}

}  // namespace engine
