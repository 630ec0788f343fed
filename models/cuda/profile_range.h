// A named stretch of host time for profilers (Nsight Systems shows it beside the kernels that it queued). Costs next to
// nothing while none is attached, and nothing where the toolkit has no NVTX headers. Thread-safety: an object begins
// and ends on one thread, and objects of a thread end in the reverse order.
#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define STATEHOUSE_HAS_NVTX 1
#endif

namespace statehouse {

class ProfileRange {
 public:
#ifdef STATEHOUSE_HAS_NVTX
  explicit ProfileRange(const char* name) { nvtxRangePushA(name); }
  ~ProfileRange() { nvtxRangePop(); }
#else
  explicit ProfileRange(const char*) {}
  ~ProfileRange() {}
#endif
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
};

}  // namespace statehouse
