#include "engine/pooling.h"

#include <cassert>
#include <cmath>

namespace engine {

std::string_view PoolingName(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return "mean";
    case Pooling::kCls:
      return "cls";
    case Pooling::kLast:
      return "last";
  }
  return "";
}

bool Pooler::Needs(uint32_t position) const {
  if (position < next_) return false;
  switch (pooling_) {
    case Pooling::kMean:
      return true;
    case Pooling::kCls:
      return position == 0;
    case Pooling::kLast:
      return position + 1 == tokens_;
  }
  return false;
}

void Pooler::Add(uint32_t position, std::span<const float> hidden) {
  assert(Needs(position));
  if (sum_.empty()) sum_.resize(hidden.size(), 0.0);
  assert(sum_.size() == hidden.size());
  for (size_t i = 0; i < hidden.size(); ++i) sum_[i] += static_cast<double>(hidden[i]);
  next_ = position + 1;
}

std::vector<float> Pooler::Result() const {
  assert(!sum_.empty());
  const double count = pooling_ == Pooling::kMean ? tokens_ : 1;
  std::vector<float> result;
  result.reserve(sum_.size());
  for (const double sum : sum_) result.push_back(static_cast<float>(sum / count));
  return result;
}

std::vector<float> Normalized(std::span<const float> vector, size_t dimensions) {
  if (dimensions != 0 && dimensions < vector.size()) vector = vector.first(dimensions);
  double squares = 0;
  for (const float value : vector) {
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const double length = squares > 0 ? std::sqrt(squares) : 1;
  std::vector<float> result;
  result.reserve(vector.size());
  for (const float value : vector) {
    result.push_back(static_cast<float>(static_cast<double>(value) / length));
  }
  return result;
}

}  // namespace engine
