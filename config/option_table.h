#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"

namespace config {

// One option with the code that writes and reads it. Private to config/.
//
// set: takes the texts that a source gave (exactly one unless the kind is kTextList). Throws
//      std::invalid_argument with the end of a sentence: `must be ..., not "..."`.
// get: the value as a TOML literal; of a secret, and of what Load() gives to others, that of none.
// exact: what `get` hides, for comparisons; null where it hides nothing.
struct Option {
  OptionInfo info;
  std::function<void(Config&, const std::vector<std::string>&)> set;
  std::function<std::string(const Config&)> get;
  std::function<std::string(const Config&)> exact = nullptr;
};

std::span<const Option> OptionTable();

// A TOML basic string.
std::string Quoted(std::string_view text);

}  // namespace config
