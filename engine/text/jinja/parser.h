#pragma once

#include <string_view>

#include "engine/text/chat_template.h"
#include "engine/text/jinja/ast.h"

namespace engine::text::jinja {

// Parses a template with Jinja's grammar (3.1) and the tags of loop controls and of transformers'
// {% generation %}. Names are not resolved yet: see ResolveNames().
//
// Errors: TemplateError with the line; also for nesting deeper than limits.nesting and for the tags
//         that need other templates (include, import, extends, block).
Template Parse(std::string_view source, const TemplateLimits& limits);

}  // namespace engine::text::jinja
