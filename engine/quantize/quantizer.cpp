#include "engine/quantize/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "fabric/parallel.h"
#include "gguf/codec.h"
#include "gguf/error.h"
#include "gguf/quoted.h"
#include "gguf/writer.h"

namespace engine::quantize {
namespace {

using gguf::Quoted;
using gguf::ScaleLayout;
using gguf::TensorInfo;
using gguf::TensorType;

// Rows that one task takes: a multiple of 4, where IQ2_BN_R4 may be cut.
constexpr size_t kRowsPerTask = 64;
// Weights in memory at once where the format allows to cut a tensor.
constexpr uint64_t kWeightsAtOnce = uint64_t{1} << 23;

// Rows first .. first + count of a tensor.
struct RowRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

// Trits of some rows with their scales, as EncodeTernary() takes them.
struct TernaryRows {
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::vector<int8_t> trits;
  ScaleRanges ranges;
  std::vector<float> scales;
};

float RoundToHalf(float value) { return gguf::HalfToFloat(gguf::FloatToHalf(value)); }

std::vector<std::byte> EncodeTrits(TensorType type, const TernaryRows& source) {
  const bool cut = gguf::TernaryScalesOf(type)->layout != ScaleLayout::kTensor;
  const auto encode = [&](size_t begin, size_t end) {
    const bool one = source.ranges.layout == ScaleLayout::kTensor;
    const uint64_t per_row = source.ranges.PerRow(source.cols);
    const auto scales = one ? std::span<const float>(source.scales)
                            : std::span<const float>(source.scales)
                                  .subspan(begin * per_row, (end - begin) * per_row);
    return gguf::EncodeTernary(
        type, end - begin, source.cols,
        std::span(source.trits).subspan(begin * source.cols, (end - begin) * source.cols),
        source.ranges.layout, static_cast<uint32_t>(source.ranges.group), scales);
  };
  if (!cut) return encode(0, source.rows);
  std::vector<std::byte> bytes(gguf::TensorByteSize(type, source.rows, source.cols));
  const uint64_t row_bytes = bytes.size() / source.rows;
  const size_t tasks = (source.rows + kRowsPerTask - 1) / kRowsPerTask;
  fabric::ParallelFor(tasks, 1, [&](size_t first, size_t last) {
    for (size_t task = first; task < last; ++task) {
      const size_t begin = task * kRowsPerTask;
      const size_t end = std::min<size_t>(begin + kRowsPerTask, source.rows);
      const std::vector<std::byte> part = encode(begin, end);
      std::memcpy(bytes.data() + begin * row_bytes, part.data(), part.size());
    }
  });
  return bytes;
}

// The scales of least squared error that `target` holds for these trits.
TernaryRows WithFittedScales(TernaryRows rows, const gguf::TernaryScales& target) {
  const ScaleRanges ranges = {target.layout, target.group};
  const uint64_t from_per_row = rows.ranges.PerRow(rows.cols);
  const uint64_t to_per_row = ranges.PerRow(rows.cols);
  const bool one = ranges.layout == ScaleLayout::kTensor;
  const size_t count = one ? 1 : rows.rows * to_per_row;
  std::vector<double> sums(count);
  std::vector<uint64_t> kept(count);
  for (uint64_t row = 0; row < rows.rows; ++row) {
    for (uint64_t col = 0; col < rows.cols; ++col) {
      if (rows.trits[row * rows.cols + col] == 0) continue;
      const uint64_t from = rows.ranges.layout == ScaleLayout::kGroup ? col / rows.ranges.group : 0;
      const uint64_t to = ranges.layout == ScaleLayout::kGroup ? col / ranges.group : 0;
      const size_t index = one ? 0 : row * to_per_row + to;
      sums[index] += double{rows.scales[row * from_per_row + from]};
      ++kept[index];
    }
  }
  rows.ranges = ranges;
  rows.scales.assign(count, 0.0F);
  for (size_t i = 0; i < count; ++i) {
    if (kept[i] == 0) continue;
    const auto mean = static_cast<float>(sums[i] / static_cast<double>(kept[i]));
    rows.scales[i] = target.half ? RoundToHalf(mean) : mean;
  }
  return rows;
}

// One tensor on its way into the new file.
class Conversion {
 public:
  Conversion(const gguf::File& file, const QuantizeOptions& options, const PlannedTensor& plan)
      : file_(file),
        options_(options),
        plan_(plan),
        info_(*plan.source),
        bytes_(file.TensorBytes(info_)) {}

