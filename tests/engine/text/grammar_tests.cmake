# Structured output, alone and against Python's jsonschema and re.
find_package(nlohmann_json REQUIRED)
find_package(Python3 COMPONENTS Interpreter)

add_executable(grammar_runner grammar/grammar_runner.cpp)
target_include_directories(grammar_runner PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(grammar_runner PRIVATE engine_text nlohmann_json::nlohmann_json)
tern_compile_options(grammar_runner)

if(Python3_Interpreter_FOUND)
  # Exit code 77 with a printed reason: jsonschema or the shared vocabulary is not there.
  foreach(check schemas patterns gbnf)
    add_test(NAME Grammar.AgreesWithPython.${check}
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/grammar/check_grammars.py
                     ${check} $<TARGET_FILE:grammar_runner>)
    set_tests_properties(Grammar.AgreesWithPython.${check}
                         PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
  endforeach()
endif()

tern_test(grammar_test
  SOURCES grammar/grammar_test.cpp grammar/matcher_test.cpp vocabulary.cpp
  LIBRARIES engine_text nlohmann_json::nlohmann_json)
