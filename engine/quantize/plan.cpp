#include "engine/quantize/plan.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "engine/quantize/error.h"
#include "gguf/quoted.h"
#include "gguf/type_layout.h"

namespace engine::quantize {
namespace {

using gguf::Quoted;
using gguf::ScaleLayout;
using gguf::TensorInfo;
using gguf::TensorType;

constexpr std::string_view kEmbedding = "token_embd.weight";
constexpr std::string_view kHead = "output.weight";

// Matrices that every published ternary model keeps in high precision: a router's small errors
// send tokens to other experts, the state-space ones feed a recurrence.
constexpr std::array<std::string_view, 9> kHighPrecision = {"ffn_gate_inp", "ffn_gate_inp_shexp",
                                                            "ssm_conv1d",   "ssm_alpha",
                                                            "ssm_beta",     "ssm_ba",
                                                            "ssm_dt",       "ssm_x",
                                                            "ssm_a"};

// Ordered by what to recommend: one scale per small group first, as it loses least.
constexpr std::array kTernaryTypes = {
    TensorType::kTQ2_0,  TensorType::kTQ1_0,  TensorType::kI2_S,
    TensorType::kQ2_0,   TensorType::kPQ2_0,  TensorType::kPTQ1_0,
    TensorType::kIQ2_BN, TensorType::kIQ1_BN, TensorType::kIQ2_BN_R4};

// What matrices take that the 256 columns of Q2_K to Q6_K and IQ4_XS do not fit, best first.
constexpr std::array kSmallBlockTypes = {TensorType::kQ8_0,   TensorType::kQ5_1, TensorType::kQ5_0,
                                         TensorType::kIQ4_NL, TensorType::kQ4_1, TensorType::kQ4_0};

std::string Name(TensorType type) { return std::string(gguf::TypeName(type)); }

// "ffn_down" of "blk.3.ffn_down.weight"; empty when the name has another form.
std::string_view ComponentOf(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  constexpr std::string_view kSuffix = ".weight";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return {};
  name.remove_prefix(kPrefix.size());
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot + 1 + kSuffix.size() > name.size()) return {};
  name.remove_prefix(dot + 1);
  name.remove_suffix(kSuffix.size());
  return name;
}

bool IsProjection(const TensorInfo& info) {
  const std::string_view component = ComponentOf(info.name);
  if (component.empty() || info.rank < 2 || info.rows() < 2) return false;
  if (component.ends_with("_norm")) return false;
  return std::find(kHighPrecision.begin(), kHighPrecision.end(), component) == kHighPrecision.end();
}

// Iterative with one point of return, so that no pattern takes more than |glob| * |text| steps.
bool Matches(std::string_view glob, std::string_view text) {
  size_t g = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = t;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++g;
      ++t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

bool Fits(TensorType type, const TensorInfo& info) {
  return gguf::LayoutByteSize(*gguf::FindTypeLayout(type), info.rows(), info.cols()).has_value();
}

// Of the kind of `wanted`: trits, or blocks of more levels.
std::string FittingTypes(const TensorInfo& info, TensorType wanted) {
  const bool ternary = gguf::TernaryScalesOf(wanted).has_value();
  std::string names;
  for (const TensorType type : ternary ? std::span<const TensorType>(kTernaryTypes)
                                       : std::span<const TensorType>(kSmallBlockTypes)) {
    if (Fits(type, info)) names += Name(type) + ", ";
  }
  return names.empty() && ternary ? "no ternary type, " : names;
}

class Planner {
 public:
  Planner(const gguf::File& file, const QuantizeOptions& options)
      : file_(file), options_(options), matched_(options.rules.size()) {}

  std::vector<PlannedTensor> Plan() {
    CheckOptions();
    std::vector<PlannedTensor> plan;
    bool any = false;
    for (const TensorInfo& info : file_.tensors()) {
      const std::optional<TensorType> wanted = WantedType(info);
      any = any || wanted.has_value();
      plan.push_back(wanted ? PlanOne(info, *wanted)
                            : PlannedTensor{.source = &info, .target = info.type, .copy = true});
    }
    for (size_t i = 0; i < matched_.size(); ++i) {
      if (matched_[i]) continue;
      throw QuantizeError("The file has no tensor that matches " + Quoted(options_.rules[i].glob) +
                          ".");
    }
    if (!any) {
      throw QuantizeError(
          "The file has nothing to convert: expected matrices named blk.N.*.weight.");
    }
    return plan;
  }

 private:
  void CheckOptions() const {
    CheckCalibration(options_.calibration);
    if (options_.embeddings && file_.FindTensor(kEmbedding) == nullptr) {
      throw QuantizeError("The file has no " + std::string(kEmbedding) + " to convert.");
    }
    if (options_.head && file_.FindTensor(kHead) == nullptr) {
      throw QuantizeError("The file has no " + std::string(kHead) +
                          ": its head is the embedding matrix, which the embeddings' type sets.");
    }
  }

  // std::nullopt: as it is.
  std::optional<TensorType> WantedType(const TensorInfo& info) {
    std::optional<TensorType> wanted;
    if (info.name == kEmbedding) {
      wanted = options_.embeddings;
    } else if (info.name == kHead) {
      wanted = options_.head;
    } else if (IsProjection(info)) {
      wanted = options_.type;
    }
    for (size_t i = 0; i < options_.rules.size(); ++i) {
      if (!Matches(options_.rules[i].glob, info.name)) continue;
      matched_[i] = true;
      wanted = options_.rules[i].type;
    }
    return wanted;
  }

  PlannedTensor PlanOne(const TensorInfo& info, TensorType wanted) const {
    PlannedTensor planned = {.source = &info, .target = wanted};
    if (!Fits(wanted, info)) {
      if (!options_.fallback || !Fits(*options_.fallback, info)) ThrowShape(info, wanted);
      planned.target = *options_.fallback;
      planned.fallback = true;
    }
    if (planned.target == info.type && file_.options().i2s_layout == gguf::I2SLayout::kX86) {
      planned.copy = true;
      return planned;
    }
    if (!gguf::TernaryScalesOf(planned.target)) return planned;
    planned.repack = gguf::TernaryDecoder::Accepts(info, file_.TensorBytes(info));
    if (!planned.repack) planned.ranges = RangesFor(planned.target);
    return planned;
  }

  [[noreturn]] void ThrowShape(const TensorInfo& info, TensorType wanted) const {
    const gguf::TypeLayout& layout = *gguf::FindTypeLayout(wanted);
    std::string message = "Tensor " + Quoted(info.name) + " has " + std::to_string(info.cols()) +
                          " columns and " + std::to_string(info.rows()) + " rows, but " +
                          Name(wanted) + " needs a multiple of " +
                          std::to_string(layout.block_cols) + " columns";
    if (layout.group_rows > 1) {
      message += " and of " + std::to_string(layout.group_rows) + " rows";
    }
    if (options_.fallback) message += ", and the fallback " + Name(*options_.fallback) + " no less";
    throw QuantizeError(message + ": choose a type that fits (" + FittingTypes(info, wanted) +
                        "F16) for the model or as the fallback.");
  }

  ScaleRanges RangesFor(TensorType type) const {
    if (type == TensorType::kQ1_0) {
      throw QuantizeError("Q1_0 is binary and holds no zero: floats need a ternary type.");
    }
    const gguf::TernaryScales finest = *gguf::TernaryScalesOf(type);
    switch (options_.granularity) {
      case Granularity::kAuto:
        return {finest.layout, finest.group};
      case Granularity::kTensor:
        return {ScaleLayout::kTensor, 0};
      case Granularity::kRow:
        if (finest.layout == ScaleLayout::kTensor) break;
        return {ScaleLayout::kRow, 0};
      case Granularity::kGroup:
        if (finest.layout != ScaleLayout::kGroup || options_.group == 0 ||
            options_.group % finest.group != 0) {
          break;
        }
        return {ScaleLayout::kGroup, options_.group};
    }
    constexpr std::string_view kHolds[] = {"one scale per tensor only",
                                           "one scale per row or per tensor"};
    throw QuantizeError(
        Name(type) + " holds " +
        (finest.layout == ScaleLayout::kGroup
             ? "scales of groups of a multiple of " + std::to_string(finest.group) + " columns"
             : std::string(kHolds[finest.layout == ScaleLayout::kRow ? 1 : 0])) +
        ", not " +
        (options_.granularity == Granularity::kRow
             ? "one per row."
             : "one per group of " + std::to_string(options_.group) + "."));
  }

  const gguf::File& file_;
  const QuantizeOptions& options_;
  std::vector<bool> matched_;
};

}  // namespace

std::vector<PlannedTensor> PlanTensors(const gguf::File& file, const QuantizeOptions& options) {
  return Planner(file, options).Plan();
}

std::optional<uint32_t> FileTypeOf(TensorType type) {
  // llama.cpp's llama_ftype (of its mixtures the one with most of the type, "S"); 40 for I2_S as in
  // BitNet's fork; 128 and 129 as in PrismML's files; 136, 137 and 337 as in ik_llama.cpp.
  constexpr std::pair<TensorType, uint32_t> kNumbers[] = {
      {TensorType::kF32, 0},        {TensorType::kF16, 1},      {TensorType::kQ4_0, 2},
      {TensorType::kQ4_1, 3},       {TensorType::kQ8_0, 7},     {TensorType::kQ5_0, 8},
      {TensorType::kQ5_1, 9},       {TensorType::kQ2_K, 10},    {TensorType::kQ3_K, 11},
      {TensorType::kQ4_K, 14},      {TensorType::kQ5_K, 16},    {TensorType::kQ6_K, 18},
      {TensorType::kIQ4_NL, 25},    {TensorType::kIQ4_XS, 30},  {TensorType::kBF16, 32},
      {TensorType::kTQ1_0, 36},     {TensorType::kTQ2_0, 37},   {TensorType::kI2_S, 40},
      {TensorType::kQ1_0, 40},      {TensorType::kQ2_0, 41},    {TensorType::kPQ2_0, 128},
      {TensorType::kPTQ1_0, 129},   {TensorType::kIQ1_BN, 136}, {TensorType::kIQ2_BN, 137},
      {TensorType::kIQ2_BN_R4, 337}};
  for (const auto& [known, number] : kNumbers) {
    if (known == type) return number;
  }
  return std::nullopt;
}

}  // namespace engine::quantize
