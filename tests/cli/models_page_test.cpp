// Property: what docs/models.md says of the bundled model is what this build shows: the answers to
// ten fixed prompts, word for word, and the hash of the file.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/process.h"

namespace cli {
namespace {

using nlohmann::json;

std::string ReadSource(const std::string& name) {
  std::ifstream file(TERN_SOURCE_DIR "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The cells of a row of a Markdown table without its spaces.
std::vector<std::string> Cells(const std::string& row) {
  std::vector<std::string> cells;
  size_t begin = row.find('|') + 1;
  for (size_t end = row.find('|', begin); end != std::string::npos; end = row.find('|', begin)) {
    const std::string cell = row.substr(begin, end - begin);
    const size_t first = cell.find_first_not_of(' ');
    const size_t last = cell.find_last_not_of(' ');
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
    begin = end + 1;
  }
  return cells;
}

// The rows below the table head that begins with `head`.
std::vector<std::vector<std::string>> TableOf(const std::string& head) {
  std::istringstream page(ReadSource("docs/models.md"));
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(head)) {
      inside = true;
      std::getline(page, line);  // |---|
    } else if (inside && line.starts_with("|")) {
      rows.push_back(Cells(line));
    } else if (inside) {
      break;
    }
  }
  return rows;
}

TEST(ModelsPage, TheModelGivesTheTenAnswers) {
  const auto rows = TableOf("| prompt | answer |");
  ASSERT_EQ(rows.size(), 10u);
  for (const std::vector<std::string>& row : rows) {
    const ProcessResult result =
        RunTern({"generate", "--model", TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf", "--chat",
                 "--prompt", row[0], "--temperature", "0", "--max-tokens", "64", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    std::string text = json::parse(result.out)["text"];
    std::replace(text.begin(), text.end(), '\n', ' ');
    EXPECT_EQ(text, row[1]) << row[0];
  }
}

TEST(ModelsPage, HashIsThatOfTheBundledFile) {
  const std::string bytes = ReadSource("models/tern-demo-7m-i2_s.gguf");
  std::array<unsigned char, 32> digest{};
  ASSERT_EQ(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr),
            1);
  std::string hex = "`";
  for (const unsigned char byte : digest) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    hex += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  bool found = false;
  for (const auto& row : TableOf("| file | SHA-256 |")) {
    if (row[0] != "tern-demo-7m-i2_s.gguf") continue;
    EXPECT_EQ(row[1], hex + "`");
    found = true;
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace cli
