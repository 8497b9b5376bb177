# Structured output: sources of engine_text.
set(TERN_GRAMMAR_SOURCES
    grammar/automaton.cpp grammar/code_point_dfa.cpp grammar/code_points.cpp
    grammar/expressions.cpp grammar/free_text.cpp grammar/gbnf.cpp grammar/grammar.cpp
    grammar/json_formats.cpp grammar/json_grammar.cpp grammar/json_numbers.cpp
    grammar/json_schema.cpp grammar/matcher.cpp grammar/regex.cpp grammar/schema_merge.cpp
    grammar/state_sets.cpp grammar/token_trie.cpp)
list(APPEND TERN_ENGINE_TEXT_SOURCES ${TERN_GRAMMAR_SOURCES})