  TensorReport Run(const gguf::Writer::Emit& emit,
                   const std::function<void(double fraction)>& progress);

 private:
  uint64_t RowsAtOnce() const;
  std::vector<std::byte> Encode(RowRange range);
  std::vector<std::byte> Repack(RowRange range);
  std::vector<std::byte> EncodeFloats(RowRange range) const;
  std::vector<std::byte> EncodeTernaryFloats(RowRange range);
  std::vector<float> ReadFloats(RowRange range) const;
  TernaryRows ReadTrits(RowRange range) const;
  void FindExactScales();
  void TernarizeRows(std::span<const float> values, RowRange range, TernaryRows* rows) const;
  Difference Compare(RowRange range, std::span<const std::byte> encoded) const;

  const gguf::File& file_;
  const QuantizeOptions& options_;
  const PlannedTensor& plan_;
  const TensorInfo& info_;
  std::span<const std::byte> bytes_;
  Method method_ = Method::kCopied;
  // Of floats that are ternary already: one scale per range of plan_.ranges.
  std::optional<std::vector<float>> exact_;
};

TensorReport Conversion::Run(const gguf::Writer::Emit& emit,
                             const std::function<void(double)>& progress) {
  TensorReport report = {
      .name = info_.name,
      .rows = info_.rows(),
      .cols = info_.cols(),
      .source_type = info_.type,
      .target_type = plan_.target,
      .fallback = plan_.fallback,
      .source_bytes = info_.byte_size,
      .target_bytes = gguf::TensorByteSize(plan_.target, info_.rows(), info_.cols())};
  if (plan_.copy) {
    emit(bytes_);
    progress(1.0);
    return report;
  }
  if (!plan_.repack && gguf::TernaryScalesOf(plan_.target)) FindExactScales();
  const uint64_t step = RowsAtOnce();
  for (uint64_t first = 0; first < info_.rows(); first += step) {
    const RowRange range = {first, std::min(step, info_.rows() - first)};
    const std::vector<std::byte> encoded = Encode(range);
    emit(encoded);
    report.difference.Add(Compare(range, encoded));
    progress(static_cast<double>(first + range.count) / static_cast<double>(info_.rows()));
  }
  report.method = method_;
  return report;
}

uint64_t Conversion::RowsAtOnce() const {
  const auto scales = gguf::TernaryScalesOf(plan_.target);
  const bool whole = scales && (scales->layout == ScaleLayout::kTensor ||
                                (!plan_.repack && plan_.ranges.layout == ScaleLayout::kTensor));
  if (whole) return info_.rows();
  return std::max<uint64_t>(kWeightsAtOnce / info_.cols() / kRowsPerTask, 1) * kRowsPerTask;
}

std::vector<std::byte> Conversion::Encode(RowRange range) {
  try {
    if (plan_.repack) return Repack(range);
    if (gguf::TernaryScalesOf(plan_.target)) return EncodeTernaryFloats(range);
    method_ = Method::kEncoded;
    return EncodeFloats(range);
  } catch (const gguf::FormatError& error) {
    throw QuantizeError("Tensor " + Quoted(info_.name) + " cannot become " +
                        std::string(gguf::TypeName(plan_.target)) + ": " + error.what() + ".");
  } catch (const QuantizeError& error) {
    throw QuantizeError("Tensor " + Quoted(info_.name) + ": " + error.what() + ".");
  }
}

std::vector<std::byte> Conversion::Repack(RowRange range) {
  TernaryRows rows = ReadTrits(range);
  if (method_ == Method::kCopied) method_ = Method::kRepacked;
  try {
    return EncodeTrits(plan_.target, rows);
  } catch (const gguf::FormatError& error) {
    // What Q1_0 misses is the zero, not the scale.
    if (plan_.target == TensorType::kQ1_0) throw;
    if (!options_.allow_scale_rounding) {
      throw QuantizeError(std::string(error.what()) +
                          ", or allow the scales to be rounded (--allow-scale-rounding)");
    }
  }
  method_ = Method::kRescaled;
  return EncodeTrits(plan_.target,
                     WithFittedScales(std::move(rows), *gguf::TernaryScalesOf(plan_.target)));
}

TernaryRows Conversion::ReadTrits(RowRange range) const {
  const gguf::TernaryDecoder decoder(info_, bytes_, file_.options());
  const uint64_t cols = info_.cols();
  const uint64_t per_row = decoder.scales_per_row();
  TernaryRows rows;
  rows.rows = range.count;
  rows.cols = cols;
  rows.trits.resize(range.count * cols);
  // A scale of the tensor is one of each of its rows: equal ones merge again where they must.
  rows.ranges = decoder.scale_layout() == ScaleLayout::kGroup
                    ? ScaleRanges{ScaleLayout::kGroup, decoder.group()}
                    : ScaleRanges{ScaleLayout::kRow, 0};
  rows.scales.resize(range.count * per_row);
  fabric::ParallelFor(range.count, kRowsPerTask, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      decoder.DecodeRow(range.first + row, std::span(rows.trits).subspan(row * cols, cols),
                        std::span(rows.scales).subspan(row * per_row, per_row));
    }
  });
  return rows;
}

