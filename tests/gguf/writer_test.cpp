// What the writer writes the reader reads back: every value type, tensors of any order, split
// files; and a failed write leaves nothing behind.
#include "gguf/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gguf/mapped_file.h"
#include "gguf/reader.h"
#include "tests/support/gguf_builder.h"

namespace gguf {
namespace {

using testing::HasSubstr;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::path(testing::TempDir()) /
            (std::string("tern_gguf_") + test->name() + "_" + std::to_string(getpid()));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> Pattern(size_t size, int first) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return bytes;
}

MetadataValue ArrayOf(ValueType type, auto values) {
  return {ValueType::kArray, MetadataArray{type, std::move(values)}};
}

Writer Example() {
  Writer writer;
  Metadata& metadata = writer.metadata();
  metadata.Set("u8", {ValueType::kUint8, uint64_t{255}});
  metadata.Set("i8", {ValueType::kInt8, int64_t{-128}});
  metadata.Set("u16", {ValueType::kUint16, uint64_t{65535}});
  metadata.Set("i16", {ValueType::kInt16, int64_t{-32768}});
  metadata.Set("u32", {ValueType::kUint32, uint64_t{0xffffffff}});
  metadata.Set("i32", {ValueType::kInt32, int64_t{-2147483648}});
  metadata.Set("f32", {ValueType::kFloat32, static_cast<double>(0.1f)});
  metadata.Set("bool", {ValueType::kBool, true});
  metadata.Set("string", {ValueType::kString, std::string("with\0nul", 8)});
  metadata.Set("u64", {ValueType::kUint64, ~uint64_t{0}});
  metadata.Set("i64", {ValueType::kInt64, std::numeric_limits<int64_t>::min()});
  metadata.Set("f64", {ValueType::kFloat64, 0.1});
  metadata.Set("ints", ArrayOf(ValueType::kInt16, std::vector<int64_t>{-1, 2}));
  metadata.Set("bools", ArrayOf(ValueType::kBool, std::vector<uint64_t>{1, 0}));
  metadata.Set("floats", ArrayOf(ValueType::kFloat64, std::vector<double>{0.1, -0.0}));
  metadata.Set("strings", ArrayOf(ValueType::kString, std::vector<std::string>{"", "b"}));
  metadata.Set("none", ArrayOf(ValueType::kUint32, std::vector<uint64_t>{}));
  metadata.Set("nested", ArrayOf(ValueType::kArray,
                                 std::vector<MetadataArray>{
                                     {ValueType::kInt8, std::vector<int64_t>{-3}},
                                     {ValueType::kString, std::vector<std::string>{"deep"}}}));
  writer.AddTensor("first", TensorType::kF32, {3, 2}, Pattern(24, 1));
  writer.AddTensor("second", TensorType::kQ8_0, {32, 1, 2}, Pattern(68, 50));
  writer.AddTensor("scalar", TensorType::kF32, {1}, Pattern(4, 9));
  return writer;
}

TEST(Writer, ReaderGivesBackEverything) {
  const Writer writer = Example();
  const std::vector<std::byte> bytes = writer.Serialize();
  const File file = File::Parse(bytes);
  const Writer original = Example();
  Writer copy;
  for (const auto& [key, value] : file.metadata().entries()) copy.metadata().Set(key, value);
  for (const TensorInfo& info : file.tensors()) {
    const auto data = file.TensorBytes(info);
    copy.AddTensor(info.name, info.type, {info.extents.begin(), info.extents.begin() + info.rank},
                   {data.begin(), data.end()});
  }
  // Equal bytes prove that every value, type, extent and tensor byte came through.
  EXPECT_EQ(copy.Serialize(), bytes);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.metadata().FindValue("i64")->type, ValueType::kInt64);
  EXPECT_EQ(file.metadata().GetString("string").size(), 8u);
  const TensorInfo* second = file.FindTensor("second");
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->extents, (std::array<uint64_t, 4>{32, 1, 2, 1}));
  EXPECT_EQ(second->rank, 3u);
  EXPECT_EQ(second->offset % 32, 0u);
  EXPECT_EQ(file.TensorBytes(*second)[0], std::byte{50});
}

TEST(Writer, VersionTwoReadsTheSame) {
  std::vector<std::byte> bytes = Example().Serialize();
  bytes[4] = std::byte{2};
  const File file = File::Parse(bytes);
  EXPECT_EQ(file.version(), 2u);
  EXPECT_EQ(file.tensors().size(), 3u);
}

TEST(Writer, FileEqualsSerializedBytes) {
  const TemporaryFolder folder;
  const std::string path = folder.File("model.gguf");
  Example().WriteFile(path);
  const MappedFile mapped = MappedFile::Open(path);
  const std::vector<std::byte> bytes = Example().Serialize();
  EXPECT_TRUE(std::equal(mapped.bytes().begin(), mapped.bytes().end(), bytes.begin(), bytes.end()));
  EXPECT_EQ(File::Open(path).file_bytes(), bytes.size());
}

