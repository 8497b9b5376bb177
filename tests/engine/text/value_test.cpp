// Objects keep insertion order, find every key at any size, and values tell their type.

#include "engine/text/value.h"

#include <gtest/gtest.h>

namespace engine::text {
namespace {

TEST(TextValue, TellsItsType) {
  EXPECT_TRUE(Value().is_null());
  EXPECT_EQ(*Value(true).as_bool(), true);
  EXPECT_EQ(*Value(3).as_int(), 3);
  EXPECT_EQ(*Value(2.5).as_double(), 2.5);
  EXPECT_EQ(*Value("text").as_string(), "text");
  EXPECT_EQ(Value(3).as_double(), nullptr);
  EXPECT_EQ(Value(true).as_int(), nullptr);
  EXPECT_EQ(Value("text").as_array(), nullptr);
  EXPECT_EQ(Value("text").as_object(), nullptr);
  EXPECT_EQ(Value(Array{Value(1), Value(2)}).as_array()->size(), 2u);
}

TEST(TextValue, ObjectKeepsOrderAndReplacesInPlace) {
  Object object;
  object.Set("b", 1);
  object.Set("a", 2);
  object.Set("b", 3);
  ASSERT_EQ(object.size(), 2u);
  EXPECT_EQ(object.items()[0].first, "b");
  EXPECT_EQ(*object.items()[0].second.as_int(), 3);
  EXPECT_EQ(object.Find("c"), nullptr);
}

TEST(TextValue, LargeObjectFindsEveryKey) {
  Object object;
  for (int i = 0; i < 1000; ++i) object.Set("key" + std::to_string(i), i);
  for (int i = 0; i < 1000; i += 7) object.Set("key" + std::to_string(i), -i);
  ASSERT_EQ(object.size(), 1000u);
  const Object copy = object;
  for (int i = 0; i < 1000; ++i) {
    const Value* value = copy.Find("key" + std::to_string(i));
    ASSERT_NE(value, nullptr) << i;
    EXPECT_EQ(*value->as_int(), i % 7 == 0 ? -i : i);
    EXPECT_EQ(copy.items()[static_cast<size_t>(i)].first, "key" + std::to_string(i));
  }
  EXPECT_EQ(copy.Find("key1000"), nullptr);
}

}  // namespace
}  // namespace engine::text
