#include "cli/temporary_model.h"

#include <stdlib.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace cli {

TemporaryModel::TemporaryModel() {
  const std::filesystem::path parent = std::filesystem::temp_directory_path();
  std::string folder = parent / "tern-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    throw std::filesystem::filesystem_error("no temporary folder for a model", parent,
                                            std::error_code(errno, std::generic_category()));
  }
  folder_on_disk_.emplace(folder);
  path_ = std::filesystem::path(folder) / "model.gguf";
  file_on_disk_.emplace(path_.string());
  partial_on_disk_.emplace(path_.string() + ".partial");
}

TemporaryModel::~TemporaryModel() {
  std::error_code ignored;
  std::filesystem::remove_all(path_.parent_path(), ignored);
}

}  // namespace cli
