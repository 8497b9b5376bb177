#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/quantize/error.h"
#include "engine/quantize/plan.h"
#include "gguf/reader.h"

namespace engine::quantize {

// How a tensor got its bytes.
enum class Method : uint8_t {
  kCopied,      // byte for byte
  kRepacked,    // same trits, same scales, another format
  kRescaled,    // same trits, scales rounded to what the format holds
  kExact,       // floats that were ternary already: same trits, same scales
  kCalibrated,  // floats ternarised by the calibration
  kEncoded,     // floats rounded to a type that is not ternary
};

std::string_view MethodName(Method method);

// Source weights w against the weights v that the new bytes decode to.
struct Difference {
  uint64_t elements = 0;
  uint64_t zeros = 0;             // of v
  double source_squares = 0;      // sum of w^2
  double target_squares = 0;      // sum of v^2
  double products = 0;            // sum of w v
  double difference_squares = 0;  // sum of (w - v)^2

  void Add(const Difference& other);
  double zero_rate() const;
  double relative_error() const;  // |w - v| / |w| in the Euclidean norm; 0 for w = v = 0
  double cosine() const;          // 1 for w = v = 0
};

struct TensorReport {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
  gguf::TensorType source_type = gguf::TensorType::kF32;
  gguf::TensorType target_type = gguf::TensorType::kF32;
  Method method = Method::kCopied;
  bool fallback = false;  // the wanted type did not fit the shape
  uint64_t source_bytes = 0;
  uint64_t target_bytes = 0;
  Difference difference = {};  // elements = 0 for kCopied: nothing was compared
};

struct QuantizeReport {
  std::vector<TensorReport> tensors;  // in the order of the file
  uint64_t source_bytes = 0;          // of all tensors
  uint64_t target_bytes = 0;
  Difference total;    // over all tensors that were not copied
  Difference ternary;  // over those of them that are ternary now
};

// Called on the calling thread, often enough for a progress bar. May throw to stop; nothing is left
// behind then.
struct QuantizeProgress {
  std::string_view tensor;
  double fraction = 0;  // 0..1 of the file's bytes
};
using OnQuantizeProgress = std::function<void(const QuantizeProgress&)>;

// Converts a model file tensor by tensor.
//
// Memory:  the largest tensor that gets one scale for the whole as floats and trits (5 bytes per
//          weight), or 8 million weights, whichever is more; the source is mapped.
// Bits:    depend on the file and the options only, not on the number of threads.
// Threads: one caller; rows are spread over the machine's CPUs.
// Errors:  QuantizeError, gguf::FormatError.
class Quantizer {
 public:
  // Plans every tensor. `file` must outlive the object.
  Quantizer(const gguf::File& file, const QuantizeOptions& options);

  const std::vector<PlannedTensor>& plan() const { return plan_; }

  // Writes the model. The file appears under its name only when complete (gguf::Writer).
  QuantizeReport WriteFile(const std::string& path, const OnQuantizeProgress& progress) const;
  // All of that except writing: the report alone.
  QuantizeReport Measure(const OnQuantizeProgress& progress) const;

 private:
  const gguf::File& file_;
  QuantizeOptions options_;
  std::vector<PlannedTensor> plan_;
};

}  // namespace engine::quantize
