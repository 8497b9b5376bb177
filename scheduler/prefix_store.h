#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "scheduler/prefix_cache.h"
#include "scheduler/siphash.h"

namespace scheduler {

// A file that cannot be used; one sentence that names it.
class PrefixStoreError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What the blocks of a file mean; a file with anything else is refused.
struct PrefixStoreFormat {
  std::string identity;  // model, type of K and V, ...
  uint32_t block_size = 0;
  uint64_t block_bytes = 0;
};

// The prefix cache on disk. All numbers are little-endian.
//
//   file   := "TERNKV01" head tag { bytes[block_bytes] tag }        one block per entry
//   head   := u64 head_size  u32 identity_size identity  u32 block_size  u64 block_bytes
//             u32 entries  { u32 parent  u32 space_size space  u32 tokens { i32 token } }
//   parent := index of an earlier entry, or 2^32 - 1
//   tag    := u64 SipHash-2-4 of the tag before (0 at first) and of what lies between the two
//
// Tags are keyed, so that a file is taken only from who could read the key. Nothing in a file is
// believed before its tag was checked, but for lengths, and these are bounded by the file's size.

// Writes a new file in place of the old one at once. `read` gives a block's bytes.
// Errors: PrefixStoreError.
void SavePrefixes(const std::string& path, const SipKey& key, const PrefixStoreFormat& format,
                  const std::vector<PrefixCache::Entry>& entries,
                  const std::function<void(BlockId, std::byte*)>& read);

// Reads a file. First `place` is told all entries, each with its own index as `block` and its
// parent's, and says for each whether it is wanted; then `fill` gets the bytes of the wanted ones.
// Errors: PrefixStoreError; blocks that fill() has not got by then must not be used.
void LoadPrefixes(
    const std::string& path, const SipKey& key, const PrefixStoreFormat& format,
    const std::function<std::vector<bool>(const std::vector<PrefixCache::Entry>&)>& place,
    const std::function<void(size_t entry, std::span<const std::byte> bytes)>& fill);

// The key in the file `path`, which only its owner may read; made when it is not there.
// Errors: PrefixStoreError.
SipKey LoadOrMakeKey(const std::string& path);

}  // namespace scheduler
