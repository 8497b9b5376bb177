// Property: traceparent and tracestate are read exactly as W3C Trace Context says; what it tells to
// ignore is ignored; and what is sampled is the share that was asked for, the same ids everywhere.
#include "server/trace_context.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace server {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

std::string Parent(const std::string& version, const std::string& trace, const std::string& span,
                   const std::string& flags) {
  return version + "-" + trace + "-" + span + "-" + flags;
}

std::optional<TraceContext> Read(const std::string& parent) {
  return ReadTraceContext({{"traceparent", parent}});
}

std::string StateOf(const HeaderList& states) {
  HeaderList headers = states;
  headers.emplace_back("traceparent", Parent("00", kTrace, kSpan, "01"));
  return ReadTraceContext(headers)->state;
}

TEST(TraceContext, ReadsAndWritesTheSameText) {
  for (const char* flags : {"00", "01", "02", "03"}) {
    const std::string text = Parent("00", kTrace, kSpan, flags);
    const auto context = Read(text);
    ASSERT_TRUE(context) << text;
    EXPECT_EQ(FormatTraceparent(*context), text);
    EXPECT_EQ(Hex(context->trace_id), kTrace);
    EXPECT_EQ(Hex(context->span_id), kSpan);
  }
  EXPECT_FALSE(Read(Parent("00", kTrace, kSpan, "00"))->sampled);
  EXPECT_TRUE(Read(Parent("00", kTrace, kSpan, "09"))->sampled);  // unknown flags mean nothing
  EXPECT_FALSE(ReadTraceContext({{"tracestate", "a=1"}}));
}

TEST(TraceContext, LaterVersionsAreReadAsFarAsWeKnowThem) {
  EXPECT_TRUE(Read(Parent("01", kTrace, kSpan, "01")));
  EXPECT_TRUE(Read(Parent("cc", kTrace, kSpan, "01") + "-what-comes-later"));
  EXPECT_FALSE(Read(Parent("cc", kTrace, kSpan, "01") + ".what-comes-later"));
  EXPECT_FALSE(Read(Parent("00", kTrace, kSpan, "01") + "-more"));
  EXPECT_FALSE(Read(Parent("ff", kTrace, kSpan, "01")));
  EXPECT_EQ(FormatTraceparent(*Read(Parent("cc", kTrace, kSpan, "01") + "-x")),
            Parent("00", kTrace, kSpan, "01"));
}

TEST(TraceContext, MalformedParentsAreIgnored) {
  const std::string good = Parent("00", kTrace, kSpan, "01");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = bad[i] == '-' ? '0' : 'g';
    EXPECT_FALSE(Read(bad)) << bad;
    EXPECT_FALSE(Read(good.substr(0, i))) << i;
  }
  for (const std::string& bad :
       {Parent("00", "0AF7651916cd43dd8448eb211c80319c", kSpan, "01"),
        Parent("00", std::string(32, '0'), kSpan, "01"),
        Parent("00", kTrace, std::string(16, '0'), "01"), std::string("00-" + good), good + " x"}) {
    EXPECT_FALSE(Read(bad)) << bad;
  }
  EXPECT_FALSE(ReadTraceContext({{"traceparent", good}, {"traceparent", good}}));
}

TEST(TraceContext, StatesAreJoinedInOrder) {
  EXPECT_EQ(StateOf({{"tracestate", "rojo=00f067aa0ba902b7"}}), "rojo=00f067aa0ba902b7");
  EXPECT_EQ(StateOf({{"tracestate", "a=1 , b=2"}, {"tracestate", ",,\tc=3"}}), "a=1,b=2,c=3");
  EXPECT_EQ(StateOf({{"tracestate", "1tenant@sys=v v"}}), "1tenant@sys=v v");
  EXPECT_EQ(StateOf({{"tracestate", "foo@bar=" + std::string(256, 'v')}}).size(), 264U);
  EXPECT_EQ(StateOf({}), "");
}

TEST(TraceContext, AMalformedStateIsDroppedButNotTheParent) {
  std::string many;
  for (int i = 0; i < 33; ++i) many += "k" + std::to_string(i) + "=1,";
  for (const std::string& bad :
       {std::string("A=1"), std::string("1a=1"), std::string("a"), std::string("a="),
        std::string("a=b=c"), std::string("a=1,a=2"), std::string("@s=1"), std::string("t@=1"),
        std::string("t@1s=1"), std::string("a=\x7f"), std::string("a=\xc3\xa9"),
        "a=" + std::string(257, 'v'), std::string(257, 'a') + "=1",
        "t@" + std::string(15, 's') + "=1", many}) {
    EXPECT_EQ(StateOf({{"tracestate", "good=1," + bad}}), "") << bad;
  }
}

TEST(TraceContext, NewIdsDiffer) {
  EXPECT_NE(NewTraceId(), NewTraceId());
  EXPECT_NE(NewSpanId(), NewSpanId());
  EXPECT_FALSE(IsZero(NewTraceId()));
}

TEST(TraceContext, SampleHasTheShareThatWasAskedFor) {
  constexpr int kCount = 20000;
  for (const double ratio : {0.0, 0.1, 0.5, 1.0}) {
    int sampled = 0;
    for (int i = 0; i < kCount; ++i) sampled += InSample(NewTraceId(), ratio) ? 1 : 0;
    // Eight standard deviations.
    EXPECT_NEAR(sampled, ratio * kCount, 8 * std::sqrt(kCount * ratio * (1 - ratio))) << ratio;
  }
  // The rule is on the last 56 bits, whatever the first ones are.
  TraceId id{};
  id.fill(0xFF);
  std::fill(id.begin() + 9, id.end(), uint8_t{0});
  EXPECT_FALSE(InSample(id, 0.999));
  id[9] = 0x80;
  EXPECT_TRUE(InSample(id, 0.5));
  EXPECT_FALSE(InSample(id, 0.499));
}

}  // namespace
}  // namespace server
