#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {

// What filters and str methods share.

enum class Side : uint8_t { kLeft, kRight, kBoth };

// Removes white space, or the characters in *chars, from the sides named.
Datum Strip(Interpreter& interpreter, const Datum& text, const std::string* chars, Side side);
// Pads to `width` characters; the side named is where the text goes: kLeft pads on the right.
Datum Justify(Interpreter& interpreter, const std::string& text, int64_t width,
              const std::string& fill, Side side);
// str.replace; a negative count replaces all.
Datum Replace(Interpreter& interpreter, const std::string& text, const std::string& old,
              const std::string& replacement, int64_t count);
// int(text, base) and float(text); nothing where Python raises ValueError.
std::optional<int64_t> ParseInt(std::string_view text, int64_t base);
std::optional<double> ParseFloat(std::string_view text);
// Python's round(number, precision).
Datum RoundNumber(const Datum& number, int64_t precision);
// Jinja's `title` filter: capital letters after blanks, hyphens and opening brackets only.
std::string TitleWords(std::string_view text);
std::string UrlQuote(std::string_view text, bool for_query);

}  // namespace engine::text::jinja
