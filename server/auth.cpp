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

Authenticator::Authenticator(const std::vector<ApiKey>& keys)
    : entries_(std::make_shared<std::vector<Entry>>()) {
  Replace(keys);
}

void Authenticator::Replace(const std::vector<ApiKey>& keys) {
  const std::lock_guard lock(mutex_);
  auto fresh = std::make_shared<std::vector<Entry>>();
  for (const ApiKey& key : keys) {
    const auto same_name = [&](const Entry& entry) { return entry.client.name == key.name; };
    const auto old = std::find_if(entries_->begin(), entries_->end(), same_name);
    Client client{key.name, key.admin, nullptr};
    if (old == entries_->end()) {
      client.budget = std::make_shared<KeyBudget>(key.limits);
    } else {
      client.budget = old->client.budget;
      client.budget->SetLimits(key.limits);
    }
    fresh->push_back({std::move(client), Hash(key.key)});
  }
  entries_ = std::move(fresh);
}

std::optional<Authenticator::Client> Authenticator::Check(const HttpRequest& request) const {
  const auto entries = Entries();
  if (entries->empty()) return Client{"", true, nullptr};
  const std::string_view presented = PresentedKey(request);
  if (presented.empty()) return std::nullopt;
  const Digest digest = Hash(presented);
  const Entry* match = nullptr;
  for (const Entry& entry : *entries) {
    const bool equal = CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    match = equal ? &entry : match;
  }
  if (match == nullptr) return std::nullopt;
  return match->client;
}

std::vector<Authenticator::KeyUse> Authenticator::Uses() const {
  std::vector<KeyUse> uses;
  for (const Entry& entry : *Entries()) {
    uses.push_back({entry.client.name, entry.client.budget->totals()});
  }
  return uses;
}

std::shared_ptr<const std::vector<Authenticator::Entry>> Authenticator::Entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

Authenticator::Digest Authenticator::Hash(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

}  // namespace server
