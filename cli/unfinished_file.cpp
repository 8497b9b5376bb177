#include "cli/unfinished_file.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace cli {
namespace {

// What the handler reads: plain memory behind lock-free pointers, for it may allocate nothing.
std::array<std::atomic<char*>, 8> unfinished_paths;
static_assert(std::atomic<char*>::is_always_lock_free);

constexpr std::array kEndingSignals = {SIGINT, SIGTERM, SIGHUP};

void RemoveAndEnd(int signal) {
  for (size_t i = unfinished_paths.size(); i-- > 0;) {
    const char* path = unfinished_paths[i];
    if (path != nullptr && unlink(path) != 0) rmdir(path);
  }
  // SA_RESETHAND has restored the default, which acts once this returns.
  raise(signal);
}

void HandleEndingSignals() {
  for (const int signal : kEndingSignals) {
    struct sigaction now {};
    if (sigaction(signal, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) continue;
    struct sigaction action {};
    action.sa_handler = RemoveAndEnd;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

UnfinishedFile::UnfinishedFile(const std::string& path) : path_(strdup(path.c_str())) {
  if (path_ == nullptr) throw std::bad_alloc();
  for (std::atomic<char*>& slot : unfinished_paths) {
    char* empty = nullptr;
    if (slot.compare_exchange_strong(empty, path_)) {
      HandleEndingSignals();
      return;
    }
  }
  std::free(path_);
  throw std::length_error("more than eight unfinished files");
}

UnfinishedFile::~UnfinishedFile() {
  for (std::atomic<char*>& slot : unfinished_paths) {
    char* own = path_;
    if (slot.compare_exchange_strong(own, nullptr)) break;
  }
  // Not freed: a handler that runs on another thread may be reading it, and the program ends then.
}

}  // namespace cli