TEST(Writer, ProducersStreamInPieces) {
  Writer writer;
  writer.AddTensor("t", TensorType::kF32, {1000}, 4000, [](const Writer::Emit& emit) {
    const std::vector<std::byte> piece(40, std::byte{3});
    for (int i = 0; i < 100; ++i) emit(piece);
  });
  const std::vector<std::byte> bytes = writer.Serialize();
  const File file = File::Parse(bytes);
  EXPECT_EQ(file.TensorBytes(file.tensors()[0])[3999], std::byte{3});
}

TEST(Writer, ShortProducerFailsAndLeavesNothing) {
  const TemporaryFolder folder;
  const std::string path = folder.File("model.gguf");
  Writer writer;
  writer.AddTensor("t", TensorType::kF32, {4}, 16,
                   [](const Writer::Emit& emit) { emit(std::vector<std::byte>(12)); });
  try {
    writer.WriteFile(path);
    FAIL() << "a short tensor was accepted";
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr("wrote 12 bytes: expected 16"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(path).parent_path()));
}

TEST(Writer, FailuresNameThePathAndTheReason) {
  try {
    Example().WriteFile("/nonexistent/model.gguf");
    FAIL() << "wrote into a folder that is not there";
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/model.gguf.partial: No such file"));
  }
}

TEST(Writer, RefusesWrongSizesAndValues) {
  Writer writer;
  EXPECT_THROW(writer.AddTensor("t", TensorType::kF32, {4}, Pattern(15, 0)), FormatError);
  EXPECT_THROW(writer.AddTensor("t", TensorType::kF32, {}, Pattern(4, 0)), FormatError);
  EXPECT_THROW(writer.AddTensor("t", TensorType::kQ8_0, {33}, Pattern(34, 0)), FormatError);
  writer.metadata().Set("k", {ValueType::kUint8, uint64_t{256}});
  EXPECT_THROW(writer.Serialize(), FormatError);
  writer.metadata().Set("k", {ValueType::kUint8, std::string("text")});
  EXPECT_THROW(writer.Serialize(), FormatError);
}

TEST(Writer, RefusesTwoTensorsOfOneName) {
  Writer writer;
  writer.AddTensor("t", TensorType::kF32, {4}, Pattern(16, 0));
  writer.AddTensor("t", TensorType::kF32, {4}, Pattern(16, 0));
  EXPECT_THROW(writer.Serialize(), FormatError);
}

TEST(Writer, ContainerKeysOfTheSourceAreNotCopied) {
  Writer writer;
  writer.metadata().Set("general.alignment", support::UintValue(64));
  writer.metadata().Set("split.count", support::UintValue(3, ValueType::kUint16));
  writer.metadata().Set("general.name", support::TextValue("n"));
  const std::vector<std::byte> bytes = writer.Serialize();
  const File file = File::Parse(bytes);
  EXPECT_EQ(file.metadata().entries().size(), 1u);
}

TEST(Writer, OldQ2KeepsItsIdInTheFile) {
  Writer writer;
  writer.AddTensor("t", TensorType::kQ2_0_G128, {1280, 4}, Pattern(1360, 0));
  const std::vector<std::byte> bytes = writer.Serialize();
  EXPECT_EQ(File::Parse(bytes).tensors()[0].type, TensorType::kQ2_0_G128);
}

TEST(Reader, HonoursAnotherAlignment) {
  support::GgufBuilder builder(2, 1);
  builder.Uint32("general.alignment", 8).Tensor("a", {2}, 0, 0).Tensor("b", {1}, 0, 8);
  builder.Data(12, 8);
  const File file = File::Parse(builder.bytes());
  EXPECT_EQ(file.FindTensor("b")->offset, file.FindTensor("a")->offset + 8);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  EXPECT_THROW(MappedFile::Open("/nonexistent"), FormatError);
  EXPECT_THROW(MappedFile::Open("/tmp"), FormatError);
  EXPECT_THROW(MappedFile::Open("/dev/null"), FormatError);
  const TemporaryFolder folder;
  std::ofstream(folder.File("empty")).close();
  try {
    MappedFile::Open(folder.File("empty"));
    FAIL() << "an empty file was mapped";
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the file is empty"));
  }
}

TEST(MappedFile, MovesItsMapping) {
  const TemporaryFolder folder;
  std::ofstream(folder.File("f")) << "abc";
  MappedFile first = MappedFile::Open(folder.File("f"));
  MappedFile second = std::move(first);
  EXPECT_EQ(second.bytes().size(), 3u);
  second = MappedFile::Open(folder.File("f"));
  EXPECT_EQ(second.bytes()[2], std::byte{'c'});
}

