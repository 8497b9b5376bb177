// Typed look-ups convert only what converts without loss; everything else names key, expected and
// found.
#include "gguf/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "gguf/error.h"

namespace gguf {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::function<void()>& lookup) {
  try {
    lookup();
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

Metadata Example() {
  Metadata metadata;
  metadata.Set("signed", {ValueType::kInt32, int64_t{7}});
  metadata.Set("negative", {ValueType::kInt8, int64_t{-7}});
  metadata.Set("huge", {ValueType::kUint64, uint64_t{1} << 60 | 1});
  metadata.Set("float", {ValueType::kFloat32, 1.5});
  metadata.Set("flag", {ValueType::kBool, true});
  metadata.Set("text", {ValueType::kString, std::string("words")});
  metadata.Set("bytes", {ValueType::kArray,
                         MetadataArray{ValueType::kUint8, std::vector<uint64_t>{1, 255}}});
  metadata.Set("wide", {ValueType::kArray,
                        MetadataArray{ValueType::kUint64, std::vector<uint64_t>{~uint64_t{0}}}});
  metadata.Set("flags",
               {ValueType::kArray, MetadataArray{ValueType::kBool, std::vector<uint64_t>{1}}});
  metadata.Set("halves",
               {ValueType::kArray, MetadataArray{ValueType::kFloat32, std::vector<double>{0.5}}});
  return metadata;
}

TEST(Metadata, ConvertsWhatIsExact) {
  const Metadata metadata = Example();
  EXPECT_EQ(metadata.GetUint("signed"), 7u);
  EXPECT_EQ(metadata.GetFloat("signed"), 7.0);
  EXPECT_EQ(metadata.GetFloat("negative"), -7.0);
  EXPECT_EQ(metadata.GetFloat("float"), 1.5);
  EXPECT_TRUE(metadata.GetBool("flag"));
  EXPECT_EQ(metadata.GetString("text"), "words");
  EXPECT_EQ(metadata.FindInts("bytes"), (std::vector<int64_t>{1, 255}));
  EXPECT_EQ(metadata.FindFloats("halves"), std::vector<double>{0.5});
}

TEST(Metadata, RefusesWhatIsNot) {
  const Metadata metadata = Example();
  EXPECT_THAT(ErrorOf([&] { metadata.GetUint("negative"); }),
              HasSubstr("\"negative\": expected an unsigned integer, found an int8 of value -7"));
  EXPECT_THAT(ErrorOf([&] { metadata.GetUint("float"); }), HasSubstr("found a float32"));
  EXPECT_THAT(ErrorOf([&] { metadata.GetUint("flag"); }), HasSubstr("found a bool"));
  EXPECT_THAT(ErrorOf([&] { metadata.GetFloat("huge"); }), HasSubstr("expected a number"));
  EXPECT_THAT(ErrorOf([&] { metadata.GetBool("signed"); }), HasSubstr("expected a bool"));
  EXPECT_THAT(ErrorOf([&] { metadata.FindString("bytes"); }),
              HasSubstr("found an array whose elements are each a uint8"));
  EXPECT_THAT(ErrorOf([&] { metadata.FindStrings("bytes"); }), HasSubstr("an array of strings"));
  EXPECT_THAT(ErrorOf([&] { metadata.FindInts("flags"); }), HasSubstr("an array of integers"));
  EXPECT_THAT(ErrorOf([&] { metadata.FindInts("wide"); }),
              HasSubstr("expected integers below 2^63"));
  EXPECT_THAT(ErrorOf([&] { metadata.FindFloats("text"); }), HasSubstr("found a string"));
}

TEST(Metadata, AbsentKeys) {
  const Metadata metadata = Example();
  EXPECT_FALSE(metadata.Has("absent"));
  EXPECT_EQ(metadata.FindUint("absent"), std::nullopt);
  EXPECT_EQ(metadata.FindFloat("absent"), std::nullopt);
  EXPECT_EQ(metadata.FindBool("absent"), std::nullopt);
  EXPECT_EQ(metadata.FindString("absent"), nullptr);
  EXPECT_EQ(metadata.FindStrings("absent"), nullptr);
  EXPECT_EQ(metadata.FindInts("absent"), std::nullopt);
  EXPECT_EQ(metadata.FindFloats("absent"), std::nullopt);
  EXPECT_THAT(ErrorOf([&] { metadata.GetString("absent"); }),
              HasSubstr("\"absent\" is missing: expected a string"));
}

TEST(Metadata, SetReplacesInPlace) {
  Metadata metadata = Example();
  const size_t count = metadata.entries().size();
  metadata.Set("signed", {ValueType::kUint8, uint64_t{9}});
  EXPECT_EQ(metadata.entries().size(), count);
  EXPECT_EQ(metadata.entries()[0].first, "signed");
  EXPECT_EQ(metadata.GetUint("signed"), 9u);
}

}  // namespace
}  // namespace gguf
