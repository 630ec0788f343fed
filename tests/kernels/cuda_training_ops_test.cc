// The gradients of what surrounds retention on the GPU, beside the references. Skips where there is no GPU.
#include "kernels/activation/activation_backward.h"
#include "kernels/activation/cuda/activation_backward.h"
#include "kernels/bias/cuda/bias_backward.h"
#include "kernels/embedding/cuda/embedding_backward.h"
#include "kernels/embedding/token_rows.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/loss/cuda/cross_entropy.h"
#include "kernels/norm/cuda/norm_backward.h"
#include "kernels/norm/norm_backward.h"
#include "kernels/rope/cuda/heads_backward.h"
#include "kernels/rope/heads_backward.h"
#include "tests/kernels/cuda_ops_fixture.h"

namespace statehouse::kernels {
namespace {

using Doubles = std::vector<double>;
Doubles ToDoubles(const std::vector<float>& x) { return Doubles(x.begin(), x.end()); }

class CudaTrainingOps : public CudaModelOps {
 protected:
  // Sums of `count` products of values about 1; what is read or written in bf16 is rounded once.
  void ExpectNear(const std::vector<float>& got, const Doubles& want, double sums = 1) const {
    const std::vector<float> rounded(want.begin(), want.end());
    EXPECT_TRUE(Near(got, rounded, [&](int64_t i) { return tolerance() * (sums + std::fabs(want[i])); }));
  }
  // Of memory that a kernel must fill.
  DeviceBuffer Poisoned(int64_t size, bool in_bf16) {
    DeviceBuffer buffer = OnDeviceAs(std::vector<float>(size), in_bf16);
    EXPECT_EQ(cudaMemset(buffer.as<void>(), 0xff, buffer.bytes()), cudaSuccess);
    return buffer;
  }
};
INSTANTIATE_TEST_SUITE_P(Types, CudaTrainingOps, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "bf16" : "f32"; });

TEST_P(CudaTrainingOps, Norms_WithResidualAndAccumulation) {
  for (const int64_t rows : {1, 67, 300}) {
    for (const int64_t size : {64, 3072, 5000}) {
      const bool is_rms = rows == 67;
      const std::vector<float> x = Normals(rng_, rows * size), dy = Rounded(Normals(rng_, rows * size)),
                               weight = Normals(rng_, size), beside = Normals(rng_, rows * size),
                               held = Normals(rng_, size);
      NormGradients want = NormBackwardRef(ToDoubles(x), ToDoubles(dy), ToDoubles(weight), 1e-5, is_rms);
      for (size_t i = 0; i < want.dx.size(); ++i) want.dx[i] += beside[i];
      for (int64_t i = 0; i < size; ++i) want.dweight[i] += held[i], want.dbias[i] += held[i];
      const DeviceBuffer on_x = OnDevice(x), on_dy = OnDeviceAs(dy, is_bf16()), on_weight = OnDevice(weight);
      std::vector<float> first;
      for (int turn = 0; turn < 2; ++turn) {
        const DeviceBuffer dx = OnDevice(beside), dweight = OnDevice(held), dbias = OnDevice(held);
        const DeviceBuffer workspace = Poisoned(static_cast<int64_t>(CudaNormBackwardWorkspace(rows, size)) / 4, false);
        const absl::Status status = CudaNormBackward({.x = on_x.as<float>(),
                                                      .dy = on_dy.as<void>(),
                                                      .dy_is_bf16 = is_bf16(),
                                                      .weight = on_weight.as<float>(),
                                                      .dresidual = dx.as<float>(),
                                                      .dx = dx.as<float>(),
                                                      .dweight = dweight.as<float>(),
                                                      .dbias = is_rms ? nullptr : dbias.as<float>(),
                                                      .accumulates = true,
                                                      .workspace = workspace.as<void>(),
                                                      .num_rows = rows,
                                                      .size = size,
                                                      .is_rms = is_rms},
                                                     nullptr);
        ASSERT_TRUE(status.ok()) << status;
        std::vector<float> all = FromDevice(dx, rows * size, false);
        EXPECT_TRUE(Near(all, std::vector<float>(want.dx.begin(), want.dx.end()),
                         [&](int64_t i) { return 2e-5 * (1 + std::fabs(want.dx[i])); }));
        const std::vector<float> weights = FromDevice(dweight, size, false), biases = FromDevice(dbias, size, false);
        const auto near = [&](const Doubles& of) {
          return [&](int64_t i) { return 2e-6 * (static_cast<double>(rows) + std::fabs(of[i])); };
        };
        EXPECT_TRUE(Near(weights, std::vector<float>(want.dweight.begin(), want.dweight.end()), near(want.dweight)));
        if (!is_rms) {
          EXPECT_TRUE(Near(biases, std::vector<float>(want.dbias.begin(), want.dbias.end()), near(want.dbias)));
        }
        all.insert(all.end(), weights.begin(), weights.end());
        if (turn == 0) first = all;
        EXPECT_TRUE(SameBits(all, first)) << "the same inputs, other bits";
      }
    }
  }
}

TEST_P(CudaTrainingOps, ActivationsAndBiases) {
  constexpr int64_t kRows = 130, kSize = 52;
  const std::vector<float> x = Rounded(Normals(rng_, kRows * 2 * kSize, 2)), bias = Normals(rng_, kSize),
                           dy = Rounded(Normals(rng_, kRows * kSize));
  Doubles gelu(kRows * kSize), silu(2 * kRows * kSize), sums(kSize);
  for (int64_t i = 0; i < kRows * kSize; ++i) {
    const int64_t gate = i / kSize * 2 * kSize + i % kSize;
    gelu[i] = dy[i] * GeluTanhDerivative(static_cast<double>(x[i]) + bias[i % kSize]);
    const SiluMulGradient both = SiluMulBackwardRef(x[gate], x[gate + kSize], dy[i]);
    silu[gate] = both.dgate, silu[gate + kSize] = both.dup;
    sums[i % kSize] += dy[i];
  }
  const DeviceBuffer on_x = OnDeviceAs(x, is_bf16()), on_bias = OnDevice(bias), on_dy = OnDeviceAs(dy, is_bf16());
  const DeviceBuffer dx = Poisoned(kRows * 2 * kSize, is_bf16());
  CudaActivationBackwardArgs args = {.x = on_x.as<void>(),
                                     .bias = on_bias.as<float>(),
                                     .dy = on_dy.as<void>(),
                                     .dx = dx.as<void>(),
                                     .is_bf16 = is_bf16(),
                                     .num_rows = kRows,
                                     .size = kSize};
  ASSERT_TRUE(CudaGeluTanhBackward(args, nullptr).ok());
  ExpectNear(FromDevice(dx, kRows * kSize, is_bf16()), gelu);
  ASSERT_TRUE(CudaSiluMulBackward(args, nullptr).ok());
  ExpectNear(FromDevice(dx, kRows * 2 * kSize, is_bf16()), silu);
  const DeviceBuffer dbias = Poisoned(kSize, false),
                     workspace = Poisoned(static_cast<int64_t>(CudaBiasBackwardWorkspace(kRows, kSize)) / 4, false);
  ASSERT_TRUE(CudaBiasBackward({.dy = on_dy.as<void>(),
                                .is_bf16 = is_bf16(),
                                .dbias = dbias.as<float>(),
                                .workspace = workspace.as<void>(),
                                .num_rows = kRows,
                                .size = kSize},
                               nullptr)
                  .ok());
  const std::vector<float> got = FromDevice(dbias, kSize, false);
  for (int64_t i = 0; i < kSize; ++i) EXPECT_NEAR(got[i], sums[i], 1e-4);
}

// Rows of heads as CudaPrepareHeads() takes them, and what their gradients must come to.
struct HeadsCase {
  static constexpr int kHeadsQ = 5, kHeadsKv = 2;
  static constexpr int64_t kRows = 9;

