#pragma once

#include <string_view>

namespace engine::text::grammar {

// The regular expression of a `format` of JSON Schema; empty for one that is not supported. All
// are ASCII; dates are real ones (29 February in leap years), URIs name an authority.
std::string_view FormatPattern(std::string_view format);

// "date, date-time, ...", for messages.
std::string_view FormatNames();

}  // namespace engine::text::grammar
