#include "tools/intercept/fabric_blas.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace intercept {
namespace {

constexpr size_t kMostEntries = 64;
constexpr uint32_t kMostCols = 131071;
constexpr uint32_t kPowersOf3[5] = {1, 3, 9, 27, 81};
constexpr float kRounding = 0x1p-23F;

float At(const MatrixView& m, uint32_t row, uint32_t col) {
  return m.base[row * m.row_stride + col * m.col_stride];
}

// FNV-1a over the values' bits, a word at a time, spread at the end.
uint64_t HashOf(const MatrixView& m) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (uint32_t row = 0; row < m.rows; ++row) {
    for (uint32_t col = 0; col < m.cols; ++col) {
      hash = (hash ^ std::bit_cast<uint32_t>(At(m, row, col))) * 0x100000001B3ULL;
      hash ^= hash >> 47;
    }
  }
  return hash;
}

struct Planes {
  std::vector<std::vector<uint8_t>> trits;  // PT-5
  std::vector<std::vector<float>> scales;   // [rows] of each
  std::vector<float> weight;                // [rows]: sum |planes|
  std::vector<float> residual;              // [rows]: sum |W - planes|
};

// (3^planes - 1) / 2: the largest number of so many balanced digits.
int LargestLevel(uint32_t planes) {
  int power = 1;
  for (uint32_t i = 0; i < planes; ++i) power *= 3;
  return (power - 1) / 2;
}

// The step of each row's levels, so that its largest weight is the largest level.
std::vector<float> StepsOf(const MatrixView& m, uint32_t planes) {
  std::vector<float> steps(m.rows);
  for (uint32_t row = 0; row < m.rows; ++row) {
    float most = 0;
    for (uint32_t col = 0; col < m.cols; ++col) most = std::max(most, std::fabs(At(m, row, col)));
    steps[row] = most / static_cast<float>(LargestLevel(planes));
  }
  return steps;
}

int LevelOf(float weight, float step, int largest) {
  if (!(step > 0)) return 0;
  const float level = std::nearbyintf(weight / step);
  return static_cast<int>(
      std::clamp(level, static_cast<float>(-largest), static_cast<float>(largest)));
}

// ||W - levels * steps|| / ||W||; NaN when a weight is not finite.
double ErrorOf(const MatrixView& m, const std::vector<float>& steps, int largest) {
  double lost = 0;
  double norm = 0;
  for (uint32_t row = 0; row < m.rows; ++row) {
    for (uint32_t col = 0; col < m.cols; ++col) {
      const double weight = At(m, row, col);
      const double rest =
          weight - LevelOf(At(m, row, col), steps[row], largest) * double{steps[row]};
      lost += rest * rest;
      norm += weight * weight;
    }
  }
  return norm == 0 ? 0 : std::sqrt(lost / norm);
}

// The digits of a row's levels, plane after plane; the sums of what they are and of what they miss.
void TakeRow(const MatrixView& m, uint32_t row, float step, Planes* planes) {
  const auto count = static_cast<uint32_t>(planes->trits.size());
  const int largest = LargestLevel(count);
  double residual = 0;
  double weight = 0;
  for (uint32_t col = 0; col < m.cols; ++col) {
    const uint64_t index = uint64_t{row} * m.cols + col;
    int level = LevelOf(At(m, row, col), step, largest);
    double sum = 0;
    for (uint32_t p = 0; p < count; ++p) {
      const int digit = (level % 3 + 4) % 3 - 1;
      level = (level - digit) / 3;
      uint8_t& byte = planes->trits[p][index / 5];
      byte = static_cast<uint8_t>(byte + digit * static_cast<int>(kPowersOf3[index % 5]));
      sum += digit * double{planes->scales[p][row]};
      weight += std::abs(digit) * double{planes->scales[p][row]};
    }
    residual += std::fabs(At(m, row, col) - sum);
  }
  // Rounded up.
  planes->residual[row] = static_cast<float>(residual) * 1.0001F;
  planes->weight[row] = static_cast<float>(weight) * 1.0001F;
}

