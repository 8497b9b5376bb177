#pragma once

#include <string>

namespace cli {

// While alive, a signal that ends the program (SIGINT, SIGTERM, SIGHUP) first removes the file, or
// the empty folder, at `path`, if there is one. The latest made is removed first. Signals that are
// ignored or that something else handles (InterruptGuard) are left alone.
//
// Threads: made and destroyed on one. Throws std::length_error where more than eight live at once.
class UnfinishedFile {
 public:
  explicit UnfinishedFile(const std::string& path);
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;
  ~UnfinishedFile();

 private:
  char* path_;
};

}  // namespace cli
