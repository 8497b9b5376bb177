#include "cli/tensor_type.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "cli/command.h"

namespace cli {
namespace {

using gguf::TensorType;

constexpr std::array kTypes = {
    TensorType::kF32,       TensorType::kF16,       TensorType::kBF16,   TensorType::kQ4_0,
    TensorType::kQ4_1,      TensorType::kQ5_0,      TensorType::kQ5_1,   TensorType::kQ8_0,
    TensorType::kQ2_K,      TensorType::kQ3_K,      TensorType::kQ4_K,   TensorType::kQ5_K,
    TensorType::kQ6_K,      TensorType::kIQ4_NL,    TensorType::kIQ4_XS, TensorType::kTQ1_0,
    TensorType::kTQ2_0,     TensorType::kI2_S,      TensorType::kQ1_0,   TensorType::kQ2_0,
    TensorType::kIQ1_BN,    TensorType::kIQ2_BN,    TensorType::kPQ2_0,  TensorType::kPTQ1_0,
    TensorType::kIQ2_BN_R4, TensorType::kQ2_0_G128,
};

}  // namespace

TensorType ParseTensorType(const std::string& name) {
  const auto same = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) ==
           std::toupper(static_cast<unsigned char>(b));
  };
  std::string names;
  for (const TensorType type : kTypes) {
    const std::string_view known = gguf::TypeName(type);
    if (std::equal(known.begin(), known.end(), name.begin(), name.end(), same)) return type;
    if (!names.empty()) names += ", ";
    names += known;
  }
  throw UsageError("The type must be one of " + names + ", not \"" + name + "\".");
}

}  // namespace cli