// As many planes as it takes to come to max_error; empty when `most` do not.
Planes PlanesOf(const MatrixView& m, uint32_t most, double max_error) {
  constexpr uint8_t kZeros = 121;
  Planes planes;
  std::vector<float> steps;
  uint32_t count = 1;
  for (; count <= most; ++count) {
    steps = StepsOf(m, count);
    if (ErrorOf(m, steps, LargestLevel(count)) <= max_error) break;
  }
  if (count > most) return planes;
  planes.weight.resize(m.rows);
  planes.residual.resize(m.rows);
  float power = 1;
  for (uint32_t p = 0; p < count; ++p, power *= 3) {
    planes.trits.emplace_back((uint64_t{m.rows} * m.cols + 4) / 5, kZeros);
    auto& scales = planes.scales.emplace_back(steps);
    for (float& scale : scales) scale *= power;
  }
  for (uint32_t row = 0; row < m.rows; ++row) TakeRow(m, row, steps[row], &planes);
  return planes;
}

// x as two vectors of codes: x ~ codes[0] / s[0] + codes[1] / s[1].
struct SplitVector {
  float largest = 0;
  float largest_rest = 0;
};

SplitVector Split(const float* x, uint32_t cols, int8_t* codes, float* scales) {
  SplitVector split;
  std::vector<float> rest(x, x + cols);
  for (int pass = 0; pass < 2; ++pass) {
    float most = 0;
    for (const float value : rest) most = std::max(most, std::fabs(value));
    (pass == 0 ? split.largest : split.largest_rest) = most;
    const float s = most > 0 ? 127.0F / most : 1.0F;
    scales[pass] = s;
    for (uint32_t i = 0; i < cols; ++i) {
      const float code = std::clamp(std::nearbyintf(rest[i] * s), -127.0F, 127.0F);
      codes[size_t{static_cast<unsigned>(pass)} * cols + i] = static_cast<int8_t>(code);
      rest[i] = static_cast<float>(double{rest[i]} - double{code} / double{s});
    }
  }
  return split;
}

}  // namespace

// The context outlives everything: the process may end in any thread.
bool FabricBlas::Start() {
  if (context_ != nullptr) return true;
  if (failed_) return false;
  tfmbs_config config = TFMBS_CONFIG_INIT;
  config.device = options_.device;
  failed_ = tfmbs_init(&config, &context_) != TFMBS_OK;
  return !failed_;
}

FabricBlas::Entry* FabricBlas::Find(const MatrixView& matrix) {
  for (Entry& entry : entries_) {
    if (entry.matrix == matrix) return &entry;
  }
  return nullptr;
}

FabricBlas::Entry* FabricBlas::Add(const MatrixView& matrix) {
  if (entries_.size() < kMostEntries) return &entries_.emplace_back(Entry{.matrix = matrix});
  Entry* oldest = nullptr;
  for (Entry& entry : entries_) {
    if (!entry.registered && (oldest == nullptr || entry.used < oldest->used)) oldest = &entry;
  }
  if (oldest == nullptr) return nullptr;
  Drop(oldest);
  *oldest = Entry{.matrix = matrix};
  return oldest;
}

void FabricBlas::Drop(Entry* entry) {
  if (entry->frame != 0) tfmbs_free(context_, entry->frame);
  entry->frame = 0;
}

bool FabricBlas::Ternarise(Entry* entry) {
  Drop(entry);
  const MatrixView& m = entry->matrix;
  const uint64_t trits = uint64_t{m.rows} * m.cols;
  entry->too_far = m.cols > kMostCols || trits > UINT32_MAX;
  if (entry->too_far) return false;
  Planes planes = PlanesOf(m, options_.planes, options_.max_error);
  entry->too_far = planes.trits.empty();
  if (entry->too_far) return false;
  std::vector<tfmbs_scales> scales;
  std::vector<tfmbs_plane> list;
  const std::vector<float> alphas(planes.trits.size(), 1.0F);
  scales.reserve(alphas.size());
  for (size_t i = 0; i < alphas.size(); ++i) {
    scales.push_back({TFMBS_SCALE_ROW, 0, m.rows, planes.scales[i].data()});
    list.push_back({TFMBS_FRAME(m.rows, m.cols), planes.trits[i].data(), planes.trits[i].size(),
                    &scales.back()});
  }
  const tfmbs_status status = tfmbs_upload_planes(
      context_, 0, list.data(), alphas.data(), static_cast<uint32_t>(list.size()), &entry->frame);
  if (status != TFMBS_OK) {
    entry->frame = 0;
    return false;
  }
  entry->weight = std::move(planes.weight);
  entry->residual = std::move(planes.residual);
  ++ternarised_;
  return true;
}

