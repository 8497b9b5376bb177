#include "server/api_key_options.h"

#include <charconv>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace server {
namespace {

// Where in the file, for errors.
struct Place {
  const std::string& path;
  int line;
};

[[noreturn]] void Refuse(const Place& place, const std::string& reason) {
  throw std::invalid_argument(
      "must name a file with lines `KEY` or `NAME KEY [OPTION...]`, but line " +
      std::to_string(place.line) + " of " + place.path + " " + reason);
}

uint32_t ReadCount(const Place& place, const std::string& name, const std::string& text) {
  uint32_t count = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || stop != end || count == 0) {
    Refuse(place, "has " + name + "=" + text + ", which is no positive integer");
  }
  return count;
}

void ReadOption(const Place& place, const std::string& word, ApiKey* key) {
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
  if (name == "scope" && (value == "admin" || value == "inference")) {
    key->admin = value == "admin";
  } else if (name == "rpm") {
    key->limits.requests_per_minute = ReadCount(place, name, value);
  } else if (name == "tpm") {
    key->limits.tokens_per_minute = ReadCount(place, name, value);
  } else if (name == "concurrent") {
    key->limits.concurrent = ReadCount(place, name, value);
  } else {
    // Not shown: the word may be a key.
    Refuse(place,
           "has a third word that is none of scope=admin, scope=inference, rpm=N, tpm=N, "
           "concurrent=N");
  }
}

}  // namespace

std::vector<ApiKey> ReadApiKeyFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::invalid_argument("must name a readable file, not \"" + path + "\"");
  std::vector<ApiKey> keys;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    std::istringstream words(line);
    std::string first, second, option;
    words >> first >> second;
    if (first.empty() || first[0] == '#') continue;
    const bool named = !second.empty();
    ApiKey key;
    key.admin = false;
    key.name = named ? first : "key-" + std::to_string(keys.size() + 1);
    key.key = named ? second : first;
    while (words >> option) ReadOption({path, number}, option, &key);
    for (const ApiKey& other : keys) {
      if (other.name == key.name) Refuse({path, number}, "has a name that an earlier line has");
      if (other.key == key.key) {
        Refuse({path, number}, "has the key that \"" + other.name + "\" has already");
      }
    }
    keys.push_back(std::move(key));
  }
  if (keys.empty()) {
    throw std::invalid_argument("must name a file with keys, but " + path + " has none");
  }
  return keys;
}

}  // namespace server
