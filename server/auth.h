#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_types.h"
#include "server/server_options.h"

namespace server {

// Checks API keys. Compares SHA-256 digests of all keys in constant time, so that the time taken
// says nothing about how much of a key was right, nor which key it was.
//
// Threads: immutable.
class Authenticator {
 public:
  explicit Authenticator(const std::vector<ApiKey>& keys);

  // The name of the key in `Authorization: Bearer KEY` or `x-api-key: KEY`; nullopt when there is
  // none or it is wrong. Without configured keys everybody is "".
  std::optional<std::string> Check(const HttpRequest& request) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Entry {
    std::string name;
    Digest digest;
  };
  static Digest Hash(std::string_view key);
  std::vector<Entry> entries_;
};

}  // namespace server
