#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/device.h"
#include "gguf/reader.h"

namespace engine {

// A packed cache that turned out to be damaged; one sentence.
class PackedCacheError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A file of what a model's weights became when they were packed for the device: a later load reads
// that instead of packing again. All numbers are little-endian.
//
//   file  := "TERNPK01"  u64 index_offset  u64 index_size  u64 index_checksum  pieces  index
//   index := identity  u32 entries  { name  facts  u32 pieces  { u64 offset  u64 size
//            u64 checksum[ceil(size / 256 KiB)] } }
//   text  := u32 size  bytes           of identity, name and facts
//
// Checksums find what storage has damaged, and a file that a crash left incomplete. They are not
// keyed: whoever may write the cache may as well write the model.
//
// Threads: one at a time; pieces are read and written by all cores.
// Errors:  a cache that cannot be read or written is as none: outcome() says why. Read() throws.
class PackedCache {
 public:
  // Without a file: nothing is found or kept.
  PackedCache();
  // Reads the file if it was made for this identity, else makes it anew, in place of the old one
  // when it is whole. Errors: std::bad_alloc.
  PackedCache(std::string path, std::string identity);
  ~PackedCache();
  PackedCache(const PackedCache&) = delete;
  PackedCache& operator=(const PackedCache&) = delete;

  // What was kept with a name.
  std::optional<std::string> FindFacts(std::string_view name) const;
  // Fills the pieces of memory, which have the sizes that were kept. Errors: PackedCacheError.
  void Read(std::string_view name, std::span<const std::span<std::byte>> pieces) const;
  // Keeps facts and pieces while the file is made, else does nothing. A name is kept once.
  void Keep(std::string_view name, std::string_view facts,
            std::span<const std::span<std::byte>> pieces);

  // After Read() has thrown: makes the file anew.
  void StartAnew();
  // When all is kept.
  void Finish();
  // What became of it, as "read from F" or "written to F"; empty without a file.
  const std::string& outcome() const { return outcome_; }

 private:
  class Reader;
  class Writer;

  void StartWriting();
  void GiveUp(const std::string& why);

  std::string path_;
  std::string identity_;
  std::unique_ptr<Reader> reader_;  // at most one of the two
  std::unique_ptr<Writer> writer_;
  std::string reason_;  // why it is made
  std::string outcome_;
};

// The file of a model's cache: "off" and "" have none, "beside" is one beside the model, and
// anything else names a folder for the caches of all models: one that is there, or a new one with a
// slash in its name, so that "on" is no folder. Errors: ModelError.
std::string PackedCachePath(const std::string& option, const std::string& model_path);

// What packed weights depend on: the model's files (size, time of change, and a sample of every
// tensor), how they are read, and the device's choice of layouts. `settings` names the rest.
std::string PackedCacheIdentity(const gguf::File& file, const fabric::Device& device,
                                const std::string& settings);

}  // namespace engine
