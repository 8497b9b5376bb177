#pragma once

#include <span>
#include <string_view>

namespace server {

// A file of the web page inside the binary. Defined in a source that cmake/embed_web.cmake writes.
struct WebFile {
  std::string_view path;  // "/" is the page itself
  std::string_view content_type;
  std::string_view hash;  // of the contents, hexadecimal
  bool immutable;         // the path changes with the contents, so a browser may keep it for ever
  std::string_view identity;
  std::string_view gzip;
};

// Empty when the binary was built without the page.
std::span<const WebFile> WebFiles();

// One sentence saying why there is no page; empty when there is one.
std::string_view WebPageAbsence();

}  // namespace server
