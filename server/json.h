#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "engine/text/value.h"

namespace server {

// Keeps the order of keys: templates show it.
using Json = nlohmann::ordered_json;

// Parses an untrusted body.
//
// Errors: ApiError 400 for what is no JSON (invalid UTF-8, NaN and numbers beyond double included),
//         for nesting deeper than max_depth, and for objects with so many members that ordered
//         look-up would be slow. Depth is checked before parsing, without recursion.
Json ParseJson(std::string_view text, uint32_t max_depth);

// REQUIRES: depth bounded, as ParseJson() gives it. Integers beyond int64 become doubles.
engine::text::Value ToValue(const Json& json);

// "an integer", "a string", "null", ... for messages.
std::string_view TypeName(const Json& json);

// Compact; what is not valid UTF-8 becomes U+FFFD.
std::string Dump(const Json& json);

}  // namespace server
