// Untrusted bodies: nothing that is no JSON, too deep or built to be slow gets through, and no
// input overflows the stack.
#include "server/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace server {
namespace {

int StatusOf(const std::string& text, uint32_t depth = 128) {
  try {
    ParseJson(text, depth);
    return 200;
  } catch (const ApiError& error) {
    return error.status();
  }
}

std::string Nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(Json, DepthIsLimitedExactly) {
  EXPECT_EQ(StatusOf(Nested(128)), 200);
  EXPECT_EQ(StatusOf(Nested(129)), 400);
}

TEST(Json, MillionBracketsAreRefusedWithoutRecursion) {
  EXPECT_EQ(StatusOf(std::string(1'000'000, '[')), 400);
  std::string objects;
  for (int i = 0; i < 300'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(StatusOf(objects), 400);
}

TEST(Json, BracketsInsideStringsDoNotCount) {
  EXPECT_EQ(StatusOf("\"" + std::string(1000, '[') + "\\\"" + std::string(1000, '{') + "\""), 200);
}

TEST(Json, WhatIsNoJsonIs400) {
  for (const char* text : {"", "{", "NaN", "[1e999]", "[-1e999]", "{\"a\":Infinity}", "'a'",
                           "{a:1}", "[1,]", "\"\xFF\"", "\"\xED\xA0\x80\"", "\"\\ud800\"", "\"abc",
                           "\"\\", "1 2", "[\"\x01\"]", "]", "}{", ":::"}) {
    EXPECT_EQ(StatusOf(text), 400) << text;
  }
}

TEST(Json, ObjectBuiltToMakeLookUpQuadraticIsRefused) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text += "\"z\":0}";
  EXPECT_EQ(StatusOf(text), 400);
}

TEST(Json, LongKeysThatDifferOnlyAtTheirEndsAreRefused) {
  const std::string prefix(3000, 'x');
  std::string text = "{";
  for (int i = 0; i < 3000; ++i) text += "\"" + prefix + std::to_string(1000 + i) + "\":0,";
  text += "\"z\":0}";
  EXPECT_EQ(StatusOf(text), 400);
}

TEST(Json, ThousandsOfKeysAreFine) {
  std::string text = "{";
  for (int i = 0; i < 4000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text += "\"z\":0}";
  EXPECT_EQ(StatusOf(text), 200);
}

TEST(Json, OrderOfKeysIsKeptInValues) {
  const auto value = ToValue(ParseJson(R"({"z":1,"a":[true,null,2.5,"x"]})", 8));
  const auto* object = value.as_object();
  ASSERT_NE(object, nullptr);
  ASSERT_EQ(object->size(), 2U);
  EXPECT_EQ(object->items()[0].first, "z");
  EXPECT_EQ(*object->items()[0].second.as_int(), 1);
  const auto* array = object->items()[1].second.as_array();
  ASSERT_NE(array, nullptr);
  EXPECT_EQ(*(*array)[0].as_bool(), true);
  EXPECT_TRUE((*array)[1].is_null());
  EXPECT_EQ(*(*array)[2].as_double(), 2.5);
  EXPECT_EQ(*(*array)[3].as_string(), "x");
}

TEST(Json, IntegersBeyondInt64BecomeDoubles) {
  const auto value = ToValue(ParseJson("18446744073709551615", 8));
  ASSERT_NE(value.as_double(), nullptr);
  EXPECT_EQ(*value.as_double(), 18446744073709551615.0);
  EXPECT_EQ(*ToValue(ParseJson("-9223372036854775808", 8)).as_int(), INT64_MIN);
}

}  // namespace
}  // namespace server
