// Page-locking for one GPU; what it locks, the others of the process may reach, too.
#pragma once

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "models/page_locker.h"

namespace statehouse {

class CudaPageLocker final : public PageLocker {
 public:
  explicit CudaPageLocker(int device_idx) : device_idx_(device_idx) {}
  absl::Status Lock(std::span<std::byte> memory) override;
  void Unlock(std::span<std::byte> memory) override;

 private:
  const int device_idx_;
};

}  // namespace statehouse
