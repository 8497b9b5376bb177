#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace engine::text {

// The first unit of a byte string: a whole character, or the longest ill-formed part that decoders
// replace as one (Unicode 15, section 3.9, "maximal subpart").
struct Utf8Step {
  uint32_t length;  // bytes, at least 1
  uint32_t code;    // of the character; the first byte when !valid
  bool valid;
  bool cut;  // not valid, but more bytes could have made it a character
};

// REQUIRES: !bytes.empty().
Utf8Step NextUtf8(std::string_view bytes);

void AppendUtf8(uint32_t code, std::string* out);

// Length of the longest prefix that is well-formed UTF-8.
size_t ValidUtf8Prefix(std::string_view bytes);

// U+2581, which stands for a space in the pieces of SPM vocabularies.
inline constexpr uint32_t kSpaceCode = 0x2581;
inline constexpr std::string_view kSpacePiece = "\xE2\x96\x81";

// What decoders write for bytes that are no text, U+FFFD.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// `piece` with each U+2581 replaced by a space.
std::string WithSpaces(std::string_view piece);

}  // namespace engine::text
