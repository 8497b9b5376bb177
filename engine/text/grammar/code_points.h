#pragma once

#include <cstdint>
#include <vector>

namespace engine::text::grammar {

// A set of Unicode scalar values (surrogates are never in it).
class CodePointSet {
 public:
  struct Range {  // both ends belong to it
    uint32_t first;
    uint32_t last;
    bool operator==(const Range&) const = default;
  };

  CodePointSet() = default;
  // Any order, overlaps allowed; what is no scalar value is left out.
  explicit CodePointSet(std::vector<Range> ranges);
  static CodePointSet All();
  static CodePointSet One(uint32_t code) { return CodePointSet({{code, code}}); }

  CodePointSet Complement() const;
  CodePointSet Intersect(const CodePointSet& other) const;
  CodePointSet Union(const CodePointSet& other) const;
  bool Contains(uint32_t code) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }  // ascending, disjoint, not adjacent

  bool operator==(const CodePointSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

struct ByteRange {  // both ends belong to it
  uint8_t first;
  uint8_t last;
  bool operator==(const ByteRange&) const = default;
};

// Sequences of byte ranges whose strings, together, are the UTF-8 forms of the set, each once.
std::vector<std::vector<ByteRange>> Utf8Sequences(const CodePointSet& set);

}  // namespace engine::text::grammar