std::vector<float> Conversion::ReadFloats(RowRange range) const {
  const uint64_t cols = info_.cols();
  std::vector<float> values(range.count * cols);
  fabric::ParallelFor(range.count, kRowsPerTask, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      gguf::DequantizeRow(info_, bytes_, file_.options(), range.first + row,
                          std::span(values).subspan(row * cols, cols));
    }
  });
  return values;
}

std::vector<std::byte> Conversion::EncodeFloats(RowRange range) const {
  const uint64_t cols = info_.cols();
  std::vector<std::byte> bytes(gguf::TensorByteSize(plan_.target, range.count, cols));
  const uint64_t row_bytes = bytes.size() / range.count;
  fabric::ParallelFor(range.count, kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<float> values(cols);
    for (size_t row = begin; row < end; ++row) {
      gguf::DequantizeRow(info_, bytes_, file_.options(), range.first + row, values);
      if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
        throw QuantizeError("a weight is not a finite number");
      }
      const std::vector<std::byte> part = gguf::EncodeTensor(plan_.target, 1, cols, values);
      std::memcpy(bytes.data() + row * row_bytes, part.data(), part.size());
    }
  });
  return bytes;
}

std::vector<std::byte> Conversion::EncodeTernaryFloats(RowRange range) {
  const gguf::TernaryScales target = *gguf::TernaryScalesOf(plan_.target);
  TernaryRows rows;
  rows.rows = range.count;
  rows.cols = info_.cols();
  rows.ranges = plan_.ranges;
  rows.trits.resize(range.count * rows.cols);
  TernarizeRows(ReadFloats(range), range, &rows);
  Method method = exact_ ? Method::kExact : Method::kCalibrated;
  for (float& scale : rows.scales) {
    const float stored = target.half ? RoundToHalf(scale) : scale;
    if (exact_ && stored != scale) method = Method::kRescaled;
    scale = stored;
  }
  if (method_ != Method::kRescaled) method_ = method;
  return EncodeTrits(plan_.target, rows);
}

