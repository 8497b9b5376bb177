#include "server/trace_options.h"

#include <algorithm>
#include <stdexcept>

#include "server/http_client.h"
#include "server/router.h"

namespace server {

void CheckOtlpEndpoint(const std::string& text) {
  if (!text.empty()) ClientUrl::Parse(text);
}

std::pair<std::string, std::string> ParseOtlpHeader(const std::string& given) {
  const std::string text = given.substr(std::min(given.find_first_not_of(' '), given.size()));
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  constexpr char kToken[] =
      "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::string value;
  const bool good = equals != std::string::npos && !name.empty() &&
                    name.find_first_not_of(kToken) == std::string::npos &&
                    PercentDecode(text.substr(equals + 1), &value) &&
                    std::all_of(value.begin(), value.end(), [](char c) {
                      return static_cast<unsigned char>(c) >= ' ' && c != 0x7F;
                    });
  if (!good) throw std::invalid_argument("must be NAME=VALUE with the name and value of a header");
  return {name, value};
}

}  // namespace server
