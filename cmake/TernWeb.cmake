# The web page inside the binary: TERN_WEB says where it comes from.
#
#   auto   the built page that is committed in web/dist; needs neither npm nor a network
#   on     built from web/ by npm (for work on the page)
#   off    none: the server has its API only
#
# tern_web_sources(variable): sets the variable to the generated source for the library `server`.

set(TERN_WEB auto CACHE STRING "Web page: auto (committed web/dist), on (build by npm) or off")
set_property(CACHE TERN_WEB PROPERTY STRINGS auto on off)

function(tern_web_sources variable)
  set(source ${CMAKE_SOURCE_DIR}/web)
  set(dist ${source}/dist)
  set(absence "")
  set(inputs "")
  if(TERN_WEB STREQUAL "on")
    find_program(TERN_NPM npm REQUIRED)
    set(dist ${CMAKE_BINARY_DIR}/web/dist)
    set(inputs ${CMAKE_BINARY_DIR}/web/built)
    file(GLOB_RECURSE page CONFIGURE_DEPENDS ${source}/src/* ${source}/public/*)
    list(APPEND page ${source}/index.html ${source}/package.json ${source}/package-lock.json
                     ${source}/tsconfig.json ${source}/vite.config.ts)
    # In a copy, so that a build leaves nothing in the source tree.
    add_custom_command(
      OUTPUT ${inputs} DEPENDS ${page}
      COMMAND sh ${CMAKE_SOURCE_DIR}/web/build.sh ${TERN_NPM} ${CMAKE_BINARY_DIR}/web
      COMMAND ${CMAKE_COMMAND} -E touch ${inputs}
      COMMENT "Building the web page" VERBATIM)
  elseif(TERN_WEB STREQUAL "off")
    set(dist "")
    set(absence "This server has no web page because it was built with TERN_WEB=off.")
  elseif(NOT TERN_WEB STREQUAL "auto")
    message(FATAL_ERROR "TERN_WEB must be auto, on or off, not \"${TERN_WEB}\".")
  elseif(NOT EXISTS ${dist}/index.html)
    set(dist "")
    set(absence "This server has no web page because web/dist was missing when it was built.")
  else()
    file(GLOB_RECURSE inputs CONFIGURE_DEPENDS ${dist}/*)
  endif()

  set(output ${CMAKE_BINARY_DIR}/server/web_files.cpp)
  set(script ${CMAKE_SOURCE_DIR}/cmake/embed_web.cmake)
  add_custom_command(
    OUTPUT ${output} DEPENDS ${inputs} ${script}
    COMMAND ${CMAKE_COMMAND} -DDIST=${dist} "-DABSENCE=${absence}" -DOUTPUT=${output} -P ${script}
    COMMENT "Embedding the web page" VERBATIM)
  set(${variable} ${output} PARENT_SCOPE)
endfunction()