  HeadsCase(std::mt19937& rng, int head_dim, bool has_norms)
      : d(head_dim),
        width((kHeadsQ + 2 * kHeadsKv) * d + kHeadsKv),
        stride(width + 6),
        x(Normals(rng, kRows * stride)),
        bias(Normals(rng, width)),
        dy(Normals(rng, kRows * stride)),
        norms(Normals(rng, 2 * d)),
        want(ToDoubles(dy)),
        dnorms(2 * d) {
    for (const float angle : Normals(rng, kRows * d / 2)) angles.push_back({std::cos(angle), std::sin(angle)});
    for (int64_t row = 0; row < kRows; ++row) {
      for (int head = 0; head < kHeadsQ + kHeadsKv; ++head) Head(row, head, has_norms);
      for (int gate = 0; gate < kHeadsKv; ++gate) {
        const int64_t column = width - kHeadsKv + gate, at = row * stride + column;
        want[at] = dy[at] * LogSigmoidDerivative(static_cast<double>(x[at]) + bias[column]);
      }
    }
  }
  void Head(int64_t row, int head, bool has_norms) {
    const int64_t at = row * stride + int64_t{head} * d, side = head < kHeadsQ ? 0 : d;
    Doubles own(d), norm, cos, sin;
    for (int i = 0; i < d; ++i) own[i] = static_cast<double>(x[at + i]) + bias[head * d + i];
    for (int i = 0; i < d / 2; ++i) cos.push_back(angles[row * d / 2 + i].x), sin.push_back(angles[row * d / 2 + i].y);
    if (has_norms) norm.assign(norms.begin() + side, norms.begin() + side + d);
    const HeadGradients got =
        PrepareHeadBackwardRef(own, norm, 1e-6, cos, sin, Doubles(dy.begin() + at, dy.begin() + at + d));
    std::copy(got.dx.begin(), got.dx.end(), want.begin() + at);
    for (int i = 0; i < d && has_norms; ++i) dnorms[side + i] += got.dnorm[i];
  }

