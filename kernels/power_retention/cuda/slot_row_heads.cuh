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

// A head as it was read, and what is added to it.
template <int d>
struct RawHead {
  HeadElements<d> x, bias;
};

// Reading and making ready are apart, so that all heads of a warp are read at once. REQUIRES: a tile of one row.
template <int d>
class HeadReader {
 public:
  __device__ __forceinline__ HeadReader(const SlotKernelArgs& args, const TilePlace& place)
      : args_(args), row_(place.segment.first_row), head_(place.head), is_raw_(args.heads.angles != nullptr) {
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      angles_[i] = is_raw_ ? args.heads.angles[row_ * (d / 2) + i * 32 + Lane()] : make_float2(1, 0);
    }
    gate_ = args.log_g[row_ * args.row_stride + head_];
    gate_bias_ = HasBias() ? args.heads.bias[int64_t{HeadsQ() + 2 * args.view.heads_kv} * d + head_] : 0.0f;
  }

  __device__ __forceinline__ RawHead<d> ReadQuery(int m) const {
    const int head = head_ * args_.view.group + m;
    return Read(args_.q + head * d, head);
  }
  __device__ __forceinline__ RawHead<d> ReadKey() const { return Read(args_.k + head_ * d, HeadsQ() + head_); }
  __device__ __forceinline__ RawHead<d> ReadValue() const {
    return Read(args_.v + head_ * d, HeadsQ() + args_.view.heads_kv + head_);
  }

  __device__ __forceinline__ HeadElements<d> Query(const RawHead<d>& raw) const {
    return Turned(Normed(Shifted(raw), args_.heads.q_norm));
  }
  __device__ __forceinline__ HeadElements<d> Key(const RawHead<d>& raw) const {
    return Turned(Normed(Shifted(raw), args_.heads.k_norm));
  }
  __device__ __forceinline__ HeadElements<d> Value(const RawHead<d>& raw) const { return Shifted(raw); }
  __device__ __forceinline__ double Gate() const {
    const float gate = is_raw_ ? LogSigmoid(HasBias() ? gate_ + gate_bias_ : gate_) : gate_;
    return fmax(static_cast<double>(gate), kLowestGate);
  }

 private:
  static __device__ __forceinline__ int Lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ int HeadsQ() const { return args_.view.heads_kv * args_.view.group; }
  __device__ __forceinline__ bool HasBias() const { return is_raw_ && args_.heads.bias != nullptr; }

  __device__ __forceinline__ RawHead<d> Read(const float* from, int head) const {
    const float* const x = from + row_ * args_.row_stride + Lane();
    RawHead<d> read;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      read.x.low[i] = x[i * 32];
      read.x.high[i] = x[i * 32 + d / 2];
      if (HasBias()) {
        read.bias.low[i] = args_.heads.bias[head * d + i * 32 + Lane()];
        read.bias.high[i] = args_.heads.bias[head * d + i * 32 + Lane() + d / 2];
      }
    }
    return read;
  }

  __device__ __forceinline__ HeadElements<d> Shifted(const RawHead<d>& raw) const {
    HeadElements<d> x = raw.x;
    if (!HasBias()) return x;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) x.low[i] += raw.bias.low[i], x.high[i] += raw.bias.high[i];
    return x;
  }
  __device__ __forceinline__ HeadElements<d> Normed(HeadElements<d> x, const float* norm) const {
    if (!is_raw_ || norm == nullptr) return x;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) squares += x.low[i] * x.low[i] + x.high[i] * x.high[i];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(d) + args_.heads.epsilon);
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      x.low[i] *= scale * norm[i * 32 + Lane()];
      x.high[i] *= scale * norm[i * 32 + Lane() + d / 2];
    }
    return x;
  }
  __device__ __forceinline__ HeadElements<d> Turned(HeadElements<d> x) const {
    if (!is_raw_) return x;
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      const float a = x.low[i], b = x.high[i];
      x.low[i] = fmaf(-b, angles_[i].y, a * angles_[i].x);
      x.high[i] = fmaf(a, angles_[i].y, b * angles_[i].x);
    }
    return x;
  }

  const SlotKernelArgs& args_;
  const int64_t row_;
  const int head_;
  const bool is_raw_;
  float2 angles_[d / 64];
  float gate_, gate_bias_;
};

}  // namespace statehouse::kernels
