// Runs power retention on the GPU from host arrays, for the tests: packed sequences, poisoned outputs, guarded ends.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/decode.h"
#include "kernels/power_retention/cuda/retention.h"
#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {

inline int ElementBytes(RetentionDtype dtype) { return dtype == RetentionDtype::kFloat32 ? 4 : 2; }

inline float Rounded(float x, RetentionDtype dtype) {
  if (dtype == RetentionDtype::kBf16) return __bfloat162float(__float2bfloat16_rn(x));
  if (dtype == RetentionDtype::kFp16) return __half2float(__float2half_rn(x));
  return x;
}

inline void Round(std::vector<float>& values, RetentionDtype dtype) {
  for (float& x : values) x = Rounded(x, dtype);
}

inline std::vector<char> Encode(const std::vector<float>& values, RetentionDtype dtype) {
  std::vector<char> out(values.size() * ElementBytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == RetentionDtype::kBf16) {
      const __nv_bfloat16 x = __float2bfloat16_rn(values[i]);
      std::memcpy(out.data() + 2 * i, &x, 2);
    } else if (dtype == RetentionDtype::kFp16) {
      const __half x = __float2half_rn(values[i]);
      std::memcpy(out.data() + 2 * i, &x, 2);
    } else {
      std::memcpy(out.data() + 4 * i, &values[i], 4);
    }
  }
  return out;
}

inline std::vector<float> Decode(const std::vector<char>& bytes, RetentionDtype dtype) {
  std::vector<float> out(bytes.size() / ElementBytes(dtype));
  for (size_t i = 0; i < out.size(); ++i) {
    if (dtype == RetentionDtype::kBf16) {
      __nv_bfloat16 x;
      std::memcpy(&x, bytes.data() + 2 * i, 2);
      out[i] = __bfloat162float(x);
    } else if (dtype == RetentionDtype::kFp16) {
      __half x;
      std::memcpy(&x, bytes.data() + 2 * i, 2);
      out[i] = __half2float(x);
    } else {
      std::memcpy(&out[i], bytes.data() + 4 * i, 4);
    }
  }
  return out;
}

// Device memory with the given contents.
inline DeviceBuffer OnDevice(const void* data, size_t bytes) {
  DeviceBuffer buffer;
  EXPECT_TRUE(buffer.Allocate(std::max<size_t>(bytes, 16)).ok());
  EXPECT_TRUE(buffer.Upload(data, bytes).ok());
  return buffer;
}
template <typename T>
DeviceBuffer OnDevice(const std::vector<T>& values) {
  return OnDevice(values.data(), values.size() * sizeof(T));
}

// Device memory that a kernel must fill: NaN bytes in every type, and a guard behind its end.
class PoisonedBuffer {
 public:
  explicit PoisonedBuffer(size_t bytes) : bytes_(bytes) {
    EXPECT_TRUE(buffer_.Allocate(bytes + kGuard).ok());
    EXPECT_EQ(cudaMemset(buffer_.as<char>(), 0xff, bytes + kGuard), cudaSuccess);
  }
  template <typename T>
  T* as() const {
    return buffer_.as<T>();
  }
  std::vector<char> Download() const {
    std::vector<char> all(bytes_ + kGuard);
    EXPECT_TRUE(buffer_.Download(all.data(), all.size()).ok());
    for (size_t i = bytes_; i < all.size(); ++i) {
      if (all[i] != static_cast<char>(0xff)) {
        ADD_FAILURE() << "byte " << i - bytes_ << " behind the end of an output was written";
        break;
      }
    }
    all.resize(bytes_);
    return all;
  }

 private:
  static constexpr size_t kGuard = 4096;
  DeviceBuffer buffer_;
  size_t bytes_;
};

inline std::vector<float> Floats(const std::vector<char>& bytes) { return Decode(bytes, RetentionDtype::kFloat32); }

struct DeviceState {  // in the device's layout; empty: none
  std::vector<float> S, z;
};

