tern_test(tokenizer_test
  SOURCES
    tokenizer_cases_test.cpp
  LIBRARIES engine_text)
