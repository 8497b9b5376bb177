#include "engine/text/grammar/code_points.h"

#include <algorithm>
#include <string>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text::grammar {
namespace {

constexpr uint32_t kLastCode = 0x10FFFF;
constexpr uint32_t kFirstSurrogate = 0xD800;
constexpr uint32_t kLastSurrogate = 0xDFFF;

using Sequences = std::vector<std::vector<ByteRange>>;

void AddSequence(uint32_t first, uint32_t last, Sequences* out) {
  std::string low;
  std::string high;
  AppendUtf8(first, &low);
  AppendUtf8(last, &high);
  std::vector<ByteRange>& sequence = out->emplace_back();
  for (size_t i = 0; i < low.size(); ++i) {
    sequence.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  }
}

// Cuts a range until each byte of its ends spans a range of its own: at the lengths of UTF-8, and
// where the later bytes don't run through all their values.
void Split(uint32_t first, uint32_t last, Sequences* out) {
  for (const uint32_t end : {0x7FU, 0x7FFU, 0xFFFFU}) {
    if (first > end || last <= end) continue;
    Split(first, end, out);
    return Split(end + 1, last, out);
  }
  for (uint32_t bits = 6; last > 0x7F && bits <= 18; bits += 6) {
    const uint32_t tail = (1U << bits) - 1;
    if ((first & ~tail) == (last & ~tail)) continue;
    if ((first & tail) != 0) {
      Split(first, first | tail, out);
      return Split((first | tail) + 1, last, out);
    }
    if ((last & tail) != tail) {
      Split(first, (last & ~tail) - 1, out);
      return Split(last & ~tail, last, out);
    }
  }
  AddSequence(first, last, out);
}

}  // namespace

CodePointSet::CodePointSet(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  const auto add = [this](uint32_t first, uint32_t last) {
    if (first > last) return;
    if (!ranges_.empty() && first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, last);
    } else {
      ranges_.push_back({first, last});
    }
  };
  for (const Range& range : ranges) {
    const uint32_t last = std::min(range.last, kLastCode);
    add(range.first, std::min(last, kFirstSurrogate - 1));
    add(std::max(range.first, kLastSurrogate + 1), last);
  }
}

CodePointSet CodePointSet::All() { return CodePointSet({{0, kLastCode}}); }

CodePointSet CodePointSet::Complement() const {
  std::vector<Range> gaps;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCode) gaps.push_back({next, kLastCode});
  return CodePointSet(std::move(gaps));
}

CodePointSet CodePointSet::Intersect(const CodePointSet& other) const {
  CodePointSet result;
  size_t i = 0;
  size_t j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const Range& a = ranges_[i];
    const Range& b = other.ranges_[j];
    const uint32_t first = std::max(a.first, b.first);
    const uint32_t last = std::min(a.last, b.last);
    if (first <= last) result.ranges_.push_back({first, last});
    ++(a.last < b.last ? i : j);
  }
  return result;
}

CodePointSet CodePointSet::Union(const CodePointSet& other) const {
  std::vector<Range> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return CodePointSet(std::move(all));
}

bool CodePointSet::Contains(uint32_t code) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), code,
                       [](uint32_t value, const Range& range) { return value < range.first; });
  return after != ranges_.begin() && code <= std::prev(after)->last;
}

std::vector<std::vector<ByteRange>> Utf8Sequences(const CodePointSet& set) {
  Sequences sequences;
  for (const CodePointSet::Range& range : set.ranges()) Split(range.first, range.last, &sequences);
  return sequences;
}

}  // namespace engine::text::grammar
