// Writes the seed corpus of gguf_fuzz: gguf_seed_corpus FOLDER.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/support/gguf_seeds.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: gguf_seed_corpus FOLDER\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : support::SeedFiles()) {
    std::ofstream file(folder / name, std::ios::binary);
    file.put('\0');  // the layout choice that gguf_fuzz takes first
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s\n", (folder / name).c_str());
      return 1;
    }
  }
  return 0;
}
