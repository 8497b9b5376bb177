#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace engine::text::jinja {

// Text here is UTF-8 and is counted in code points, as Python counts. A byte that starts no valid
// sequence counts as one character and is kept as it is.

// Code point at `*position`, which moves past it; an invalid byte b gives kInvalidByte | b.
inline constexpr uint32_t kInvalidByte = 0x80000000;
uint32_t NextCodePoint(std::string_view text, size_t* position);
void AppendCodePoint(uint32_t code_point, std::string* text);

size_t CountCodePoints(std::string_view text);
bool IsAscii(std::string_view text);
// Byte offset of code point number `index`; text.size() when there are fewer.
size_t ByteOffset(std::string_view text, size_t index);
// Byte offset where the code point before `end` starts. REQUIRES: 0 < end <= text.size().
size_t PreviousOffset(std::string_view text, size_t end);

// As Python's str methods of these names decide for one character.
bool IsSpace(uint32_t code_point);
bool IsLineBreak(uint32_t code_point);
bool IsAlpha(uint32_t code_point);
bool IsDecimal(uint32_t code_point);
bool IsDigit(uint32_t code_point);
bool IsNumeric(uint32_t code_point);
bool IsUpper(uint32_t code_point);
bool IsLower(uint32_t code_point);
bool IsTitle(uint32_t code_point);
bool IsPrintable(uint32_t code_point);
bool IsWord(uint32_t code_point);  // \w of Python's re

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string CaseFold(std::string_view text);
std::string Capitalize(std::string_view text);
std::string TitleCase(std::string_view text);
std::string SwapCase(std::string_view text);

std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);

// First position of `needle` at or after `from`, or npos; linear in the length of `text`.
size_t FindIn(std::string_view text, std::string_view needle, size_t from = 0);
// Last position where `needle` ends at or before `end`, or npos.
size_t FindLastIn(std::string_view text, std::string_view needle, size_t end);

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

}  // namespace engine::text::jinja
