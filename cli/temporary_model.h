#pragma once

#include <filesystem>

namespace cli {

// The path of a model file in a folder of its own that only this user reads ($TMPDIR, else /tmp).
// Folder and file are gone from the disk with this object.
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
};

}  // namespace cli
