#include "fabric/driver/user_memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

namespace fabric::driver {
namespace {

using CopyFn = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long,
                           unsigned long);

// Whether all bytes were copied; *unavailable when the system call itself is not to be had.
bool CopyThroughKernel(CopyFn copy, void* own, uint64_t address, size_t bytes, bool* unavailable) {
  auto* local = static_cast<std::byte*>(own);
  while (bytes > 0) {
    const iovec here{local, bytes};
    const iovec there{reinterpret_cast<void*>(static_cast<uintptr_t>(address)), bytes};
    const ssize_t done = copy(getpid(), &here, 1, &there, 1, 0);
    if (done <= 0) {
      *unavailable = done < 0 && (errno == EPERM || errno == ENOSYS);
      return false;
    }
    local += done;
    address += static_cast<uint64_t>(done);
    bytes -= static_cast<size_t>(done);
  }
  return true;
}

bool Addressable(uint64_t address, size_t bytes) {
  return address != 0 && bytes <= std::numeric_limits<uintptr_t>::max() - address;
}

}  // namespace

bool CopyFromUser(uint64_t address, void* to, size_t bytes) noexcept {
  if (bytes == 0) return true;
  if (!Addressable(address, bytes)) return false;
  bool unavailable = false;
  if (CopyThroughKernel(process_vm_readv, to, address, bytes, &unavailable)) return true;
  if (!unavailable) return false;
  std::memcpy(to, reinterpret_cast<const void*>(static_cast<uintptr_t>(address)), bytes);
  return true;
}

bool CopyToUser(uint64_t address, const void* from, size_t bytes) noexcept {
  if (bytes == 0) return true;
  if (!Addressable(address, bytes)) return false;
  bool unavailable = false;
  if (CopyThroughKernel(process_vm_writev, const_cast<void*>(from), address, bytes, &unavailable)) {
    return true;
  }
  if (!unavailable) return false;
  std::memcpy(reinterpret_cast<void*>(static_cast<uintptr_t>(address)), from, bytes);
  return true;
}

}  // namespace fabric::driver
