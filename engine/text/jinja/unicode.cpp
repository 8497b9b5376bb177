#include "engine/text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <span>

#include "engine/text/jinja/unicode_tables.h"

namespace engine::text::jinja {
namespace {

bool Contains(std::span<const CodePointRange> ranges, uint32_t c) {
  const auto it = std::upper_bound(ranges.begin(), ranges.end(), c,
                                   [](uint32_t v, const CodePointRange& r) { return v < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

const char* FindLong(std::span<const LongMapping> mappings, uint32_t c) {
  const auto it =
      std::lower_bound(mappings.begin(), mappings.end(), c,
                       [](const LongMapping& m, uint32_t v) { return m.code_point < v; });
  return it != mappings.end() && it->code_point == c ? it->text : nullptr;
}

utf8proc_category_t Category(uint32_t c) {
  if (c > 0x10FFFF) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool IsCased(uint32_t c) { return IsLower(c) || IsUpper(c) || IsTitle(c); }

// Case_Ignorable of Unicode: what may stand between a sigma and the letters that decide its form.
bool IsCaseIgnorable(uint32_t c) {
  static constexpr std::array<uint32_t, 15> kMidWord = {0x27,   0x2E,   0x3A,   0xB7,   0x387,
                                                        0x55F,  0x5F4,  0x2018, 0x2019, 0x2024,
                                                        0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07};
  if (std::binary_search(kMidWord.begin(), kMidWord.end(), c)) return true;
  if (c == 0xFF0E || c == 0xFF1A) return true;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return false;
  }
}

constexpr uint32_t kCapitalSigma = 0x3A3;
constexpr uint32_t kSmallSigma = 0x3C3;
constexpr uint32_t kFinalSigma = 0x3C2;

// Whether a capital sigma at [start, end) of `text` ends a word: a cased letter before it and none
// after it, looking through case-ignorable characters.
bool IsFinalSigma(std::string_view text, size_t start, size_t end) {
  bool cased_before = false;
  for (size_t p = start; p > 0;) {
    p = PreviousOffset(text, p);
    size_t at = p;
    const uint32_t c = NextCodePoint(text, &at);
    if (IsCaseIgnorable(c)) continue;
    cased_before = IsCased(c);
    break;
  }
  if (!cased_before) return false;
  for (size_t p = end; p < text.size();) {
    const uint32_t c = NextCodePoint(text, &p);
    if (IsCaseIgnorable(c)) continue;
    return !IsCased(c);
  }
  return true;
}

void AppendUpper(uint32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (const char* text = FindLong(kLongUpper, c)) {
    *out += text;
  } else if (c > 0x10FFFF) {
    AppendCodePoint(c, out);
  } else {
    AppendCodePoint(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendTitle(uint32_t c, std::string* out) {
  if (const char* text = FindLong(kLongTitle, c)) {
    *out += text;
  } else if (c > 0x10FFFF) {
    AppendCodePoint(c, out);
  } else {
    AppendCodePoint(static_cast<uint32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
  }
}

// Lower case of the character c at [start, end) of `text`.
void AppendLower(std::string_view text, uint32_t c, size_t start, size_t end, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    *out += "i\xCC\x87";
  } else if (c == kCapitalSigma) {
    AppendCodePoint(IsFinalSigma(text, start, end) ? kFinalSigma : kSmallSigma, out);
  } else if (c > 0x10FFFF) {
    AppendCodePoint(c, out);
  } else {
    AppendCodePoint(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
}

}  // namespace

uint32_t NextCodePoint(std::string_view text, size_t* position) {
  const size_t p = *position;
  const auto byte = static_cast<unsigned char>(text[p]);
  if (byte < 0x80) {
    *position = p + 1;
    return byte;
  }
  utf8proc_int32_t code_point = -1;
  const utf8proc_ssize_t length = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data() + p),
      static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - p, 4)), &code_point);
  if (length <= 0) {
    *position = p + 1;
    return kInvalidByte | byte;
  }
  *position = p + static_cast<size_t>(length);
  return static_cast<uint32_t>(code_point);
}

void AppendCodePoint(uint32_t code_point, std::string* text) {
  if (code_point < 0x80 || (code_point & kInvalidByte) != 0) {
    *text += static_cast<char>(code_point & 0xFF);
    return;
  }
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  text->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool IsAscii(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) return false;
  }
  for (; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) >= 0x80) return false;
  }
  return true;
}

size_t CountCodePoints(std::string_view text) {
  if (IsAscii(text)) return text.size();
  size_t count = 0;
  for (size_t p = 0; p < text.size(); ++count) NextCodePoint(text, &p);
  return count;
}

size_t ByteOffset(std::string_view text, size_t index) {
  size_t p = 0;
  for (; index > 0 && p < text.size(); --index) NextCodePoint(text, &p);
  return p;
}

size_t PreviousOffset(std::string_view text, size_t end) {
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    size_t p = end - length;
    if ((static_cast<unsigned char>(text[p]) & 0xC0) == 0x80) continue;
    const size_t start = p;
    NextCodePoint(text, &p);
    if (p == end) return start;
    break;
  }
  return end - 1;
}

bool IsSpace(uint32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsLineBreak(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool IsAlpha(uint32_t c) {
  if (c < 0x80) return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return Category(c) == UTF8PROC_CATEGORY_ND;
}

bool IsDigit(uint32_t c) { return IsDecimal(c) || Contains(kDigitsNotDecimal, c); }

bool IsNumeric(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t category = Category(c);
  return (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) ||
         Contains(kNumericLetters, c);
}

bool IsUpper(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return Category(c) == UTF8PROC_CATEGORY_LU || Contains(kOtherUppercase, c);
}

bool IsLower(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return Category(c) == UTF8PROC_CATEGORY_LL || Contains(kOtherLowercase, c);
}

bool IsTitle(uint32_t c) { return c >= 0x80 && Category(c) == UTF8PROC_CATEGORY_LT; }

bool IsPrintable(uint32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsWord(uint32_t c) { return c == '_' || IsAlpha(c) || IsNumeric(c); }

std::string Upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t p = 0; p < text.size();) AppendUpper(NextCodePoint(text, &p), &out);
  return out;
}

std::string Lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    AppendLower(text, c, start, p, &out);
  }
  return out;
}

