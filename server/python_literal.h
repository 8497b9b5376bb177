#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace server {

// JSON text of a Python literal: None, True, False (or their names in JSON), numbers, strings,
// lists, tuples, dicts with keys of text. nullopt: it is something else, or nested deeper than 64
// levels.
std::optional<std::string> PythonLiteralToJson(std::string_view text);

// JSON text of a value that stands alone: as it is when it is JSON, or a Python literal; else it
// is a string.
std::string LooseValueToJson(std::string_view text);

}  // namespace server
