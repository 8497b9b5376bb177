# `cmake --install` and the Debian package: the program, the Fabric's C library and its header, the demo model, a configuration, the unit, the documents.
#
#   cmake --install build/release --prefix /usr/local --strip
#   cmake --preset package && cmake --build --preset package && (cd build/package && cpack)
#                                           a .deb; dpkg-shlibdeps (dpkg-dev) finds the libraries' packages
include(GNUInstallDirs)

install(TARGETS tern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS tfmbs LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES fabric/include/tfmbs_host.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tern/models
        FILES_MATCHING PATTERN "tern-demo*.gguf")
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md")

# The unit names absolute paths, so it follows the prefix of the configure step.
configure_file(deploy/systemd/tern.service.in tern.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/tern.service DESTINATION lib/systemd/system)
# Everything in the example is the default of the program, so installing it changes nothing.
install(FILES config/example.toml DESTINATION ${CMAKE_INSTALL_SYSCONFDIR}/tern RENAME tern.toml)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tern)
set(CPACK_PACKAGE_CONTACT "The Tern authors <tern@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Inference server for ternary language models")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/debian/conffiles)
include(CPack)
