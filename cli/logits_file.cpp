#include "cli/logits_file.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <utility>

namespace cli {
namespace {

constexpr std::array<char, 8> kMagic = {'T', 'E', 'R', 'N', 'L', 'G', 'T', '1'};
constexpr float kLargestRange = 40.0F;  // nats; see the header
constexpr float kLargestCode = 65535.0F;
constexpr uint32_t kLargestCount = 1 << 24;
constexpr uint64_t kHeaderBytes = 8 + 4 + 4 + 8;

uint64_t RecordBytes(uint32_t vocabulary) { return 8 + 2 * uint64_t{vocabulary}; }

template <typename T>
void Put(std::ofstream& file, const T& value) {
  file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T Get(std::ifstream& file) {
  T value{};
  file.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

}  // namespace

LogitsWriter::LogitsWriter(std::string path, const LogitsHeader& header)
    : path_(std::move(path)),
      partial_(path_ + ".partial"),
      unfinished_(partial_),
      file_(partial_, std::ios::binary | std::ios::trunc),
      codes_(header.vocabulary),
      left_(header.positions()) {
  assert(header.tokens.size() == header.chunks * header.context);
  Put(file_, kMagic);
  Put(file_, header.vocabulary);
  Put(file_, header.context);
  Put(file_, header.chunks);
  for (const engine::TokenId token : header.tokens) Put(file_, static_cast<uint32_t>(token));
  Check();
}

LogitsWriter::~LogitsWriter() {
  if (finished_) return;
  file_.close();
  std::remove(partial_.c_str());
}

void LogitsWriter::Check() const {
  if (file_) return;
  throw std::runtime_error("Cannot write " + path_ + ": " + std::strerror(errno) + ".");
}

void LogitsWriter::Add(std::span<const float> logits, float log_sum, engine::TokenId target) {
  assert(logits.size() == codes_.size() && left_ != 0);
  const auto highest = std::max_element(logits.begin(), logits.end());
  const auto lowest = std::min_element(logits.begin(), logits.end());
  const float range = std::min(*highest - *lowest, kLargestRange);
  const float step = range / kLargestCode;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float code = step == 0 ? 0 : std::nearbyint((*highest - logits[i]) / step);
    codes_[i] = static_cast<uint16_t>(std::clamp(code, 1.0F, kLargestCode));
  }
  // The only code 0: which token is the most probable survives the rounding.
  codes_[static_cast<size_t>(highest - logits.begin())] = 0;
  Put(file_, logits[static_cast<size_t>(target)] - log_sum);
  Put(file_, step);
  file_.write(reinterpret_cast<const char*>(codes_.data()),
              static_cast<std::streamsize>(codes_.size() * sizeof(uint16_t)));
  Check();
  --left_;
}

void LogitsWriter::Finish() {
  assert(left_ == 0);
  file_.close();
  Check();
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
    throw std::runtime_error("Cannot write " + path_ + ": " + std::strerror(errno) + ".");
  }
  finished_ = true;
}

LogitsReader::LogitsReader(const std::string& path) : path_(path) {
  errno = 0;
  file_.open(path, std::ios::binary);
  if (!file_) {
    throw std::runtime_error("Cannot read " + path + ": " + std::strerror(errno) + ".");
  }
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes < kHeaderBytes || Get<std::array<char, 8>>(file_) != kMagic) {
    Throw("expected a file of tern perplexity --save-logits");
  }
  header_.vocabulary = Get<uint32_t>(file_);
  header_.context = Get<uint32_t>(file_);
  header_.chunks = Get<uint64_t>(file_);
  // The upper bounds keep the products below from wrapping.
  if (header_.vocabulary == 0 || header_.vocabulary > kLargestCount || header_.context < 4 ||
      header_.context > kLargestCount || header_.chunks == 0) {
    Throw("expected a vocabulary, a context of at least 4 tokens and a chunk, found " +
          std::to_string(header_.vocabulary) + ", " + std::to_string(header_.context) + " and " +
          std::to_string(header_.chunks));
  }
  const uint64_t chunk_bytes =
      4 * uint64_t{header_.context} +
      (header_.context - 1 - header_.context / 2) * RecordBytes(header_.vocabulary);
  if ((bytes - kHeaderBytes) % chunk_bytes != 0 ||
      (bytes - kHeaderBytes) / chunk_bytes != header_.chunks) {
    Throw("expected " + std::to_string(header_.chunks) + " chunks of " +
          std::to_string(chunk_bytes) + " bytes, found " + std::to_string(bytes - kHeaderBytes) +
          " bytes");
  }
  header_.tokens.resize(header_.chunks * header_.context);
  for (engine::TokenId& token : header_.tokens) {
    const auto id = Get<uint32_t>(file_);
    if (id >= header_.vocabulary) {
      Throw("token " + std::to_string(id) + " is outside the vocabulary of " +
            std::to_string(header_.vocabulary));
    }
    token = static_cast<engine::TokenId>(id);
  }
  if (!file_) Throw("the file ends early");
  codes_.resize(header_.vocabulary);
  record_.logprobs.resize(header_.vocabulary);
}

void LogitsReader::Throw(const std::string& what) const {
  throw std::runtime_error(path_ + ": " + what + ".");
}

const LogitsReader::Record& LogitsReader::Next() {
  record_.target_logprob = Get<float>(file_);
  const double step = Get<float>(file_);
  file_.read(reinterpret_cast<char*>(codes_.data()),
             static_cast<std::streamsize>(codes_.size() * sizeof(uint16_t)));
  if (!file_) Throw("the file ends early");
  if (!(step >= 0 && step <= 1) || !std::isfinite(record_.target_logprob)) {
    Throw("a record is damaged");
  }
  double sum = 0;
  for (const uint16_t code : codes_) sum += std::exp(-step * code);
  const double log_sum = std::log(sum);
  for (size_t i = 0; i < codes_.size(); ++i) record_.logprobs[i] = -step * codes_[i] - log_sum;
  return record_;
}

}  // namespace cli