void Conversion::TernarizeRows(std::span<const float> values, RowRange range,
                               TernaryRows* rows) const {
  const bool one = rows->ranges.layout == ScaleLayout::kTensor;
  const uint64_t cols = rows->cols;
  const uint64_t per_row = rows->ranges.PerRow(cols);
  const uint64_t width = rows->ranges.layout == ScaleLayout::kGroup ? rows->ranges.group : cols;
  const std::span<int8_t> trits(rows->trits);
  rows->scales.resize(one ? 1 : range.count * per_row);
  if (exact_) {
    const auto first = exact_->begin() + static_cast<std::ptrdiff_t>(range.first * per_row);
    std::copy_n(one ? exact_->begin() : first, rows->scales.size(), rows->scales.begin());
    std::transform(values.begin(), values.end(), trits.begin(),
                   [](float value) { return static_cast<int8_t>((value > 0) - (value < 0)); });
    return;
  }
  if (one) {
    rows->scales[0] = Ternarize(values, options_.calibration, trits);
    return;
  }
  fabric::ParallelFor(range.count, kRowsPerTask, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      for (uint64_t g = 0; g < per_row; ++g) {
        const uint64_t first = row * cols + g * width;
        const uint64_t count = std::min(width, cols - g * width);
        rows->scales[row * per_row + g] = Ternarize(
            values.subspan(first, count), options_.calibration, trits.subspan(first, count));
      }
    }
  });
}

// Decided for the tensor as a whole, before its first row is written.
void Conversion::FindExactScales() {
  if (options_.recalibrate) return;
  const ScaleRanges& ranges = plan_.ranges;
  const uint64_t cols = info_.cols();
  const uint64_t per_row = ranges.PerRow(cols);
  const uint64_t width = ranges.layout == ScaleLayout::kGroup ? ranges.group : cols;
  std::vector<float> scales(info_.rows() * per_row);
  std::atomic<bool> exact = true;
  fabric::ParallelFor(info_.rows(), kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<float> values(cols);
    for (size_t row = begin; row < end && exact; ++row) {
      gguf::DequantizeRow(info_, bytes_, file_.options(), row, values);
      for (uint64_t g = 0; g < per_row && exact; ++g) {
        const auto scale =
            FindExactScale(std::span(values).subspan(g * width, std::min(width, cols - g * width)));
        if (!scale) exact = false;
        scales[row * per_row + g] = scale.value_or(0.0F);
      }
    }
  });
  if (!exact) return;
  if (ranges.layout == ScaleLayout::kTensor) {
    // Rows of zeros have scale 0: a column of scales is exact when it is ternary itself.
    const auto scale = FindExactScale(scales);
    if (!scale) return;
    scales = {*scale};
  }
  exact_ = std::move(scales);
}

Difference Conversion::Compare(RowRange range, std::span<const std::byte> encoded) const {
  TensorInfo target = info_;
  target.type = plan_.target;
  target.extents = {info_.cols(), range.count, 1, 1};
  target.byte_size = encoded.size();
  std::vector<Difference> rows(range.count);
  fabric::ParallelFor(range.count, kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<float> before(info_.cols());
    std::vector<float> after(info_.cols());
    for (size_t row = begin; row < end; ++row) {
      gguf::DequantizeRow(info_, bytes_, file_.options(), range.first + row, before);
      gguf::DequantizeRow(target, encoded, {}, row, after);
      Difference& sums = rows[row];
      for (size_t i = 0; i < before.size(); ++i) {
        const double w = before[i];
        const double v = after[i];
        sums.zeros += v == 0 ? 1 : 0;
        sums.source_squares += w * w;
        sums.target_squares += v * v;
        sums.products += w * v;
        sums.difference_squares += (w - v) * (w - v);
      }
      sums.elements = before.size();
    }
  });
  Difference total;
  for (const Difference& row : rows) total.Add(row);
  return total;
}

// Everything of the report but the tensor's own entry.
void AddToTotals(const TensorReport& tensor, QuantizeReport* report) {
  report->source_bytes += tensor.source_bytes;
  report->target_bytes += tensor.target_bytes;
  report->total.Add(tensor.difference);
  if (gguf::TernaryScalesOf(tensor.target_type)) report->ternary.Add(tensor.difference);
}

// Runs the plan's conversions one after the other, whoever asks for their bytes.
class Run {
 public:
  Run(const gguf::File& file, const QuantizeOptions& options, const OnQuantizeProgress& progress)
      : file_(file), options_(options), progress_(progress) {
    for (const TensorInfo& info : file.tensors()) total_bytes_ += info.byte_size;
  }