std::string CaseFold(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t p = 0; p < text.size();) {
    const uint32_t c = NextCodePoint(text, &p);
    utf8proc_int32_t folded[8];
    int boundary = 0;
    const utf8proc_ssize_t count =
        c > 0x10FFFF ? 0
                     : utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, 8,
                                               UTF8PROC_CASEFOLD, &boundary);
    if (count <= 0) AppendCodePoint(c, &out);
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      AppendCodePoint(static_cast<uint32_t>(folded[i]), &out);
    }
  }
  return out;
}

std::string Capitalize(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (start == 0) {
      AppendTitle(c, &out);
    } else {
      AppendLower(text, c, start, p, &out);
    }
  }
  return out;
}

std::string TitleCase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool previous_cased = false;
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (previous_cased) {
      AppendLower(text, c, start, p, &out);
    } else {
      AppendTitle(c, &out);
    }
    previous_cased = IsCased(c);
  }
  return out;
}

std::string SwapCase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (IsUpper(c)) {
      AppendLower(text, c, start, p, &out);
    } else if (IsLower(c)) {
      AppendUpper(c, &out);
    } else {
      AppendCodePoint(c, &out);
    }
  }
  return out;
}

std::string_view StripLeft(std::string_view text) {
  size_t start = 0;
  while (start < text.size()) {
    size_t next = start;
    if (!IsSpace(NextCodePoint(text, &next))) break;
    start = next;
  }
  return text.substr(start);
}

std::string_view StripRight(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = PreviousOffset(text, end);
    const size_t previous = start;
    if (!IsSpace(NextCodePoint(text, &start))) break;
    end = previous;
  }
  return text.substr(0, end);
}

size_t FindIn(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // memmem is linear for long needles; std::string_view::find is quadratic at worst.
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindLastIn(std::string_view text, std::string_view needle, size_t end) {
  text = text.substr(0, end);
  if (needle.size() > text.size()) return std::string_view::npos;
  if (needle.size() <= 16) return text.rfind(needle);
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_needle(needle.rbegin(), needle.rend());
  const size_t found = FindIn(reversed_text, reversed_needle);
  if (found == std::string_view::npos) return found;
  return text.size() - found - needle.size();
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t p = 0; p < text.size();) {
    const size_t at = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && p < text.size() && text[p] == '\n') ++p;
    lines.push_back(text.substr(start, (keep_ends ? p : at) - start));
    start = p;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace engine::text::jinja
