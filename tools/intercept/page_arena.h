#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace intercept {

// One stretch of address space that stands for the memory of a Fabric, handed out in whole pages,
// first fit, neighbours joined when they are free.
//
// Memory:  always reads as zeros when it is handed out.
// Threads: any, also in a fork()'s child when Lock() and Unlock() surround the fork.
// Errors:  nullptr. Nothing here allocates from the heap, throws or logs: malloc() itself calls it.
class PageArena {
 public:
  static constexpr size_t kPageBytes = 4096;

  constexpr PageArena() = default;
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;

  // Reserves address space; pages get memory when they are touched. Once. False: there is none.
  bool Reserve(size_t bytes) noexcept;
  bool Contains(const void* address) const noexcept;
  // Whether some byte of [address, address + bytes) is inside.
  bool Meets(const void* address, size_t bytes) const noexcept;

  // bytes > 0. nullptr when no free run is long enough.
  void* Allocate(size_t bytes) noexcept;
  // The bytes of the block that begins at address (whole pages), or 0 when none does.
  size_t BlockBytes(const void* address) const noexcept;
  // False when no block begins there.
  bool Free(void* address) noexcept;
  // The block around address is never handed out again: somebody mapped something else over it.
  void Retire(const void* address) noexcept;

  size_t used_bytes() const noexcept { return used_pages_.load() * kPageBytes; }

  // Around fork().
  void Lock() noexcept;
  void Unlock() noexcept;

 private:
  size_t PageOf(const void* address) const noexcept;
  size_t BlockAround(size_t page) const noexcept;

  uint8_t* base_ = nullptr;
  size_t pages_ = 0;
  uint32_t* runs_ = nullptr;  // at the first page of a run: its pages, and whether they are used
  std::atomic<size_t> used_pages_{0};
  mutable std::atomic_flag locked_ = ATOMIC_FLAG_INIT;
};

}  // namespace intercept
