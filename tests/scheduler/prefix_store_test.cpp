// A saved prefix cache comes back as it was; a file that is damaged anywhere, cut anywhere, made
// with another key or for another model is refused in one sentence.

#include "scheduler/prefix_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace scheduler {
namespace {

using testing::HasSubstr;

constexpr SipKey kKey = {11, 22};
constexpr uint32_t kBlock = 4;
constexpr uint64_t kBytes = 24;

PrefixStoreFormat Format() {
  return {.identity = "model-1", .block_size = kBlock, .block_bytes = kBytes};
}

class PrefixStoreTest : public testing::Test {
 protected:
  PrefixStoreTest()
      : path_(std::filesystem::temp_directory_path() /
              ("tern-prefixes-" + std::to_string(getpid()))) {}
  ~PrefixStoreTest() override {
    std::error_code ignored;
    for (const char* ending : {"", ".key", ".part"}) {
      std::filesystem::remove(path_.string() + ending, ignored);
    }
  }

  static std::vector<PrefixCache::Entry> Entries() {
    return {{.block = 7, .parent = {}, .space = "a", .tokens = {1, 2, 3, 4}},
            {.block = 3, .parent = 7, .space = {}, .tokens = {5, 6, 7, 8}},
            {.block = 9, .parent = 7, .space = {}, .tokens = {5, 6}}};
  }

  void Save() {
    SavePrefixes(path_, kKey, Format(), Entries(), [](BlockId block, std::byte* out) {
      for (uint64_t i = 0; i < kBytes; ++i) out[i] = static_cast<std::byte>(block * 10 + i);
    });
  }

  // Empty when it was read; else the error.
  std::string Load(const SipKey& key = kKey, const PrefixStoreFormat& format = Format()) {
    entries_.clear();
    blocks_.clear();
    try {
      LoadPrefixes(
          path_, key, format,
          [this](const std::vector<PrefixCache::Entry>& entries) {
            entries_ = entries;
            std::vector<bool> wanted(entries.size(), true);
            wanted[1] = false;
            return wanted;
          },
          [this](size_t entry, std::span<const std::byte> bytes) {
            blocks_.emplace_back(entry, std::vector<std::byte>(bytes.begin(), bytes.end()));
          });
    } catch (const PrefixStoreError& error) {
      return error.what();
    }
    return {};
  }

  std::string Bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void SetBytes(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  std::filesystem::path path_;
  std::vector<PrefixCache::Entry> entries_;
  std::vector<std::pair<size_t, std::vector<std::byte>>> blocks_;
};

TEST_F(PrefixStoreTest, WhatWasSavedComesBack) {
  Save();
  ASSERT_EQ(Load(), "");
  ASSERT_EQ(entries_.size(), 3U);
  EXPECT_EQ(entries_[0].space, "a");
  EXPECT_EQ(entries_[2].space, "a");
  EXPECT_EQ(entries_[1].parent, 0U);
  EXPECT_EQ(entries_[2].parent, 0U);
  EXPECT_EQ(entries_[2].tokens, (std::vector<engine::TokenId>{5, 6}));
  ASSERT_EQ(blocks_.size(), 2U);
  EXPECT_EQ(blocks_[1].first, 2U);
  EXPECT_EQ(blocks_[1].second[3], static_cast<std::byte>(93));
}

TEST_F(PrefixStoreTest, OnlyItsOwnerMayReadIt) {
  Save();
  struct stat status {};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(PrefixStoreTest, AnyFlippedBitIsFound) {
  Save();
  const std::string good = Bytes();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    SetBytes(bad);
    EXPECT_NE(Load(), "") << i;
  }
}

TEST_F(PrefixStoreTest, AnyCutIsFound) {
  Save();
  const std::string good = Bytes();
  for (size_t size = 0; size < good.size(); ++size) {
    SetBytes(good.substr(0, size));
    EXPECT_NE(Load(), "") << size;
  }
}

TEST_F(PrefixStoreTest, AnotherKeyOrModelIsRefused) {
  Save();
  EXPECT_THAT(Load({11, 23}), HasSubstr("is damaged or not ours"));
  PrefixStoreFormat other = Format();
  other.identity = "model-2";
  EXPECT_THAT(Load(kKey, other), HasSubstr("another model"));
  other = Format();
  other.block_bytes = kBytes + 1;
  EXPECT_THAT(Load(kKey, other), HasSubstr("other KV settings"));
  std::filesystem::remove(path_);
  EXPECT_THAT(Load(), HasSubstr("cannot be read"));
}

// Heads that somebody made who has the key: every length and every parent is still checked.
TEST_F(PrefixStoreTest, AForgedHeadCannotReachOutside) {
  auto entries = Entries();
  entries[2].tokens.clear();
  SavePrefixes(path_, kKey, Format(), entries, [](BlockId, std::byte*) {});
  EXPECT_THAT(Load(), HasSubstr("broken entry"));
  entries = Entries();
  entries[2].tokens.resize(kBlock + 1);
  SavePrefixes(path_, kKey, Format(), entries, [](BlockId, std::byte*) {});
  EXPECT_THAT(Load(), HasSubstr("broken entry"));
  entries = Entries();
  std::swap(entries[1], entries[2]);
  entries.push_back({.block = 5, .parent = 9, .space = {}, .tokens = {1}});  // a tail's child
  SavePrefixes(path_, kKey, Format(), entries, [](BlockId, std::byte*) {});
  EXPECT_THAT(Load(), HasSubstr("broken entry"));
}

TEST_F(PrefixStoreTest, TheKeyIsMadeOnce) {
  const std::string path = path_.string() + ".key";
  const SipKey key = LoadOrMakeKey(path);
  EXPECT_NE(key, SipKey{});
  EXPECT_EQ(LoadOrMakeKey(path), key);
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  std::ofstream(path, std::ios::trunc) << "short";
  EXPECT_THROW(LoadOrMakeKey(path), PrefixStoreError);
}

// Named by mistake, a model for example.
TEST_F(PrefixStoreTest, AFileThatIsNoneIsLeftAsItIs) {
  std::ofstream(path_) << "GGUF and more";
  EXPECT_THAT(Load(), HasSubstr("is none"));
  try {
    Save();
    FAIL() << "it was replaced";
  } catch (const std::exception& error) {
    EXPECT_THAT(error.what(), HasSubstr("stays as it is"));
  }
  std::string text;
  std::getline(std::ifstream(path_), text);
  EXPECT_EQ(text, "GGUF and more");
  std::ofstream(path_, std::ios::trunc);
  EXPECT_NO_THROW(Save());  // an empty one is nobody's
  EXPECT_EQ(Load(), "");
}

}  // namespace
}  // namespace scheduler
