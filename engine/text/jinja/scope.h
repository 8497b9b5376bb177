#pragma once

#include "engine/text/jinja/ast.h"

namespace engine::text::jinja {

// Gives every variable of a parsed template its slot, with the scoping of Jinja's compiler:
// loops, macros, call, filter, set and with blocks open scopes, `if` does not; assigning to a name
// of an outer scope makes a copy that ends with the scope; a macro sees the variables around its
// definition as they are when it runs.
//
// Errors: TemplateError for unknown filters and tests outside of conditions, and for assigning to
//         `loop` in a loop.
void ResolveNames(Template* tree);

}  // namespace engine::text::jinja
