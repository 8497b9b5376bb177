#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_types.h"
#include "server/key_budget.h"
#include "server/server_options.h"

namespace server {

// Checks API keys. Compares SHA-256 digests of all keys in constant time, so that the time taken
// says nothing about how much of a key was right, nor which key it was.
//
// Threads: any.
class Authenticator {
 public:
  // Who sent a request.
  struct Client {
    std::string name;                   // the key's; empty without configured keys
    bool admin = false;                 // may use the routes of operators
    std::shared_ptr<KeyBudget> budget;  // nullptr without configured keys
  };

  explicit Authenticator(const std::vector<ApiKey>& keys);

  // From now on these keys count. One that keeps its name keeps what it has used.
  void Replace(const std::vector<ApiKey>& keys);

  // The owner of the key in `Authorization: Bearer KEY` or `x-api-key: KEY`; nullopt when there is
  // none or it is wrong. Without configured keys everybody may do everything.
  std::optional<Client> Check(const HttpRequest& request) const;

  struct KeyUse {
    std::string name;
    KeyBudget::Totals totals;
  };
  // Of each key, in the order of the configuration.
  std::vector<KeyUse> Uses() const;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Entry {
    Client client;
    Digest digest;
  };
  static Digest Hash(std::string_view key);
  std::shared_ptr<const std::vector<Entry>> Entries() const;

  mutable std::mutex mutex_;
  std::shared_ptr<const std::vector<Entry>> entries_;
};

}  // namespace server
