#include "fabric/fault_plan.h"

#include <charconv>
#include <stdexcept>
#include <string_view>

namespace fabric {
namespace {

[[noreturn]] void Refuse(std::string_view part) {
  throw std::invalid_argument(
      "must be a list such as timeout=0.01,busy=0.02,corrupt=0.05,flip=0.001,disconnect=1000,"
      "seed=7 with rates from 0 to 1, not \"" +
      std::string(part) + "\"");
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

struct RateName {
  std::string_view name;
  double FaultPlan::*member;
};
constexpr RateName kRates[] = {{"timeout", &FaultPlan::timeout},
                               {"busy", &FaultPlan::busy},
                               {"corrupt", &FaultPlan::corrupt},
                               {"flip", &FaultPlan::flip}};
struct CountName {
  std::string_view name;
  uint64_t FaultPlan::*member;
};
constexpr CountName kCounts[] = {{"disconnect", &FaultPlan::disconnect},
                                 {"seed", &FaultPlan::seed}};

void ParsePart(std::string_view part, FaultPlan* plan) {
  const size_t equals = part.find('=');
  if (equals == std::string_view::npos) Refuse(part);
  const std::string_view name = part.substr(0, equals);
  const std::string_view value = part.substr(equals + 1);
  for (const RateName& rate : kRates) {
    if (rate.name != name) continue;
    double parsed = 0;
    if (!ParseNumber(value, &parsed) || !(parsed >= 0 && parsed <= 1)) Refuse(part);
    plan->*rate.member = parsed;
    return;
  }
  for (const CountName& count : kCounts) {
    if (count.name != name) continue;
    if (!ParseNumber(value, &(plan->*count.member))) Refuse(part);
    return;
  }
  Refuse(part);
}

template <typename Number>
void AppendPart(std::string_view name, Number value, std::string* text) {
  if (value == 0) return;
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  if (!text->empty()) *text += ',';
  text->append(name).append("=").append(buffer, result.ptr);
}

}  // namespace

FaultPlan ParseFaultPlan(const std::string& text) {
  FaultPlan plan;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    ParsePart(rest.substr(0, comma), &plan);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
    if (rest.empty()) Refuse(text);
  }
  return plan;
}

std::string FaultPlanText(const FaultPlan& plan) {
  std::string text;
  for (const RateName& rate : kRates) AppendPart(rate.name, plan.*rate.member, &text);
  for (const CountName& count : kCounts) AppendPart(count.name, plan.*count.member, &text);
  return text;
}

}  // namespace fabric
