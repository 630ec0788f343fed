// Page-locked host memory, which a device reads and writes without a detour.
//
// Thread-safety: every method may be called from any thread.
#pragma once

#include <cstddef>
#include <span>

#include "absl/status/status.h"

namespace statehouse {

class PageLocker {
 public:
  virtual ~PageLocker() = default;
  // Takes a while (every page is touched). The device's error says why not; nothing has changed then.
  virtual absl::Status Lock(std::span<std::byte> memory) = 0;
  // REQUIRES: locked, from the same start. Before the memory is freed.
  virtual void Unlock(std::span<std::byte> memory) = 0;
};

}  // namespace statehouse
