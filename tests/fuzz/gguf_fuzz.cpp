// Any bytes lead to a FormatError or to a file whose every tensor can be read and that can be
// written again.
#include <cstdint>
#include <span>

#include "gguf/error.h"
#include "gguf/reader.h"
#include "tests/support/gguf_seeds.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The first byte chooses the reading of I2_S, so that all three are covered.
  if (size == 0) return 0;
  gguf::ReadOptions options;
  options.i2s_layout = static_cast<gguf::I2SLayout>(data[0] % 3);
  const std::span bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  try {
    const gguf::File file = gguf::File::Parse(bytes, options);
    support::ReadWholeFile(file);
    if (options.i2s_layout == gguf::I2SLayout::kX86) support::CheckRewrite(file);
  } catch (const gguf::FormatError&) {
  }
  return 0;
}
