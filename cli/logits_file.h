#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "cli/unfinished_file.h"
#include "engine/token.h"

namespace cli {

// Predictions of one model along a text, for comparing another model with it. Little-endian:
//
//   file   := "TERNLGT1" u32 vocabulary u32 context u64 chunks u32 token[chunks * context]
//             record[chunks * (context - 1 - context / 2)]
//   record := f32 target_logprob  f32 step  u16 code[vocabulary]
//
// A record is one scored position, in the order of the text (docs/cli.md, perplexity): the
// log-probability of the token that came, and of token i: max - step * code[i], with code 0 for the
// most probable one alone. step spans the range of the log-probabilities but at most 40 nats, below
// which all are code 65535 (e^-40 is 4e-18): a log-probability is off by at most 3.1e-4 nats and
// the KL divergence of a model with its own file by about 1e-8. Two bytes per token of the
// vocabulary and position.
struct LogitsHeader {
  uint32_t vocabulary = 0;
  uint32_t context = 0;
  uint64_t chunks = 0;
  std::vector<engine::TokenId> tokens;  // [chunks * context]

  uint64_t positions() const { return chunks * (context - 1 - context / 2); }
};

// Writes a file from front to back; it appears under its name only when Finish() returns.
// Errors: std::runtime_error naming path and reason.
class LogitsWriter {
 public:
  LogitsWriter(std::string path, const LogitsHeader& header);
  LogitsWriter(const LogitsWriter&) = delete;
  LogitsWriter& operator=(const LogitsWriter&) = delete;
  ~LogitsWriter();  // removes what is not finished

  // The next position. logits: [vocabulary]; log_sum = LogSumExp(logits).
  void Add(std::span<const float> logits, float log_sum, engine::TokenId target);
  void Finish();

 private:
  void Check() const;

  std::string path_;
  std::string partial_;
  UnfinishedFile unfinished_;
  std::ofstream file_;
  std::vector<uint16_t> codes_;
  uint64_t left_ = 0;
  bool finished_ = false;
};

// Reads such a file from front to back, everything checked against its size.
// Errors: std::runtime_error naming path, expected and found.
class LogitsReader {
 public:
  explicit LogitsReader(const std::string& path);

  const LogitsHeader& header() const { return header_; }

  struct Record {
    float target_logprob = 0;
    std::vector<double> logprobs;  // [vocabulary], normalised to sum to one in probability
  };
  // The next position. Valid until the next call. REQUIRES: not all were read.
  const Record& Next();

 private:
  [[noreturn]] void Throw(const std::string& what) const;

  std::string path_;
  std::ifstream file_;
  LogitsHeader header_;
  std::vector<uint16_t> codes_;
  Record record_;
};

}  // namespace cli