// Writes part `number` of `count` holding the tensor "t<number>".
void WritePart(const std::string& path, uint16_t number, uint16_t count, uint64_t tensors) {
  support::GgufBuilder builder(1, 4);
  builder.Text("general.architecture", "llama");
  builder.Key("split.no", ValueType::kUint16).Put(number);
  builder.Key("split.count", ValueType::kUint16).Put(count);
  builder.Key("split.tensors.count", ValueType::kInt32).Put(static_cast<int32_t>(tensors));
  builder.Tensor("t" + std::to_string(number), {8}, 0, 0).Data(32);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(builder.bytes().data()),
             static_cast<std::streamsize>(builder.bytes().size()));
}

TEST(SplitFile, AnyPartOpensTheWhole) {
  const TemporaryFolder folder;
  for (uint16_t number = 0; number < 3; ++number) {
    WritePart(folder.File("m-0000" + std::to_string(number + 1) + "-of-00003.gguf"), number, 3, 3);
  }
  for (const char* name : {"m-00001-of-00003.gguf", "m-00003-of-00003.gguf"}) {
    const File file = File::Open(folder.File(name));
    ASSERT_EQ(file.tensors().size(), 3u);
    const TensorInfo* last = file.FindTensor("t2");
    ASSERT_NE(last, nullptr);
    EXPECT_EQ(last->part, 2u);
    EXPECT_EQ(file.TensorBytes(*last).size(), 32u);
    EXPECT_EQ(file.metadata().GetUint("split.no"), 0u);
  }
}

std::string RefusalOf(const std::string& path) {
  try {
    File::Open(path);
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

TEST(SplitFile, IncompleteOrInconsistentPartsAreRefused) {
  const TemporaryFolder folder;
  const std::string first = folder.File("m-00001-of-00002.gguf");
  const std::string second = folder.File("m-00002-of-00002.gguf");
  WritePart(first, 0, 2, 2);
  EXPECT_THAT(RefusalOf(first), HasSubstr("m-00002-of-00002.gguf: No such file"));
  WritePart(second, 0, 2, 2);
  EXPECT_THAT(RefusalOf(first), HasSubstr("calls itself part 0 (from 0) of 2: expected 1 of 2"));
  WritePart(second, 1, 2, 2);
  EXPECT_EQ(RefusalOf(first), "");
  WritePart(first, 1, 2, 2);
  EXPECT_THAT(RefusalOf(second), HasSubstr("calls itself part 1 (from 0) of 2: expected 0 of 2"));
  WritePart(first, 0, 2, 5);
  EXPECT_THAT(RefusalOf(first), HasSubstr("hold 2 tensors: expected 5"));
  WritePart(folder.File("renamed.gguf"), 0, 2, 2);
  EXPECT_THAT(RefusalOf(folder.File("renamed.gguf")),
              HasSubstr("expected a name ending in -00001-of-00002.gguf"));
}

TEST(SplitFile, TheSameTensorInTwoPartsIsRefused) {
  const TemporaryFolder folder;
  support::GgufBuilder part(1, 2);
  part.Key("split.no", ValueType::kUint16).Put(uint16_t{1});
  part.Key("split.count", ValueType::kUint16).Put(uint16_t{2}).Tensor("t0", {8}, 0, 0).Data(32);
  WritePart(folder.File("m-00001-of-00002.gguf"), 0, 2, 2);
  std::ofstream(folder.File("m-00002-of-00002.gguf"), std::ios::binary)
      .write(reinterpret_cast<const char*>(part.bytes().data()),
             static_cast<std::streamsize>(part.bytes().size()));
  EXPECT_THAT(RefusalOf(folder.File("m-00001-of-00002.gguf")), HasSubstr("occurs in two parts"));
}

TEST(Writer, AlignmentIsKeptWhereItIsAskedFor) {
  for (const uint64_t alignment : {uint64_t{8}, uint64_t{32}, uint64_t{256}, uint64_t{65536}}) {
    Writer writer;
    writer.SetAlignment(alignment);
    writer.metadata().Set("general.architecture", {ValueType::kString, std::string("llama")});
    writer.AddTensor("a", TensorType::kF32, {1}, std::vector<std::byte>(4, std::byte{1}));
    writer.AddTensor("b", TensorType::kF32, {3}, std::vector<std::byte>(12, std::byte{2}));
    const std::vector<std::byte> bytes = writer.Serialize();
    const File file = File::Parse(bytes);
    EXPECT_EQ(file.alignment(), alignment);
    EXPECT_EQ(file.metadata().Has("general.alignment"), alignment != 32);
    const TensorInfo& b = *file.FindTensor("b");
    EXPECT_EQ(b.offset % alignment, 0u);
    EXPECT_EQ(file.TensorBytes(b)[11], std::byte{2});
  }
  Writer writer;
  EXPECT_THROW(writer.SetAlignment(24), FormatError);
  EXPECT_THROW(writer.SetAlignment(0), FormatError);
  EXPECT_THROW(writer.SetAlignment(131072), FormatError);
}

}  // namespace
}  // namespace gguf
