// Sums over rows, one per column, without atomics: what gradients of biases and norms' weights are. First slices of
// rows side by side, then the slices in order; both depend on the number of rows alone, so the same inputs give the
// same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {

inline constexpr int kColumnLanes = 32;  // columns of a block
inline constexpr int kRowLanes = 8;      // rows that it takes at a time
inline constexpr int kMostSlices = 64;

inline int ColumnSlices(int64_t num_rows) {
  const int64_t slices = (num_rows + 63) / 64;
  return static_cast<int>(slices < 1 ? 1 : slices < kMostSlices ? slices : kMostSlices);
}

// Grid (blocks of columns, slices), block (kColumnLanes, kRowLanes). `visit(row, column, sums)` adds to kSums sums of
// the column. parts [kSums, slices, size].
template <int kSums, typename Visit>
__global__ void __launch_bounds__(kColumnLanes* kRowLanes)
    SumSlices(int64_t num_rows, int64_t size, float* parts, Visit visit) {
  __shared__ float shared[kSums][kRowLanes][kColumnLanes];
  const int64_t column = int64_t{blockIdx.x} * kColumnLanes + threadIdx.x;
  const int64_t per_slice = (num_rows + gridDim.y - 1) / gridDim.y, first = blockIdx.y * per_slice;
  const int64_t end = first + per_slice < num_rows ? first + per_slice : num_rows;
  float sums[kSums] = {};
  if (column < size) {
    for (int64_t row = first + threadIdx.y; row < end; row += kRowLanes) visit(row, column, sums);
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s) shared[s][threadIdx.y][threadIdx.x] = sums[s];
  __syncthreads();  // all rows' sums are there
  if (threadIdx.y != 0 || column >= size) return;
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    float sum = 0;
    for (int row = 0; row < kRowLanes; ++row) sum += shared[s][row][threadIdx.x];
    parts[(static_cast<int64_t>(s) * gridDim.y + blockIdx.y) * size + column] = sum;
  }
}

// Thread per column: out = (accumulates ? out : 0) + the slices.
static __global__ void AddSlices(const float* parts, int slices, int64_t size, bool accumulates, float* out) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= size) return;
  float sum = 0;
  for (int slice = 0; slice < slices; ++slice) sum += parts[slice * size + column];
  out[column] = accumulates ? out[column] + sum : sum;
}

// Floats of `parts`.
inline int64_t ColumnSumParts(int64_t num_rows, int64_t size, int num_sums) {
  return int64_t{num_sums} * ColumnSlices(num_rows) * size;
}

// Queues both steps. outs[s] may be null: that sum is not wanted.
template <int kSums, typename Visit>
absl::Status SumColumns(int64_t num_rows, int64_t size, float* parts, bool accumulates, float* const (&outs)[kSums],
                        const Visit& visit, cudaStream_t stream) {
  const int slices = ColumnSlices(num_rows);
  const dim3 grid(static_cast<unsigned>((size + kColumnLanes - 1) / kColumnLanes), slices);
  SumSlices<kSums><<<grid, dim3(kColumnLanes, kRowLanes), 0, stream>>>(num_rows, size, parts, visit);
  if (absl::Status status = LaunchStatus("SumSlices"); !status.ok()) return status;
  for (int s = 0; s < kSums; ++s) {
    if (outs[s] == nullptr) continue;
    AddSlices<<<static_cast<unsigned>((size + 255) / 256), 256, 0, stream>>>(parts + int64_t{s} * slices * size, slices,
                                                                             size, accumulates, outs[s]);
    if (absl::Status status = LaunchStatus("AddSlices"); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace statehouse::kernels
