// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): 128 random bits from a 128-bit
// counter and a 64-bit key. Nothing is kept between calls: what a kernel draws depends on what it counts alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace statehouse::kernels {

__device__ __forceinline__ uint4 Philox(uint4 counter, uint2 key) {
  constexpr uint32_t kMultiplierX = 0xD2511F53u, kMultiplierZ = 0xCD9E8D57u;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high_x = __umulhi(kMultiplierX, counter.x), low_x = kMultiplierX * counter.x;
    const uint32_t high_z = __umulhi(kMultiplierZ, counter.z), low_z = kMultiplierZ * counter.z;
    counter = {high_z ^ counter.y ^ key.x, low_z, high_x ^ counter.w ^ key.y, low_x};
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace statehouse::kernels
