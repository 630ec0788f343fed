// The product for few rows on the GPU, with what it does at the end, beside a plain loop in double.
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

struct Case {
  int64_t rows, outputs, inputs;
  bool has_bias, add, gelu, y_is_bf16;
  bool has_norm = false, is_rms = false;
};

double Gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

class CudaFewRows : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }

  template <typename T>
  DeviceBuffer OnDevice(const std::vector<T>& values) {
    DeviceBuffer buffer;
    EXPECT_TRUE(buffer.Allocate(values.size() * sizeof(T)).ok());
    EXPECT_TRUE(buffer.Upload(values.data(), values.size() * sizeof(T)).ok());
    return buffer;
  }
  // Numbers that bf16 holds, and the same on the device.
  std::vector<float> Draw(int64_t size, DeviceBuffer* device) {
    std::vector<float> values(size);
    std::vector<__nv_bfloat16> rounded(size);
    for (int64_t i = 0; i < size; ++i) {
      rounded[i] = __float2bfloat16_rn(normal_(random_));
      values[i] = __bfloat162float(rounded[i]);
    }
    *device = OnDevice(rounded);
    return values;
  }

  // Rows in float32, far from zero in the mean, and what their norm is, rounded to bf16; both with weight and shift.
  std::vector<float> DrawNormed(const Case& test, DeviceBuffer* x_device, DeviceBuffer* weight_device,
                                DeviceBuffer* bias_device) {
    std::vector<float> x(test.rows * test.inputs), weight(test.inputs), bias(test.inputs), normed(x.size());
    for (float& value : x) value = 3 + 2 * normal_(random_);
    for (float& value : weight) value = 1 + 0.3f * normal_(random_);
    for (float& value : bias) value = normal_(random_);
    *x_device = OnDevice(x), *weight_device = OnDevice(weight), *bias_device = OnDevice(bias);
    for (int64_t row = 0; row < test.rows; ++row) {
      const float* from = &x[row * test.inputs];
      double mean = 0, squares = 0;
      for (int64_t i = 0; i < test.inputs && !test.is_rms; ++i) mean += from[i] / static_cast<double>(test.inputs);
      for (int64_t i = 0; i < test.inputs; ++i) squares += (from[i] - mean) * (from[i] - mean);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(test.inputs) + kEpsilon);
      for (int64_t i = 0; i < test.inputs; ++i) {
        const double y = (from[i] - mean) * scale * weight[i] + (test.is_rms ? 0 : bias[i]);
        normed[row * test.inputs + i] = __bfloat162float(__float2bfloat16_rn(static_cast<float>(y)));
      }
    }
    return normed;
  }

  void Run(const Case& test) {
    DeviceBuffer x_device, w_device, norm_weight, norm_bias;
    const std::vector<float> x = test.has_norm ? DrawNormed(test, &x_device, &norm_weight, &norm_bias)
                                               : Draw(test.rows * test.inputs, &x_device),
                             w = Draw(test.outputs * test.inputs, &w_device);
    std::vector<float> bias(test.outputs), before(test.rows * test.outputs, std::nanf(""));
    for (float& value : bias) value = normal_(random_);
    if (test.add) {
      for (float& value : before) value = 10 * normal_(random_);
    }
    const DeviceBuffer bias_device = OnDevice(bias), y_device = OnDevice(before);
    const CudaFewRowsArgs args = {.weights = w_device.as<void>(),
                                  .x = x_device.as<void>(),
                                  .y = y_device.as<void>(),
                                  .bias = test.has_bias ? bias_device.as<float>() : nullptr,
                                  .y_is_bf16 = test.y_is_bf16,
                                  .add = test.add,
                                  .gelu = test.gelu,
                                  .rows = test.rows,
                                  .outputs = test.outputs,
                                  .inputs = test.inputs,
                                  .norm = {.weight = norm_weight.as<float>(),
                                           .bias = test.is_rms ? nullptr : norm_bias.as<float>(),
                                           .epsilon = kEpsilon,
                                           .is_rms = test.is_rms}};
    ASSERT_TRUE(HasFewRowsKernel(args));
    const absl::Status status = CudaMultiplyFewRows(args, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    std::vector<float> y(test.rows * test.outputs);
    std::vector<__nv_bfloat16> rounded(y.size());
    if (test.y_is_bf16) {
      ASSERT_TRUE(y_device.Download(rounded.data(), rounded.size() * 2).ok());
      for (size_t i = 0; i < y.size(); ++i) y[i] = __bfloat162float(rounded[i]);
    } else {
      ASSERT_TRUE(y_device.Download(y.data(), y.size() * 4).ok());
    }
    double error = 0, size = 0;
    for (int64_t row = 0; row < test.rows; ++row) {
      for (int64_t output = 0; output < test.outputs; ++output) {
        double want = test.has_bias ? bias[output] : 0;
        for (int64_t k = 0; k < test.inputs; ++k)
          want += double{x[row * test.inputs + k]} * w[output * test.inputs + k];
        if (test.gelu) want = Gelu(want);
        const int64_t at = row * test.outputs + output;
        if (test.add) want += before[at];
        error += (y[at] - want) * (y[at] - want);
        size += want * want;
      }
    }
    // A norm near the middle of two bf16 numbers may become the other one.
    EXPECT_LE(std::sqrt(error / size), test.y_is_bf16 ? 4e-3 : test.has_norm ? 2e-4 : 2e-6);
  }

  std::mt19937 random_{5};
  static constexpr float kEpsilon = 1e-5f;
  std::normal_distribution<float> normal_{0, 1};
};

