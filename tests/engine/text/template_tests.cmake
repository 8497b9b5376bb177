# Chat templates, alone and against Python's Jinja2.
find_package(nlohmann_json REQUIRED)
find_package(Python3 COMPONENTS Interpreter)

add_executable(template_runner template_runner.cpp)
target_include_directories(template_runner PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(template_runner PRIVATE engine_text nlohmann_json::nlohmann_json)
tern_compile_options(template_runner)

if(Python3_Interpreter_FOUND)
  # Exit code 77 with a printed reason: Jinja2 or the shared templates are not there.
  add_test(NAME ChatTemplate.RendersAsJinja2
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/check_templates.py matrix
                   $<TARGET_FILE:template_runner>)
  add_test(NAME ChatTemplate.RandomTemplatesRenderAsJinja2
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/check_templates.py random
                   $<TARGET_FILE:template_runner>)
  set_tests_properties(
    ChatTemplate.RendersAsJinja2 ChatTemplate.RandomTemplatesRenderAsJinja2
    PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600
               ENVIRONMENT "TERN_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
endif()

tern_test(chat_template_test
  SOURCES chat_template_test.cpp value_test.cpp
  LIBRARIES engine_text nlohmann_json::nlohmann_json)
