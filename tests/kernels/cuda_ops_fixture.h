// Tensors on and from the GPU in float32 or bf16, for the tests of what surrounds retention. Skips where there is no
// GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/parallel/thread_pool.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {

inline float RoundBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

template <typename T>
DeviceBuffer OnDevice(const std::vector<T>& values) {
  DeviceBuffer buffer;
  EXPECT_TRUE(buffer.Allocate(values.size() * sizeof(T)).ok());
  EXPECT_TRUE(buffer.Upload(values.data(), values.size() * sizeof(T)).ok());
  return buffer;
}

inline DeviceBuffer OnDeviceAs(const std::vector<float>& values, bool is_bf16) {
  if (!is_bf16) return OnDevice(values);
  std::vector<__nv_bfloat16> rounded;
  for (float x : values) rounded.push_back(__float2bfloat16_rn(x));
  return OnDevice(rounded);
}

inline std::vector<float> FromDevice(const DeviceBuffer& buffer, int64_t size, bool is_bf16) {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::vector<float> out(size);
  if (!is_bf16) {
    EXPECT_TRUE(buffer.Download(out.data(), size * 4).ok());
    return out;
  }
  std::vector<__nv_bfloat16> rounded(size);
  EXPECT_TRUE(buffer.Download(rounded.data(), size * 2).ok());
  for (int64_t i = 0; i < size; ++i) out[i] = __bfloat162float(rounded[i]);
  return out;
}

class CudaModelOps : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { testing::HasGpu(); }
  bool is_bf16() const { return GetParam(); }
  // Of values about 1.
  double tolerance() const { return is_bf16() ? 8e-3 : 1e-5; }
  std::vector<float> Rounded(std::vector<float> values) const {
    if (is_bf16()) {
      for (float& x : values) x = RoundBf16(x);
    }
    return values;
  }

  std::mt19937 rng_ = SeededRng(std::random_device{}());
  ThreadPool pool_{2};
};

}  // namespace statehouse::kernels