struct ForwardRun {
  std::vector<float> y, denominator;
  DeviceState final_state;
};

// One forward pass over packed sequences. problem.Q … hold all rows; problem.shape.chunk is C.
inline ForwardRun RunForward(const RetentionProblem& problem, std::span<const int64_t> cu_seqlens, RetentionDtype dtype,
                             const DeviceState& initial = {}, bool wants_final = false,
                             RetentionPath path = RetentionPath::kBest) {
  const RetentionShape& shape = problem.shape;
  const absl::StatusOr<CudaRetentionPlan> plan =
      CudaRetentionPlan::Make({.heads_q = shape.heads_q,
                               .heads_kv = shape.heads_kv,
                               .head_dim = shape.head_dim,
                               .degree = shape.degree,
                               .scale = shape.scale,
                               .chunk = shape.chunk,
                               .has_states = wants_final || !initial.S.empty(),
                               .dtype = dtype},
                              cu_seqlens);
  if (!plan.ok()) {
    ADD_FAILURE() << plan.status();
    return {};
  }
  const DeviceBuffer Q = OnDevice(Encode(problem.Q, dtype)), K = OnDevice(Encode(problem.K, dtype));
  const DeviceBuffer V = OnDevice(Encode(problem.V, dtype)), log_G = OnDevice(problem.log_G);
  const DeviceBuffer S0 = OnDevice(initial.S), z0 = OnDevice(initial.z);
  const int64_t states = (cu_seqlens.size() - 1) * shape.heads_kv, P = RetentionStateRows(shape.head_dim, shape.degree);
  const PoisonedBuffer y(problem.Q.size() * ElementBytes(dtype)), denominator(problem.Q.size() / shape.head_dim * 4);
  const PoisonedBuffer S1(wants_final ? states * P * shape.head_dim * 4 : 0), z1(wants_final ? states * P * 4 : 0);
  const PoisonedBuffer workspace(plan->workspace_bytes());
  const CudaRetentionForwardArgs args = {.Q = Q.as<void>(),
                                         .K = K.as<void>(),
                                         .V = V.as<void>(),
                                         .log_G = problem.log_G.empty() ? nullptr : log_G.as<float>(),
                                         .y = y.as<void>(),
                                         .denominator = denominator.as<float>(),
                                         .initial_state = initial.S.empty() ? nullptr : S0.as<float>(),
                                         .initial_normalizer = initial.S.empty() ? nullptr : z0.as<float>(),
                                         .final_state = wants_final ? S1.as<float>() : nullptr,
                                         .final_normalizer = wants_final ? z1.as<float>() : nullptr,
                                         .workspace = workspace.as<void>(),
                                         .path = path};
  const absl::Status status = CudaRetentionForward(*plan, args, nullptr);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
  workspace.Download();
  ForwardRun run;
  run.y = Decode(y.Download(), dtype);
  run.denominator = Floats(denominator.Download());
  if (wants_final) run.final_state = {Floats(S1.Download()), Floats(z1.Download())};
  return run;
}

// Rows [begin, end) of a problem, as a problem.
inline RetentionProblem Slice(const RetentionProblem& problem, int64_t begin, int64_t end) {
  const auto cut = [&](const std::vector<float>& values) {
    const int64_t width = problem.t == 0 ? 0 : values.size() / problem.t;
    return std::vector<float>(values.begin() + begin * width, values.begin() + end * width);
  };
  RetentionProblem out = problem;
  out.t = end - begin;
  out.Q = cut(problem.Q), out.K = cut(problem.K), out.V = cut(problem.V), out.log_G = cut(problem.log_G);
  return out;
}

// The definition in double, sequence by sequence.
inline std::vector<double> PackedReference(const RetentionProblem& problem, std::span<const int64_t> cu_seqlens) {
  std::vector<double> out;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const std::vector<double> y = QuadraticReference(Slice(problem, cu_seqlens[s], cu_seqlens[s + 1]));
    out.insert(out.end(), y.begin(), y.end());
  }
  return out;
}

