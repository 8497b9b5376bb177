// Every parameter outside its range is refused with its name, its range and the value.

#include "engine/sampling_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace engine {
namespace {

using ::testing::HasSubstr;

TEST(SamplingParams, DefaultsAndBoundariesAreValid) {
  std::string param;
  EXPECT_EQ(SamplingParams{}.Validate(10, &param), "");
  SamplingParams low;
  low.temperature = 0.0F;
  low.top_k = -1;
  low.top_p = 1e-6F;
  low.presence_penalty = -2.0F;
  low.frequency_penalty = -2.0F;
  low.repetition_penalty = 1e-3F;
  low.logit_bias = {{.token = 0, .bias = -100.0F}};
  EXPECT_EQ(low.Validate(10, &param), "");
  SamplingParams high;
  high.temperature = 2.0F;
  high.min_p = 1.0F;
  high.repetition_penalty = 2.0F;
  high.logprobs = 20;
  high.logit_bias = {{.token = 9, .bias = 100.0F}};
  EXPECT_EQ(high.Validate(10, &param), "");
}

TEST(SamplingParams, NamesWhatIsOutOfRange) {
  struct Case {
    const char* param;
    const char* value;
    std::function<void(SamplingParams&)> change;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Case> cases = {
      {"temperature", "2.5", [](SamplingParams& p) { p.temperature = 2.5F; }},
      {"temperature", "-0.1", [](SamplingParams& p) { p.temperature = -0.1F; }},
      {"temperature", "nan", [=](SamplingParams& p) { p.temperature = nan; }},
      {"top_p", "0", [](SamplingParams& p) { p.top_p = 0.0F; }},
      {"top_p", "1.01", [](SamplingParams& p) { p.top_p = 1.01F; }},
      {"top_k", "-2", [](SamplingParams& p) { p.top_k = -2; }},
      {"min_p", "-0.5", [](SamplingParams& p) { p.min_p = -0.5F; }},
      {"presence_penalty", "3", [](SamplingParams& p) { p.presence_penalty = 3.0F; }},
      {"frequency_penalty", "-3", [](SamplingParams& p) { p.frequency_penalty = -3.0F; }},
      {"repetition_penalty", "0", [](SamplingParams& p) { p.repetition_penalty = 0.0F; }},
      {"logprobs", "21", [](SamplingParams& p) { p.logprobs = 21; }},
      {"logit_bias", "token 10",
       [](SamplingParams& p) {
         p.logit_bias = {{10, 1.0F}};
       }},
      {"logit_bias", "token -1",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 1.0F}};
       }},
      {"logit_bias", "101",
       [](SamplingParams& p) {
         p.logit_bias = {{1, 101.0F}};
       }},
  };
  for (const Case& test : cases) {
    SamplingParams params;
    test.change(params);
    std::string param;
    const std::string message = params.Validate(10, &param);
    EXPECT_EQ(param, test.param);
    EXPECT_THAT(message, HasSubstr(test.param));
    EXPECT_THAT(message, HasSubstr(test.value));
  }
}

}  // namespace
}  // namespace engine
