#pragma once

#include <cstddef>
#include <string>

namespace server {

// So many random hexadecimal digits: unique, not secret. Threads: any.
std::string RandomHex(size_t digits);

}  // namespace server
