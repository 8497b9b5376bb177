# `cmake --install` and the Debian package: the program, the Fabric's C library and its header, the demo model, a configuration, the unit, the documents.
#
#   cmake --build --preset release && cmake --install build/release --prefix /usr/local --strip
#   cmake --install build/release --prefix /opt/tern --component server        the program and the demo model alone
#   cmake --preset package && cmake --build --preset package && (cd build/package && cpack)
#                                           a .deb; dpkg-shlibdeps (dpkg-dev) finds the libraries' packages
include(GNUInstallDirs)

install(TARGETS tern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT server)
install(TARGETS tfmbs LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES fabric/include/tfmbs_host.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tern/models
        COMPONENT server FILES_MATCHING PATTERN "tern-demo*.gguf")
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES deploy/debian/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)

# The unit names absolute paths, so it follows the prefix of the configure step.
configure_file(deploy/systemd/tern.service.in tern.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/tern.service DESTINATION lib/systemd/system)
# Everything in the example is the default of the program, so installing it changes nothing.
install(FILES config/example.toml DESTINATION ${CMAKE_INSTALL_SYSCONFDIR}/tern RENAME tern.toml)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tern)
set(CPACK_PACKAGE_CONTACT "The Tern authors <tern@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Inference server for ternary language models")
set(CPACK_PACKAGE_DESCRIPTION
  "Tern reads GGUF files of BitNet b1.58 and its kin, models whose weights are
-1, 0 or +1, serves them with OpenAI's API, batches requests continuously and
tells Prometheus what every token cost. A small trained model, the Fabric's C
library and its header come along.")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# libtfmbs.so.1 is for others to link with.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS procps)  # the unit's ExecReload is /bin/kill
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/debian/conffiles)
include(CPack)
