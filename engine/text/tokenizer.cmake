# Tokenizers: sources of engine_text, and the door to PCRE2.
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
list(APPEND TERN_ENGINE_TEXT_SOURCES
     bpe_merger.cpp detokenizer.cpp pretokenizer.cpp tokenizer.cpp tokenizer_bpe.cpp
     tokenizer_index.cpp tokenizer_special.cpp tokenizer_spm.cpp tokenizer_utf8.cpp)
list(APPEND TERN_ENGINE_TEXT_LIBRARIES PkgConfig::PCRE2)
