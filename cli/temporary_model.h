#pragma once

#include <filesystem>
#include <optional>

#include "cli/unfinished_file.h"

namespace cli {

// The path of a model file in a folder of its own that only this user reads ($TMPDIR, else /tmp).
// Folder and file are gone from the disk with this object, or when a signal ends the program.
// Throws std::filesystem::filesystem_error when there can be no such folder.
class TemporaryModel {
 public:
  TemporaryModel();
  TemporaryModel(const TemporaryModel&) = delete;
  TemporaryModel& operator=(const TemporaryModel&) = delete;
  ~TemporaryModel();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  // The handler of signals removes the latest first: what is written, the file, then its folder.
  std::optional<UnfinishedFile> folder_on_disk_;
  std::optional<UnfinishedFile> file_on_disk_;
  std::optional<UnfinishedFile> partial_on_disk_;
};

}  // namespace cli
