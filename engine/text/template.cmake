# Chat templates: sources of engine_text, and the door to utf8proc.
find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
set(TERN_TEMPLATE_SOURCES
    chat_template.cpp value.cpp jinja/budget.cpp jinja/datum.cpp jinja/filters.cpp
    jinja/format.cpp jinja/globals.cpp jinja/interpreter.cpp jinja/json.cpp jinja/lexer.cpp
    jinja/methods.cpp jinja/objects.cpp jinja/operators.cpp jinja/parser.cpp jinja/predicates.cpp
    jinja/scope.cpp jinja/text_functions.cpp jinja/unicode.cpp)
list(APPEND TERN_ENGINE_TEXT_SOURCES ${TERN_TEMPLATE_SOURCES})
list(APPEND TERN_ENGINE_TEXT_LIBRARIES PkgConfig::UTF8PROC)
