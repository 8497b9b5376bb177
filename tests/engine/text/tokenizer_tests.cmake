find_package(nlohmann_json REQUIRED)

tern_test(tokenizer_test
  SOURCES
    bpe_merger_test.cpp
    detokenizer_test.cpp
    pretokenizer_test.cpp
    tokenizer_cases_test.cpp
    tokenizer_demo_test.cpp
    tokenizer_hostile_test.cpp
    tokenizer_test.cpp
    vocabulary.cpp
  LIBRARIES engine_text nlohmann_json::nlohmann_json)
