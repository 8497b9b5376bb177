# The three ways a target is made in this project: a library per folder, a test per source file,
# and kernel files that need their own instruction-set flags.

function(tern_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Werror)
  # As with GCC, whose -Wconversion leaves signs out.
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -Wno-sign-conversion)
  endif()
  # GCC warns of a type from an unnamed namespace in a header; a unity build includes whole sources.
  target_compile_options(${target} PRIVATE
    $<$<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>:-Wno-subobject-linkage>)
  # Results must not depend on which multiply-adds a compiler decides to fuse (docs/decisions.md):
  # kernels say std::fma or an FMA intrinsic where they mean one.
  target_compile_options(${target} PRIVATE -ffp-contract=off)
  # With -O3 GCC 12 takes "literal" + std::string for overlapping copies (GCC bug 105651).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-Wno-restrict>)
  endif()
  if(TERN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${TERN_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all -O1 -g)
    # Their checks hinder GCC's inlining, and it takes members of a variant for uninitialised. The
    # release build has the warning.
    target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    target_link_options(${target} PUBLIC -fsanitize=${TERN_SANITIZE})
  endif()
endfunction()

# tern_library(name SOURCES ... [PUBLIC targets...] [PRIVATE targets...]): folder = namespace = target.
function(tern_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE} Threads::Threads)
  tern_compile_options(${name})
endfunction()

# tern_kernel_flags(file flags...): instruction-set flags for one per-ISA kernel source.
function(tern_kernel_flags file)
  set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${ARGN}")
endfunction()

# tern_test(name SOURCES ... LIBRARIES ...): one GoogleTest program; each TEST is one ctest case.
# Tests find shared data through TERN_TEST_DATA and skip with a printed reason without it.
function(tern_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main
                                        Threads::Threads)
  target_compile_definitions(${name} PRIVATE TERN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  tern_compile_options(${name})
  # Test code is compiled far more often than it runs: -O3 would double the build of two cores.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 600)
endfunction()
