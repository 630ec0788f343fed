// Heads of one row as a warp reads them; where SlotHeads says so they are made ready first, as CudaPrepareHeads() does
// it: bias, norm of q and k, rotation, log sigmoid of the gate.
#pragma once

#include "kernels/power_retention/cuda/slot_args.cuh"
#include "kernels/rope/cuda/heads.cuh"

namespace statehouse::kernels {

// Lane l holds elements l + 32 i (low) and d / 2 further on (high). d is 64 or 128.
template <int d>
struct HeadElements {
  float low[d / 64] = {}, high[d / 64] = {};
};

// REQUIRES: a tile of one row.
template <int d>
class HeadReader {
 public:
  __device__ HeadReader(const SlotKernelArgs& args, const TilePlace& place)
      : args_(args), row_(place.segment.first_row), head_(place.head) {}

  __device__ HeadElements<d> Query(int m) const {
    const int head = head_ * args_.view.group + m;
    return Read(args_.q + head * d, head, args_.heads.q_norm, true);
  }
  __device__ HeadElements<d> Key() const {
    return Read(args_.k + head_ * d, HeadsQ() + head_, args_.heads.k_norm, true);
  }
  __device__ HeadElements<d> Value() const {
    return Read(args_.v + head_ * d, HeadsQ() + args_.view.heads_kv + head_, nullptr, false);
  }
  __device__ double Gate() const {
    float gate = args_.log_g[row_ * args_.row_stride + head_];
    if (args_.heads.angles != nullptr) {
      const int64_t at = int64_t{HeadsQ() + 2 * args_.view.heads_kv} * d + head_;
      gate = LogSigmoid(args_.heads.bias == nullptr ? gate : gate + args_.heads.bias[at]);
    }
    return fmax(static_cast<double>(gate), kLowestGate);
  }

 private:
  __device__ int HeadsQ() const { return args_.view.heads_kv * args_.view.group; }

  __device__ __forceinline__ HeadElements<d> Read(const float* from, int head, const float* norm, bool turns) const {
    const SlotHeads& heads = args_.heads;
    const int lane = threadIdx.x % 32;
    const float* const x = from + row_ * args_.row_stride + lane;
    HeadElements<d> read;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      read.low[i] = x[i * 32];
      read.high[i] = x[i * 32 + d / 2];
    }
    if (heads.angles == nullptr) return read;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      if (heads.bias != nullptr) {
        read.low[i] += heads.bias[head * d + i * 32 + lane];
        read.high[i] += heads.bias[head * d + i * 32 + lane + d / 2];
      }
      squares += read.low[i] * read.low[i] + read.high[i] * read.high[i];
    }
    if (norm != nullptr) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
      const float scale = 1.0f / sqrtf(squares / static_cast<float>(d) + heads.epsilon);
#pragma unroll
      for (int i = 0; i < d / 64; ++i) {
        read.low[i] *= scale * norm[i * 32 + lane];
        read.high[i] *= scale * norm[i * 32 + lane + d / 2];
      }
    }
    if (!turns) return read;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      const float2 angle = heads.angles[row_ * (d / 2) + i * 32 + lane];
      const float a = read.low[i], b = read.high[i];
      read.low[i] = fmaf(-b, angle.y, a * angle.x);
      read.high[i] = fmaf(a, angle.y, b * angle.x);
    }
    return read;
  }

  const SlotKernelArgs& args_;
  const int64_t row_;
  const int head_;
};

}  // namespace statehouse::kernels
