#include "server/random_id.h"

#include <random>
#include <string_view>

namespace server {

std::string RandomHex(size_t digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string text;
  while (text.size() < digits) {
    auto word = random();
    for (int i = 0; i < 16 && text.size() < digits; ++i, word >>= 4) text += kDigits[word & 15];
  }
  return text;
}

}  // namespace server