  void Convert(const PlannedTensor& plan, const gguf::Writer::Emit& emit) {
    const TensorInfo& info = *plan.source;
    Conversion conversion(file_, options_, plan);
    report_.tensors.push_back(conversion.Run(emit, [&](double fraction) {
      const double bytes =
          static_cast<double>(done_bytes_) + fraction * static_cast<double>(info.byte_size);
      if (progress_) progress_({info.name, bytes / static_cast<double>(total_bytes_)});
    }));
    done_bytes_ += info.byte_size;
    AddToTotals(report_.tensors.back(), &report_);
  }

  QuantizeReport Take() { return std::move(report_); }

 private:
  const gguf::File& file_;
  const QuantizeOptions& options_;
  const OnQuantizeProgress& progress_;
  QuantizeReport report_;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

// The source's metadata, with what says how the tensors are stored put right.
gguf::Metadata MetadataFor(const gguf::File& file, const QuantizeOptions& options,
                           const std::vector<PlannedTensor>& plan) {
  gguf::Metadata metadata = file.metadata();
  const bool used = std::any_of(plan.begin(), plan.end(), [&](const PlannedTensor& tensor) {
    return tensor.target == options.type;
  });
  const std::optional<uint32_t> file_type = FileTypeOf(options.type);
  if (used && file_type) {
    metadata.Set("general.file_type", {gguf::ValueType::kUint32, uint64_t{*file_type}});
  } else {
    // Better no number than that of the source.
    metadata.Remove("general.file_type");
  }
  metadata.Set("general.quantization_version", {gguf::ValueType::kUint32, uint64_t{2}});
  return metadata;
}

}  // namespace

std::string_view MethodName(Method method) {
  switch (method) {
    case Method::kCopied:
      return "copied";
    case Method::kRepacked:
      return "repacked";
    case Method::kRescaled:
      return "scales rounded";
    case Method::kExact:
      return "exact";
    case Method::kCalibrated:
      return "calibrated";
    case Method::kEncoded:
      return "encoded";
  }
  return "?";
}

void Difference::Add(const Difference& other) {
  elements += other.elements;
  zeros += other.zeros;
  source_squares += other.source_squares;
  target_squares += other.target_squares;
  products += other.products;
  difference_squares += other.difference_squares;
}

double Difference::zero_rate() const {
  return elements == 0 ? 0 : static_cast<double>(zeros) / static_cast<double>(elements);
}

double Difference::relative_error() const {
  if (difference_squares == 0) return 0;
  return std::sqrt(difference_squares / source_squares);
}

double Difference::cosine() const {
  if (difference_squares == 0) return 1;
  if (source_squares == 0 || target_squares == 0) return 0;
  return products / std::sqrt(source_squares * target_squares);
}

Quantizer::Quantizer(const gguf::File& file, const QuantizeOptions& options)
    : file_(file), options_(options), plan_(PlanTensors(file, options)) {}

QuantizeReport Quantizer::WriteFile(const std::string& path,
                                    const OnQuantizeProgress& progress) const {
  Run run(file_, options_, progress);
  gguf::Writer writer;
  writer.metadata() = MetadataFor(file_, options_, plan_);
  writer.SetAlignment(file_.alignment());
  for (const PlannedTensor& plan : plan_) {
    const TensorInfo& info = *plan.source;
    writer.AddTensor(info.name, plan.target,
                     {info.extents.begin(), info.extents.begin() + info.rank},
                     gguf::TensorByteSize(plan.target, info.rows(), info.cols()),
                     [&run, &plan](const gguf::Writer::Emit& emit) { run.Convert(plan, emit); });
  }
  writer.WriteFile(path);
  return run.Take();
}

QuantizeReport Quantizer::Measure(const OnQuantizeProgress& progress) const {
  Run run(file_, options_, progress);
  for (const PlannedTensor& plan : plan_) {
    run.Convert(plan, [](std::span<const std::byte>) {});
  }
  return run.Take();
}

}  // namespace engine::quantize
