#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace server {
namespace {

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

// Empty when the request carries none.
std::string_view PresentedKey(const HttpRequest& request) {
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view authorization = request.Header("authorization");
  if (authorization.size() > kScheme.size() &&
      EqualsIgnoringCase(authorization.substr(0, kScheme.size()), kScheme)) {
    authorization.remove_prefix(kScheme.size());
    return authorization.substr(
        std::min(authorization.find_first_not_of(' '), authorization.size()));
  }
  return request.Header("x-api-key");
}

}  // namespace

Authenticator::Authenticator(const std::vector<ApiKey>& keys) {
  for (const ApiKey& key : keys) entries_.push_back({key.name, Hash(key.key)});
}

std::optional<std::string> Authenticator::Check(const HttpRequest& request) const {
  if (entries_.empty()) return std::string();
  const std::string_view presented = PresentedKey(request);
  if (presented.empty()) return std::nullopt;
  const Digest digest = Hash(presented);
  const Entry* match = nullptr;
  for (const Entry& entry : entries_) {
    const bool equal = CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    match = equal ? &entry : match;
  }
  if (match == nullptr) return std::nullopt;
  return match->name;
}

Authenticator::Digest Authenticator::Hash(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

}  // namespace server
