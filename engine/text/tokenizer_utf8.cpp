#include "engine/text/tokenizer_utf8.h"

#include <cassert>
#include <cstring>

namespace engine::text {
namespace {

// Bounds of the second byte; later ones are always 80..BF. Overlong forms, surrogates and what lies
// above U+10FFFF are excluded by it (Unicode 15, table 3-7).
struct Lead {
  uint32_t length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  return {1, 0, 0};
}

}  // namespace

Utf8Step NextUtf8(std::string_view bytes) {
  assert(!bytes.empty());
  const auto first = static_cast<uint8_t>(bytes[0]);
  if (first < 0x80) return {1, first, true, false};
  const Lead lead = LeadOf(first);
  if (lead.length == 1) return {1, first, false, false};

  uint32_t code = first & (0xFFU >> (lead.length + 1));
  for (uint32_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {i, first, false, true};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {i, first, false, false};
    code = (code << 6) | (byte & 0x3FU);
  }
  return {lead.length, code, true, false};
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
    return;
  }
  const int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead = tail == 1 ? 0xC0 : tail == 2 ? 0xE0 : 0xF0;
  out->push_back(static_cast<char>(lead | (code >> (6 * tail))));
  for (int i = tail - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80U | ((code >> (6 * i)) & 0x3FU)));
  }
}

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    // Eight ASCII bytes at a time: most text is nothing else.
    if (at + 8 <= bytes.size()) {
      uint64_t eight;
      std::memcpy(&eight, bytes.data() + at, 8);
      if ((eight & 0x8080808080808080ULL) == 0) {
        at += 8;
        continue;
      }
    }
    const Utf8Step step = NextUtf8(bytes.substr(at));
    if (!step.valid) return at;
    at += step.length;
  }
  return at;
}

std::string WithSpaces(std::string_view piece) {
  std::string text;
  text.reserve(piece.size());
  for (size_t at = 0; at < piece.size();) {
    const bool space = piece.substr(at, kSpacePiece.size()) == kSpacePiece;
    text.push_back(space ? ' ' : piece[at]);
    at += space ? kSpacePiece.size() : 1;
  }
  return text;
}

}  // namespace engine::text
