#pragma once

#include <string>
#include <vector>

#include "engine/text/grammar/expressions.h"

namespace engine::text::grammar {

// Any text, the empty one too, in which none of the words occurs: what may stand before a marker
// such as `</think>`. Words are UTF-8 and not empty.
//
// Errors: GrammarError beyond the limits.
NodeId TextWithout(Expressions* expressions, const std::vector<std::string>& words);

}  // namespace engine::text::grammar
