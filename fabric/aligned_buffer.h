#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace fabric {

// Bytes are handed out in whole cache lines, so kernels may read up to 63 bytes past the last
// element.
inline constexpr size_t kBufferAlignment = 64;

// Zeroed, aligned memory for AlignedBuffer; throws std::bad_alloc. bytes: as they were allocated.
void* AllocateAligned(size_t bytes);
void FreeAligned(void* memory, size_t bytes) noexcept;

// A fixed-size array of trivial elements, 64-byte aligned, zeroed. Large ones ask for huge pages,
// and the system gives them memory as it is first touched: a pool costs nothing before it is used.
//
// Ownership: owns, but for Borrow(). Move-only. Converts to a span; it is valid until destruction.
// Errors:    the constructor throws std::bad_alloc.
template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size);
  // Memory of somebody else, aligned in the same way, which outlives the buffer.
  static AlignedBuffer Borrow(std::span<T> memory) {
    AlignedBuffer buffer;
    buffer.data_ = std::unique_ptr<T[], Free>(memory.data(), Free{.owned = false});
    buffer.size_ = memory.size();
    return buffer;
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  operator std::span<T>() { return {data(), size_}; }
  operator std::span<const T>() const { return {data(), size_}; }

 private:
  struct Free {
    size_t bytes = 0;
    bool owned = true;
    void operator()(T* p) const {
      if (owned) FreeAligned(p, bytes);
    }
  };
  std::unique_ptr<T[], Free> data_;
  size_t size_ = 0;
};

template <typename T>
AlignedBuffer<T>::AlignedBuffer(size_t size)
    : data_(static_cast<T*>(AllocateAligned(size * sizeof(T))), Free{.bytes = size * sizeof(T)}),
      size_(size) {}

template <typename T>
std::span<std::byte> AsBytes(AlignedBuffer<T>& buffer) {
  return std::as_writable_bytes(std::span<T>(buffer));
}

}  // namespace fabric