TEST_F(CudaFewRows, EveryNumberOfRowsAndEnd_AgreesWithAPlainLoop) {
  for (const int64_t rows : {1, 2, 3, 8, 9, 16}) {
    for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{40, 512}, {13, 3072}, {8200, 1024}}) {
      SCOPED_TRACE(std::to_string(rows) + " rows, " + std::to_string(outputs) + " outputs");
      Run({rows, outputs, inputs, false, false, false, false});
      Run({rows, outputs, inputs, true, true, false, false});
      Run({rows, outputs, inputs, true, false, true, true});
    }
  }
  Run({1, 3072, 12288, true, true, false, false});
  Run({8, 24, 12288, true, true, false, false});
}

TEST_F(CudaFewRows, RowsThatAreNormalisedOnTheWay_AgreeWithTheNormBefore) {
  for (const int64_t rows : {1, 2}) {
    for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{40, 512}, {13, 3072}, {8200, 1536}}) {
      SCOPED_TRACE(std::to_string(rows) + " rows, " + std::to_string(outputs) + " outputs");
      Run({rows, outputs, inputs, false, false, false, false, true, false});
      Run({rows, outputs, inputs, true, false, true, true, true, true});
    }
  }
}

TEST(CudaFewRowsShapes, WithoutAKernel_AreKnown) {
  EXPECT_FALSE(HasFewRowsKernel({.rows = 17, .outputs = 8, .inputs = 512}));
  EXPECT_FALSE(HasFewRowsKernel({.rows = 1, .outputs = 8, .inputs = 520}));
  EXPECT_TRUE(HasFewRowsKernel({.rows = 16, .outputs = 8, .inputs = 512}));
  const float weight = 1;
  EXPECT_TRUE(HasFewRowsKernel({.rows = 2, .outputs = 8, .inputs = 3072, .norm = {.weight = &weight}}));
  EXPECT_FALSE(HasFewRowsKernel({.rows = 3, .outputs = 8, .inputs = 3072, .norm = {.weight = &weight}}));
  EXPECT_FALSE(HasFewRowsKernel({.rows = 1, .outputs = 8, .inputs = 3584, .norm = {.weight = &weight}}));
}

}  // namespace
}  // namespace statehouse::kernels
