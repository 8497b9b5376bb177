#pragma once

#include <string>
#include <vector>

#include "server/server_options.h"

namespace server {

// Reads a file of API keys. One per line, '#' begins a comment line:
//
//   KEY
//   NAME KEY
//   NAME KEY scope=admin rpm=60 tpm=20000 concurrent=4
//
// Errors: std::invalid_argument, the end of a sentence: `must name a file ..., but ...`.
std::vector<ApiKey> ReadApiKeyFile(const std::string& path);

}  // namespace server
