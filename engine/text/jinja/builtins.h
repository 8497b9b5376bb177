#pragma once

#include <optional>
#include <string_view>

#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {

// Lookup by name; nullptr when there is none. Filters and tests get their operand as `self`.
Builtin FindFilter(std::string_view name);
Builtin FindTest(std::string_view name);
// Methods of the data types; `self` is the object.
Builtin FindMethod(Kind kind, std::string_view name);
// Methods that would change a list or dict: the sandbox forbids them.
bool IsMutatingMethod(Kind kind, std::string_view name);
// range, namespace, raise_exception, strftime_now, …
std::optional<Datum> FindGlobal(std::string_view name);

}  // namespace engine::text::jinja
