#include "gguf/quoted.h"

namespace gguf {

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxShown = 64;
  constexpr char kHex[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') {
      quoted += c;
      continue;
    }
    quoted += "\\x";
    quoted += kHex[byte >> 4];
    quoted += kHex[byte & 15];
  }
  if (text.size() > kMaxShown) quoted += "...";
  return quoted + "\"";
}

}  // namespace gguf