  int d;
  int64_t width, stride;
  std::vector<float> x, bias, dy, norms;  // norms [2, d]: of q, of k
  std::vector<float2> angles;
  Doubles want, dnorms;
};

TEST_P(CudaTrainingOps, Heads_WithAndWithoutNorms) {
  if (is_bf16()) GTEST_SKIP() << "rows of heads are float32";
  for (const int d : {16, 128}) {
    for (const bool has_norms : {false, true}) {
      const HeadsCase it(rng_, d, has_norms);
      const DeviceBuffer on_x = OnDevice(it.x), on_bias = OnDevice(it.bias), on_norms = OnDevice(it.norms),
                         on_angles = OnDevice(it.angles), dx = OnDevice(it.dy), dq_norm = Poisoned(d, false),
                         dk_norm = Poisoned(d, false);
      CudaHeadsBackwardArgs args = {.forward = {.x = on_x.as<float>(),
                                                .bias = on_bias.as<float>(),
                                                .q_norm = has_norms ? on_norms.as<float>() : nullptr,
                                                .k_norm = has_norms ? on_norms.as<float>() + d : nullptr,
                                                .angles = on_angles.as<float2>(),
                                                .num_rows = it.kRows,
                                                .row_stride = it.stride,
                                                .heads_q = it.kHeadsQ,
                                                .heads_kv = it.kHeadsKv,
                                                .head_dim = d},
                                    .dx = dx.as<float>()};
      const DeviceBuffer workspace =
          Poisoned(static_cast<int64_t>(CudaHeadsBackwardWorkspace(args.forward)) / 4 + 4, false);
      if (has_norms)
        args.dq_norm = dq_norm.as<float>(), args.dk_norm = dk_norm.as<float>(), args.workspace = workspace.as<void>();
      const absl::Status status = CudaHeadsBackward(args, nullptr);
      ASSERT_TRUE(status.ok()) << status;
      ExpectNear(FromDevice(dx, it.kRows * it.stride, false), it.want);
      if (!has_norms) continue;
      const Doubles of_q(it.dnorms.begin(), it.dnorms.begin() + d), of_k(it.dnorms.begin() + d, it.dnorms.end());
      ExpectNear(FromDevice(dq_norm, d, false), of_q, it.kRows * it.kHeadsQ);
      ExpectNear(FromDevice(dk_norm, d, false), of_k, it.kRows * it.kHeadsKv);
    }
  }
}

TEST_P(CudaTrainingOps, Embedding_SumsTheRowsOfAToken) {
  if (is_bf16()) GTEST_SKIP() << "gradients of the stream are float32";
  constexpr int64_t kVocab = 11, kSize = 300, kRows = 40;
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < kRows; ++i) tokens.push_back(static_cast<int32_t>(i * i % 7));
  const TokenRows groups = FindTokenRows(tokens);
  const std::vector<float> dout = Normals(rng_, kRows * kSize), held = Normals(rng_, kVocab * kSize);
  Doubles want = ToDoubles(held);
  for (int64_t i = 0; i < kRows * kSize; ++i) want[tokens[i / kSize] * kSize + i % kSize] += dout[i];
  const DeviceBuffer on_dout = OnDevice(dout), on_tokens = OnDevice(groups.tokens), on_firsts = OnDevice(groups.firsts),
                     on_rows = OnDevice(groups.rows), dtable = OnDevice(held);
  ASSERT_TRUE(CudaEmbedBackward({.dout = on_dout.as<float>(),
                                 .tokens = on_tokens.as<int32_t>(),
                                 .firsts = on_firsts.as<int32_t>(),
                                 .rows = on_rows.as<int32_t>(),
                                 .dtable = dtable.as<float>(),
                                 .num_tokens = static_cast<int64_t>(groups.tokens.size()),
                                 .size = kSize},
                                nullptr)
                  .ok());
  ExpectNear(FromDevice(dtable, kVocab * kSize, false), want);
}