bool FabricBlas::Register(const MatrixView& matrix) {
  const std::lock_guard lock(mutex_);
  if (matrix.base == nullptr || matrix.rows == 0 || matrix.cols == 0 || !Start()) return false;
  Entry* entry = Find(matrix);
  if (entry == nullptr) entry = Add(matrix);
  if (entry == nullptr) return false;
  entry->registered = Ternarise(entry);
  return entry->registered;
}

bool FabricBlas::Unregister(const float* base) {
  const std::lock_guard lock(mutex_);
  bool found = false;
  std::erase_if(entries_, [&](Entry& entry) {
    if (entry.matrix.base != base || !entry.registered) return false;
    Drop(&entry);
    return found = true;
  });
  return found;
}

bool FabricBlas::IsKnown(const float* base) {
  const std::lock_guard lock(mutex_);
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.matrix.base == base; });
}

uint64_t FabricBlas::ternarised() {
  const std::lock_guard lock(mutex_);
  return ternarised_;
}

FabricBlas::Outcome FabricBlas::Multiply(const MatrixView& matrix, const float* x, uint32_t batch,
                                         std::vector<float>* y, std::vector<float>* bounds) {
  const std::lock_guard lock(mutex_);
  if (!Start()) return Outcome::kNoFabric;
  Entry* entry = Find(matrix);
  if (entry == nullptr) entry = Add(matrix);
  if (entry == nullptr) return Outcome::kNoFabric;
  entry->used = ++clock_;
  if (!entry->registered) {
    if (++entry->uses < options_.uses) return Outcome::kTooEarly;
    const uint64_t hash = HashOf(matrix);
    const bool changed = hash != entry->hash;
    entry->hash = hash;
    if (changed || (entry->frame == 0 && !entry->too_far)) Ternarise(entry);
    if (entry->too_far) return Outcome::kTooFar;
  }
  if (entry->frame == 0) return Outcome::kNoFabric;
  return Run(*entry, x, batch, y, bounds) ? Outcome::kDone : Outcome::kNoFabric;
}

bool FabricBlas::Run(const Entry& entry, const float* x, uint32_t batch, std::vector<float>* y,
                     std::vector<float>* bounds) {
  const MatrixView& m = entry.matrix;
  std::vector<int8_t> codes(size_t{2} * batch * m.cols);
  std::vector<float> scales(size_t{2} * batch);
  std::vector<float> both(size_t{2} * batch * m.rows);
  y->resize(size_t{batch} * m.rows);
  bounds->resize(y->size());
  std::vector<SplitVector> split(batch);
  for (size_t b = 0; b < batch; ++b) {
    split[b] = Split(x + b * m.cols, m.cols, codes.data() + 2 * b * m.cols, scales.data() + 2 * b);
    if (!std::isfinite(split[b].largest)) return false;
  }
  const tfmbs_op op = {.frame = entry.frame,
                       .x_kind = TFMBS_X_INT8_TOKEN,
                       .batch = 2 * batch,
                       .x = codes.data(),
                       .x_stride = 0,
                       .x_scales = scales.data(),
                       .x_scale_stride = 0,
                       .y = both.data(),
                       .y_stride = 0};
  tfmbs_ticket ticket = 0;
  if (tfmbs_submit(context_, &op, 1, &ticket) != TFMBS_OK) return false;
  tfmbs_status status = TFMBS_ERR_TIMEOUT;
  while (status == TFMBS_ERR_TIMEOUT) status = tfmbs_wait(context_, ticket, 1000);
  if (status != TFMBS_OK) return false;
  for (size_t b = 0; b < batch; ++b) {
    for (size_t r = 0; r < m.rows; ++r) {
      (*y)[b * m.rows + r] = both[2 * b * m.rows + r] + both[(2 * b + 1) * m.rows + r];
      (*bounds)[b * m.rows + r] =
          entry.residual[r] * split[b].largest + entry.weight[r] * split[b].largest_rest / 254 +
          kRounding * static_cast<float>(m.cols + 64) * entry.weight[r] * split[b].largest;
    }
  }
  return true;
}

}  // namespace intercept
