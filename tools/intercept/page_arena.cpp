#include "tools/intercept/page_arena.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace intercept {
namespace {

// Of an entry of runs_. Runs have at most 2^30 - 1 pages, 4 TiB.
constexpr uint32_t kUsed = 0x80000000U;
constexpr uint32_t kRetired = 0x40000000U;
constexpr uint32_t kPages = kRetired - 1;

// Not mmap(), which is one of the functions that are intercepted.
void* MapPages(size_t bytes) {
  const long at = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == -1 ? nullptr : reinterpret_cast<void*>(at);
}

class Guard {
 public:
  explicit Guard(std::atomic_flag* flag) : flag_(flag) {
    while (flag_->test_and_set(std::memory_order_acquire)) sched_yield();
  }
  ~Guard() { flag_->clear(std::memory_order_release); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  std::atomic_flag* flag_;
};

}  // namespace

void PageArena::Lock() noexcept {
  while (locked_.test_and_set(std::memory_order_acquire)) sched_yield();
}

void PageArena::Unlock() noexcept { locked_.clear(std::memory_order_release); }

bool PageArena::Reserve(size_t bytes) noexcept {
  const size_t pages = bytes / kPageBytes;
  if (base_ != nullptr || pages == 0 || pages > kPages) return false;
  auto* runs = static_cast<uint32_t*>(MapPages(pages * sizeof(uint32_t)));
  auto* base = static_cast<uint8_t*>(MapPages(pages * kPageBytes));
  if (runs == nullptr || base == nullptr) return false;
  runs_ = runs;
  base_ = base;
  pages_ = pages;
  runs_[0] = static_cast<uint32_t>(pages);
  return true;
}

bool PageArena::Contains(const void* address) const noexcept {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto begin = reinterpret_cast<uintptr_t>(base_);
  return at >= begin && at - begin < pages_ * kPageBytes;
}

bool PageArena::Meets(const void* address, size_t bytes) const noexcept {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto begin = reinterpret_cast<uintptr_t>(base_);
  return Contains(address) || (pages_ > 0 && at < begin && begin - at < bytes);
}

size_t PageArena::PageOf(const void* address) const noexcept {
  return static_cast<size_t>(static_cast<const uint8_t*>(address) - base_) / kPageBytes;
}

void* PageArena::Allocate(size_t bytes) noexcept {
  if (bytes > pages_ * kPageBytes) return nullptr;
  const size_t wanted = (bytes + kPageBytes - 1) / kPageBytes;
  const Guard guard(&locked_);
  for (size_t page = 0; page < pages_; page += runs_[page] & kPages) {
    if ((runs_[page] & kUsed) != 0) continue;
    size_t found = runs_[page];
    while (page + found < pages_ && (runs_[page + found] & kUsed) == 0) {
      found += runs_[page + found];
    }
    runs_[page] = static_cast<uint32_t>(found);
    if (found < wanted) continue;
    if (found > wanted) runs_[page + wanted] = static_cast<uint32_t>(found - wanted);
    runs_[page] = static_cast<uint32_t>(wanted) | kUsed;
    used_pages_ += wanted;
    return base_ + page * kPageBytes;
  }
  return nullptr;
}

// The first page of the run that holds `page`.
size_t PageArena::BlockAround(size_t page) const noexcept {
  size_t first = 0;
  while (first + (runs_[first] & kPages) <= page) first += runs_[first] & kPages;
  return first;
}

size_t PageArena::BlockBytes(const void* address) const noexcept {
  if (!Contains(address) || reinterpret_cast<uintptr_t>(address) % kPageBytes != 0) return 0;
  const Guard guard(&locked_);
  const size_t page = PageOf(address);
  const bool whole = BlockAround(page) == page && (runs_[page] & kUsed) != 0;
  if (!whole || (runs_[page] & kRetired) != 0) return 0;
  return (runs_[page] & kPages) * kPageBytes;
}

bool PageArena::Free(void* address) noexcept {
  const size_t bytes = BlockBytes(address);
  if (bytes == 0) return false;
  // Gives the memory back, and makes it read as zeros again.
  madvise(address, bytes, MADV_DONTNEED);
  const Guard guard(&locked_);
  const size_t page = PageOf(address);
  runs_[page] &= kPages;
  used_pages_ -= runs_[page];
  return true;
}

void PageArena::Retire(const void* address) noexcept {
  if (!Contains(address)) return;
  const Guard guard(&locked_);
  const size_t first = BlockAround(PageOf(address));
  if ((runs_[first] & kUsed) != 0) runs_[first] |= kRetired;
}

}  // namespace intercept
