#include "cli/model_path.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <vector>

namespace cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "tern-demo";

// The first file by name, so that every start picks the same one.
std::string FirstDemoModel(const fs::path& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(".gguf")) found.push_back(entry.path());
  }
  return found.empty() ? "" : *std::min_element(found.begin(), found.end());
}

}  // namespace

std::string BundledModelPath() {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  // Installed (bin/tern beside share/), unpacked (tern beside models/), built (build/release/tern).
  const std::vector<fs::path> places = {
      folder / "../share/tern/models",
      folder / "models",
      folder / "../models",
      folder / "../../models",
      folder / "../../../models",
      fs::path(TERN_SOURCE_DIR) / "models",
  };
  std::string looked;
  for (const fs::path& place : places) {
    const std::string model = FirstDemoModel(place);
    if (!model.empty()) return fs::weakly_canonical(model).string();
    if (!looked.empty()) looked += ", ";
    looked += place.lexically_normal().string();
  }
  throw std::runtime_error("No --model was given and no bundled model (" + std::string(kPrefix) +
                           "*.gguf) is in " + looked + ".");
}

std::string ChooseModelPath(const std::string& flag, const config::Config& config) {
  if (!flag.empty()) return flag;
  if (!config.models.empty() && !config.models.front().path.empty()) {
    return config.models.front().path;
  }
  return BundledModelPath();
}

}  // namespace cli