// The yardstick: the definition as a plain program of the same precision computes it. Scores, weights and sums in
// float32; what a matrix product takes, and the result, rounded to the type.
inline std::vector<float> PlainImplementation(const RetentionProblem& problem, std::span<const int64_t> cu_seqlens,
                                              RetentionDtype dtype) {
  const RetentionShape& shape = problem.shape;
  const int d = shape.head_dim, group = shape.heads_q / shape.heads_kv;
  const float scale = shape.scale == 0 ? 1 / std::sqrt(static_cast<float>(d)) : shape.scale;
  std::vector<float> out(problem.Q.size());
  std::vector<float> sums(d);
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    for (int head = 0; head < shape.heads_q; ++head) {
      for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; ++t) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        float denominator = 0, decay = 0;
        for (int64_t j = t; j >= cu_seqlens[s]; --j) {
          const float* q = problem.Q.data() + (t * shape.heads_q + head) * d;
          const int64_t kv = j * shape.heads_kv + head / group;
          float score = 0;
          for (int i = 0; i < d; ++i) score += q[i] * problem.K[kv * d + i];
          const float squared = scale * score * (scale * score);
          const float weight = (shape.degree == 2 ? squared : squared * squared) * std::exp(decay);
          const float rounded = Rounded(weight, dtype);
          for (int i = 0; i < d; ++i) sums[i] += rounded * problem.V[kv * d + i];
          denominator += weight;
          if (!problem.log_G.empty()) decay += problem.log_G[kv];
        }
        for (int i = 0; i < d; ++i)
          out[(t * shape.heads_q + head) * d + i] = denominator > 0 ? Rounded(sums[i] / denominator, dtype) : 0;
      }
    }
  }
  return out;
}

inline constexpr RetentionStateDtype kStateTypes[] = {RetentionStateDtype::kFloat32, RetentionStateDtype::kBf16,
                                                      RetentionStateDtype::kInt8};

// Bytes [at, at + size) of a slot.
inline std::vector<char> SlotBytes(const DeviceBuffer& slot, size_t at, size_t size) {
  std::vector<char> bytes(size);
  EXPECT_TRUE(slot.Download(bytes.data(), size, at).ok());
  return bytes;
}
// The state [Hk, P, d] of a slot as decoding reads it: without what rounding left.
inline std::vector<float> NearestState(const RetentionSlotLayout& layout, const DeviceBuffer& slot) {
  const CudaRetentionSlotShape& shape = layout.shape();
  const int64_t rows = shape.heads_kv * RetentionStateRows(shape.head_dim, shape.degree), size = rows * shape.head_dim;
  if (shape.state_dtype == RetentionStateDtype::kFloat32) return Floats(SlotBytes(slot, layout.state(), size * 4));
  if (shape.state_dtype == RetentionStateDtype::kBf16)
    return Decode(SlotBytes(slot, layout.state(), size * 2), RetentionDtype::kBf16);
  const std::vector<char> bytes = SlotBytes(slot, layout.state(), size);
  const std::vector<float> scales = Decode(SlotBytes(slot, layout.scales(), rows / 4), RetentionDtype::kBf16);
  std::vector<float> out(size);
  for (int64_t i = 0; i < size; ++i) out[i] = scales[i / (8 * shape.head_dim)] * static_cast<signed char>(bytes[i]);
  return out;
}

// False if this build lacks the kernels of a slot's type and head size; it may not lack those of bf16, 64 and 128.
inline bool IsBuilt(const absl::Status& status, RetentionDtype dtype, int head_dim) {
  if (status.ok()) return true;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_FALSE(dtype == RetentionDtype::kBf16 && head_dim >= 64) << "every build has this kernel: " << status;
  return false;
}

}  // namespace statehouse::kernels
