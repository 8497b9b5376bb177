// A key gets what its limits allow, no more; what it must wait is what makes the next request pass;
// a budget survives a reload of the keys.
#include "server/key_budget.h"

#include <gtest/gtest.h>

#include <chrono>

#include "server/auth.h"

namespace server {
namespace {

using std::chrono::duration;
using std::chrono::duration_cast;

Clock::time_point At(double seconds) {
  return Clock::time_point(std::chrono::hours(1)) +
         duration_cast<Clock::duration>(duration<double>(seconds));
}

TEST(KeyBudget, RequestsPerMinuteRefillAtTheirRate) {
  KeyBudget budget({.requests_per_minute = 3});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(budget.Enter(At(0)));
  const auto refused = budget.Enter(At(0));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->limit, KeyBudget::Limit::kRequests);
  EXPECT_EQ(refused->allowed, 3U);
  EXPECT_NEAR(refused->wait_seconds, 20, 1e-6);
  EXPECT_TRUE(budget.Enter(At(19.9)));
  EXPECT_FALSE(budget.Enter(At(20.1)));
  EXPECT_TRUE(budget.Enter(At(20.2)));
  EXPECT_FALSE(budget.Enter(At(1000)));
}

TEST(KeyBudget, TokensAreADebtThatLaterRequestsWaitFor) {
  KeyBudget budget({.tokens_per_minute = 600});
  EXPECT_FALSE(budget.Enter(At(0)));
  budget.UseTokens(1000, 199, At(0));  // a minute's worth and 599 more
  const auto refused = budget.Enter(At(0));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->limit, KeyBudget::Limit::kTokens);
  EXPECT_NEAR(refused->wait_seconds, 60, 1e-6);
  EXPECT_TRUE(budget.Enter(At(59.9)));
  EXPECT_FALSE(budget.Enter(At(60.1)));
}

TEST(KeyBudget, ConcurrentRequestsAreCountedUntilTheyLeave) {
  const auto budget = std::make_shared<KeyBudget>(KeyLimits{.concurrent = 2});
  auto first = [&] {
    EXPECT_FALSE(budget->Enter(At(0)));
    return std::make_unique<RequestUse>(budget);
  }();
  EXPECT_FALSE(budget->Enter(At(0)));
  const RequestUse second(budget);
  ASSERT_TRUE(budget->Enter(At(0)));
  EXPECT_EQ(budget->Enter(At(0))->limit, KeyBudget::Limit::kConcurrent);
  first.reset();
  EXPECT_FALSE(budget->Enter(At(0)));
  budget->Leave();
}

TEST(KeyBudget, RefusedRequestsCostNothing) {
  KeyBudget budget({.requests_per_minute = 1});
  EXPECT_FALSE(budget.Enter(At(0)));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(budget.Enter(At(1)));
  EXPECT_FALSE(budget.Enter(At(61)));
}

TEST(KeyBudget, UseWithoutALimitIsForgottenWhenOneComes) {
  KeyBudget budget({});
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(budget.Enter(At(0)));
  budget.UseTokens(0, 1'000'000, At(0));
  budget.SetLimits({.requests_per_minute = 2, .tokens_per_minute = 10});
  EXPECT_FALSE(budget.Enter(At(0)));
  EXPECT_FALSE(budget.Enter(At(0)));
  EXPECT_TRUE(budget.Enter(At(0)));
}

TEST(KeyBudget, RemainingSaysWhatIsLeft) {
  KeyBudget budget({.requests_per_minute = 60});
  for (int i = 0; i < 15; ++i) EXPECT_FALSE(budget.Enter(At(0)));
  EXPECT_EQ(budget.RequestsLeft(At(0)).allowed, 60U);
  EXPECT_EQ(budget.RequestsLeft(At(0)).left, 45U);
  EXPECT_NEAR(budget.RequestsLeft(At(0)).full_after_seconds, 15, 1e-6);
  EXPECT_EQ(budget.RequestsLeft(At(10)).left, 55U);
  EXPECT_EQ(budget.TokensLeft(At(0)).allowed, 0U);
}

TEST(KeyBudget, TotalsCountWhatWasAdmittedRefusedAndUsed) {
  const auto budget =
      std::make_shared<KeyBudget>(KeyLimits{.requests_per_minute = 2, .concurrent = 1});
  EXPECT_FALSE(budget->Enter(At(0)));
  {
    RequestUse use(budget);
    EXPECT_TRUE(budget->Enter(At(0)));
    EXPECT_EQ(budget->totals().running, 1U);
    use.AddTokens(30, 12);
  }
  EXPECT_FALSE(budget->Enter(At(0)));
  budget->Leave();
  EXPECT_TRUE(budget->Enter(At(0)));
  budget->UseTokens(100, 1, Clock::now());
  const KeyBudget::Totals totals = budget->totals();
  EXPECT_EQ(totals.requests, 2U);
  EXPECT_EQ(totals.refusals[static_cast<size_t>(KeyBudget::Limit::kConcurrent)], 1U);
  EXPECT_EQ(totals.refusals[static_cast<size_t>(KeyBudget::Limit::kRequests)], 1U);
  EXPECT_EQ(totals.refusals[static_cast<size_t>(KeyBudget::Limit::kTokens)], 0U);
  EXPECT_EQ(totals.prompt_tokens, 130U);
  EXPECT_EQ(totals.completion_tokens, 13U);
  EXPECT_EQ(totals.running, 0U);
}

TEST(KeyBudget, OutlivesAReloadUnderTheSameName) {
  Authenticator authenticator(
      {{.name = "alice", .key = "old", .limits = {.requests_per_minute = 1}}});
  const auto check = [&](const std::string& key) {
    HttpRequest request;
    request.headers.emplace_back("x-api-key", key);
    return authenticator.Check(request);
  };
  EXPECT_FALSE(check("old")->budget->Enter(At(0)));
  authenticator.Replace({{.name = "alice", .key = "new", .limits = {.requests_per_minute = 1}},
                         {.name = "bob", .key = "b", .limits = {.requests_per_minute = 1}}});
  EXPECT_FALSE(check("old"));
  EXPECT_TRUE(check("new")->budget->Enter(At(0)));
  EXPECT_FALSE(check("b")->budget->Enter(At(0)));
}

}  // namespace
}  // namespace server