TEST_P(CudaTrainingOps, CrossEntropy_InPlaceOfTheLogits) {
  for (const int64_t vocab : {3, 513, 49152}) {
    const std::vector<int32_t> targets = {0, static_cast<int32_t>(vocab) - 1, -1, 1};
    const int64_t rows = static_cast<int64_t>(targets.size());
    std::vector<float> logits = Rounded(Normals(rng_, rows * vocab, 4)), weights = {1, 0.25f, 2, 0};
    logits[0] = 300;  // exp() of it alone overflows
    const DeviceBuffer on_logits = OnDeviceAs(logits, is_bf16()), on_targets = OnDevice(targets),
                       on_weights = OnDevice(weights), losses = Poisoned(rows, false);
    ASSERT_TRUE(CudaCrossEntropy({.logits = on_logits.as<void>(),
                                  .is_bf16 = is_bf16(),
                                  .targets = on_targets.as<int32_t>(),
                                  .weights = on_weights.as<float>(),
                                  .losses = losses.as<float>(),
                                  .gradient_scale = 0.5f,
                                  .num_rows = rows,
                                  .vocab = vocab},
                                 nullptr)
                    .ok());
    const std::vector<float> got = FromDevice(on_logits, rows * vocab, is_bf16()),
                             loss = FromDevice(losses, rows, false);
    for (int64_t row = 0; row < rows; ++row) {
      const Doubles given(logits.begin() + row * vocab, logits.begin() + (row + 1) * vocab);
      const CrossEntropy want = CrossEntropyRef(given, targets[row], weights[row]);
      EXPECT_NEAR(loss[row], want.loss, 1e-5 * (1 + std::fabs(want.loss))) << row;
      for (int64_t i = 0; i < vocab; ++i) {
        // At the target 1 is subtracted from a float probability: what is left is off by that one's rounding.
        const double rounding = i == targets[row] ? 0.5 * weights[row] * std::ldexp(1.0, -22) : 0;
        ASSERT_NEAR(got[row * vocab + i], 0.5 * want.dlogits[i],
                    tolerance() * std::fabs(want.dlogits[i]) + rounding + 1e-9)
            << row;
      }
    }
  }
}

}  // namespace
}  // namespace statehouse::kernels
