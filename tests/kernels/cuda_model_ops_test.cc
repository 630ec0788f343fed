// What surrounds retention on the GPU, beside the CPU's kernels.
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/activation/cuda/activation.h"
#include "kernels/embedding/cuda/embedding.h"
#include "kernels/matmul/cuda/matmul.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/cuda/heads.h"
#include "kernels/rope/rope.h"
#include "tests/kernels/cuda_ops_fixture.h"

namespace statehouse::kernels {
namespace {

INSTANTIATE_TEST_SUITE_P(Types, CudaModelOps, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "bf16" : "f32"; });

TEST_P(CudaModelOps, Norms_WithBiasesAndChosenRows) {
  constexpr int64_t kRows = 5;
  for (const bool is_rms : {false, true}) {
    for (const int64_t size : {64, 3072, 12296}) {
      const std::vector<float> x = Normals(rng_, kRows * size), x_bias = Normals(rng_, size),
                               weight = Normals(rng_, size), bias = Normals(rng_, size);
      std::vector<float> sum = x, want(kRows * size);
      for (int64_t i = 0; i < kRows * size; ++i) sum[i] += x_bias[i % size];
      const NormArgs args = {.x = sum.data(),
                             .y = want.data(),
                             .weight = weight.data(),
                             .bias = is_rms ? nullptr : bias.data(),
                             .num_rows = kRows,
                             .size = size};
      is_rms ? RmsNorm(args, pool_) : LayerNorm(args, pool_);
      DeviceBuffer on_device = OnDevice(x), y = OnDeviceAs(want, is_bf16());
      const DeviceBuffer added = OnDevice(x_bias), scaled = OnDevice(weight), shifted = OnDevice(bias);
      CudaNormArgs cuda = {.x = on_device.as<float>(),
                           .x_bias = added.as<float>(),
                           .y = y.as<void>(),
                           .y_is_bf16 = is_bf16(),
                           .weight = scaled.as<float>(),
                           .bias = is_rms ? nullptr : shifted.as<float>(),
                           .num_rows = kRows,
                           .size = size,
                           .is_rms = is_rms};
      ASSERT_EQ(cudaMemset(y.as<void>(), 0xff, y.bytes()), cudaSuccess);
      ASSERT_TRUE(CudaNorm(cuda, nullptr).ok());
      const auto near = [&](int64_t i) { return tolerance() * (1 + std::fabs(want[i])); };
      EXPECT_TRUE(Near(FromDevice(y, kRows * size, is_bf16()), want, near));
      EXPECT_TRUE(SameBits(FromDevice(on_device, kRows * size, false), sum)) << "the bias is not in the stream";
      // Row 3 alone, without writing back.
      const DeviceBuffer rows = OnDevice(std::vector<int32_t>{3});
      cuda.rows = rows.as<int32_t>();
      cuda.num_rows = 1;
      cuda.x_bias = nullptr;
      ASSERT_TRUE(CudaNorm(cuda, nullptr).ok());
      const std::vector<float> third(want.begin() + 3 * size, want.begin() + 4 * size);
      EXPECT_TRUE(Near(FromDevice(y, size, is_bf16()), third,
                       [&](int64_t i) { return tolerance() * (1 + std::fabs(third[i])); }));
    }
  }
}

TEST_P(CudaModelOps, Activations_MatchTheCpus) {
  constexpr int64_t kRows = 7, kSize = 160;
  const std::vector<float> x = Rounded(Normals(rng_, kRows * 2 * kSize, 2)), bias = Normals(rng_, kSize);
  std::vector<float> gelu(kRows * kSize), gate(kRows * kSize), up(kRows * kSize);
  for (int64_t i = 0; i < kRows * kSize; ++i) {
    gelu[i] = x[i] + bias[i % kSize];
    gate[i] = x[i / kSize * 2 * kSize + i % kSize];
    up[i] = x[i / kSize * 2 * kSize + kSize + i % kSize];
  }
  GeluTanh(gelu.data(), kRows * kSize, pool_);
  SiluMul(gate.data(), up.data(), kRows * kSize, pool_);
  const DeviceBuffer in = OnDeviceAs(x, is_bf16()), added = OnDevice(bias);
  DeviceBuffer out = OnDeviceAs(gelu, is_bf16());
  const CudaActivationArgs args = {.x = in.as<void>(),
                                   .bias = added.as<float>(),
                                   .y = out.as<void>(),
                                   .is_bf16 = is_bf16(),
                                   .num_rows = kRows,
                                   .size = kSize};
  const auto check = [&](const std::vector<float>& want) {
    EXPECT_TRUE(Near(FromDevice(out, kRows * kSize, is_bf16()), want,
                     [&](int64_t i) { return tolerance() * (1 + std::fabs(want[i])); }));
  };
  ASSERT_TRUE(CudaGeluTanh(args, nullptr).ok());
  check(gelu);
  ASSERT_TRUE(CudaSiluMul(args, nullptr).ok());
  check(gate);
}

// Of tokens, and of those that the step before chose; of one that it could not choose, row 0.
TEST_P(CudaModelOps, Embedding_CopiesRows) {
  constexpr int64_t kVocab = 50, kSize = 72;
  const std::vector<float> table = Rounded(Normals(rng_, kVocab * kSize));
  const std::vector<int32_t> tokens = {49, 0, 7, 7, -1 - 2, -1, -1 - 1}, chosen = {11, -1, 48};
  const DeviceBuffer on_device = OnDeviceAs(table, is_bf16()), ids = OnDevice(tokens), before = OnDevice(chosen);
  std::vector<float> want;
  for (int32_t token : {49, 0, 7, 7, 48, 11, 0})
    want.insert(want.end(), &table[token * kSize], &table[token * kSize] + kSize);
  DeviceBuffer out = OnDevice(std::vector<float>(want.size(), NAN));
  ASSERT_TRUE(CudaEmbed({.table = on_device.as<void>(),
                         .is_bf16 = is_bf16(),
                         .tokens = ids.as<int32_t>(),
                         .chosen = before.as<int32_t>(),
                         .out = out.as<float>(),
                         .num_rows = static_cast<int64_t>(tokens.size()),
                         .size = kSize},
                        nullptr)
                  .ok());
  EXPECT_TRUE(SameBits(FromDevice(out, want.size(), false), want));
}

TEST_P(CudaModelOps, MatMul_FastAndInOrder_MatchDoubleAndKeepBitsForAnyNumberOfRows) {
  struct Size {
    int64_t rows, outputs, inputs;
  };
  for (const Size size : {Size{1, 64, 64}, Size{3, 100, 72}, Size{70, 300, 264}, Size{130, 128, 1024}}) {
    const std::vector<float> x = Rounded(Normals(rng_, size.rows * size.inputs)),
                             w = Rounded(Normals(rng_, size.outputs * size.inputs)),
                             y0 = Normals(rng_, size.rows * size.outputs);
    std::vector<double> want(y0.begin(), y0.end());
    for (int64_t i = 0; i < size.rows; ++i) {
      for (int64_t j = 0; j < size.outputs; ++j) {
        for (int64_t k = 0; k < size.inputs; ++k) {
          want[i * size.outputs + j] += double{x[i * size.inputs + k]} * w[j * size.inputs + k];
        }
      }
    }
    const DeviceBuffer on_device_x = OnDeviceAs(x, is_bf16()), on_device_w = OnDeviceAs(w, is_bf16());
    for (const MatMulMode mode : {MatMulMode::kFast, MatMulMode::kDeterministic}) {
      auto matmul = CudaMatMul::Make(mode, is_bf16(), nullptr);
      ASSERT_TRUE(matmul.ok()) << matmul.status();
      DeviceBuffer y = OnDevice(y0);
      CudaMatMulArgs args = {.weights = on_device_w.as<void>(),
                             .x = on_device_x.as<void>(),
                             .y = y.as<void>(),
                             .rows = size.rows,
                             .outputs = size.outputs,
                             .inputs = size.inputs,
                             .add = true};
      const absl::Status status = matmul->Run(args);
      ASSERT_TRUE(status.ok()) << status;
      const std::vector<float> all = FromDevice(y, size.rows * size.outputs, false);
      const double near = 1e-5 * std::sqrt(static_cast<double>(size.inputs));
      EXPECT_TRUE(Near(all, want, [&](int64_t) { return near; })) << static_cast<int>(mode);
      if (mode == MatMulMode::kFast) continue;
      ASSERT_TRUE(y.Upload(y0.data(), y0.size() * 4).ok());
      args.rows = 1;
      ASSERT_TRUE(matmul->Run(args).ok());
      std::vector<float> first = FromDevice(y, size.outputs, false);
      EXPECT_TRUE(SameBits(first, {all.begin(), all.begin() + size.outputs}));
    }
  }
}

TEST_P(CudaModelOps, Heads_BiasNormRopeAndGates) {
  constexpr int kHq = 6, kHk = 2;
  const std::vector<int64_t> positions = {0, 5, (int64_t{1} << 24) + 1, (int64_t{1} << 31) + 5};
  const int64_t rows = static_cast<int64_t>(positions.size());
  for (const int d : {16, 128}) {
    const int64_t width = int64_t{kHq + 2 * kHk} * d + kHk, stride = width + 6;
    const std::vector<float> x = Normals(rng_, rows * stride), bias = Normals(rng_, width), q_norm = Normals(rng_, d),
                             k_norm = Normals(rng_, d);
    const RopeFrequencies rope(d, 1e6);
    std::vector<float> want = x;
    for (int64_t row = 0; row < rows; ++row) {
      float* const at = want.data() + row * stride;
      for (int64_t i = 0; i < width; ++i) at[i] += bias[i];
      std::vector<float> cosine(d / 2), sine(d / 2);
      rope.Angles(positions[row], cosine.data(), sine.data());
      RmsNorm({.x = at, .y = at, .weight = q_norm.data(), .num_rows = kHq, .size = d, .epsilon = 1e-6f}, pool_);
      RmsNorm(
          {.x = at + kHq * d, .y = at + kHq * d, .weight = k_norm.data(), .num_rows = kHk, .size = d, .epsilon = 1e-6f},
          pool_);
      ApplyRope(
          {.x = at, .cos = cosine.data(), .sin = sine.data(), .num_rows = 1, .num_heads = kHq + kHk, .head_dim = d},
          pool_);
      LogSigmoid(at + (kHq + 2 * kHk) * d, kHk, pool_);
    }
    DeviceBuffer on_device = OnDevice(x), angles;
    ASSERT_TRUE(angles.Allocate(rows * d / 2 * sizeof(float2)).ok());
    const DeviceBuffer places = OnDevice(positions), turns = OnDevice(rope.turns()), added = OnDevice(bias),
                       q_scale = OnDevice(q_norm), k_scale = OnDevice(k_norm);
    ASSERT_TRUE(
        CudaRopeAngles(places.as<int64_t>(), turns.as<DoubleDouble>(), angles.as<float2>(), rows, d, nullptr).ok());
    ASSERT_TRUE(CudaPrepareHeads({.x = on_device.as<float>(),
                                  .bias = added.as<float>(),
                                  .q_norm = q_scale.as<float>(),
                                  .k_norm = k_scale.as<float>(),
                                  .angles = angles.as<float2>(),
                                  .num_rows = rows,
                                  .row_stride = stride,
                                  .heads_q = kHq,
                                  .heads_kv = kHk,
                                  .head_dim = d},
                                 nullptr)
                    .ok());
    EXPECT_TRUE(Near(FromDevice(on_device, rows * stride, false), want,
                     [&](int64_t i) { return 2e-6 * (1 + std::fabs(want[i])); }));
  }
}

}  // namespace
}  // namespace statehouse::kernels
