#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace engine {

// How much each input column of a model's projections carries on some text: the mean square of what
// comes in. Kept in the importance matrices that other programs write and read, too, GGUF files
// with
//
//   general.type = "imatrix"
//   NAME.in_sum2  F32 [cols, matrices]   sums of squares; several matrices of a stack of experts
//   NAME.counts   F32 [1, matrices]      tokens in those sums
//
// Threads: const calls from any.
class Importance {
 public:
  // Errors: gguf::FormatError; ModelError when the file is none of these or holds nonsense.
  static Importance Read(const std::string& path);
  // text: what it was made from, for the file's metadata. Errors: gguf::FormatError.
  void Write(const std::string& path, const std::string& text, uint32_t chunks,
             uint32_t chunk_tokens) const;

  // Of matrix `index` of the tensor, in order from 0. sums: [cols], the same cols for all of one
  // tensor.
  void Add(const std::string& tensor, const std::vector<double>& sums, uint64_t tokens);
  // [cols]; empty when the file has nothing of that matrix, or no token reached it.
  // Errors: ModelError when it has another number of columns or matrices.
  std::vector<float> MeanSquares(std::string_view tensor, uint32_t matrix, uint32_t matrices,
                                 uint32_t cols) const;

  bool Has(std::string_view tensor) const { return tensors_.contains(tensor); }
  size_t tensors() const { return tensors_.size(); }

 private:
  struct Tensor {
    uint32_t cols = 0;
    std::vector<float> sums;    // [matrices, cols]
    std::vector<float> counts;  // [matrices]
  };
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace engine
