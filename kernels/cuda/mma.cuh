// Warp-wide building blocks of sm_80 and later: matrix products of 16x8x16 tiles, loads of 8x8 matrices, asynchronous
// copies into shared memory, arithmetic on pairs of 16-bit numbers.
//
// Who holds what of an m16n8k16 product, with g = lane / 4 and t = lane % 4:
//   A [16, 16]  a[0]: (g, 2t..2t+1)  a[1]: (g+8, 2t..)  a[2]: (g, 2t+8..)  a[3]: (g+8, 2t+8..)
//   B [16, 8]   b[0]: (2t..2t+1, g)  b[1]: (2t+8.., g)
//   C [16, 8]   c[0], c[1]: (g, 2t..2t+1)  c[2], c[3]: (g+8, 2t..)
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace statehouse::kernels {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Calls visit(0) … visit(kCount - 1), shared out among the block's threads; the number of turns is known to the
// compiler.
template <int kCount, int kThreads, typename Visit>
__device__ __forceinline__ void ForEach(const Visit& visit) {
#pragma unroll
  for (int turn = 0; turn < (kCount + kThreads - 1) / kThreads; ++turn) {
    const int at = turn * kThreads + static_cast<int>(threadIdx.x);
    if (kCount % kThreads == 0 || at < kCount) visit(at);
  }
}

// What a pair of 16-bit numbers can do, by type.
template <typename T>
struct Pair;

template <>
struct Pair<bf16> {
  static __device__ __forceinline__ uint32_t Multiply(uint32_t a, uint32_t b) {
    const __nv_bfloat162 product =
        __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
    return *reinterpret_cast<const uint32_t*>(&product);
  }
  static __device__ __forceinline__ uint32_t Pack(float low, float high) {
    const __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&packed);
  }
  static __device__ __forceinline__ float Low(uint32_t a) { return __uint_as_float(a << 16); }
  static __device__ __forceinline__ float High(uint32_t a) { return __uint_as_float(a & 0xffff0000u); }
};

template <>
struct Pair<half> {
  static __device__ __forceinline__ uint32_t Multiply(uint32_t a, uint32_t b) {
    const half2 product = __hmul2(*reinterpret_cast<const half2*>(&a), *reinterpret_cast<const half2*>(&b));
    return *reinterpret_cast<const uint32_t*>(&product);
  }
  static __device__ __forceinline__ uint32_t Pack(float low, float high) {
    const half2 packed = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&packed);
  }
  static __device__ __forceinline__ float Low(uint32_t a) { return __low2float(*reinterpret_cast<const half2*>(&a)); }
  static __device__ __forceinline__ float High(uint32_t a) { return __high2float(*reinterpret_cast<const half2*>(&a)); }
};

// Both halves become the low (high) one.
__device__ __forceinline__ uint32_t RepeatLow(uint32_t a) { return __byte_perm(a, a, 0x1010); }
__device__ __forceinline__ uint32_t RepeatHigh(uint32_t a) { return __byte_perm(a, a, 0x3232); }

// c += A B
template <typename T>
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, bf16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// c += A B for an m16n8k8 product of tf32 numbers: a[0]: (g, t)  a[1]: (g+8, t)  a[2]: (g, t+4)  a[3]: (g+8, t+4);
// b0: (t, g)  b1: (t+4, g).
__device__ __forceinline__ void MmaTf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Programmatic dependent launch, from compute capability 9.0 on: kernels that were queued so may start while the one
// before them still runs, once all its blocks have let them or have ended; they wait where they need its results.
__device__ __forceinline__ void LetDependentsStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void WaitForResults() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Four 8x8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8. Afterwards lane (g, t)
// holds (g, 2t..2t+1) of each; transposed: (2t..2t+1, g).
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// 16 bytes from device to shared memory, in the background; zeros if `valid` is false (the source is not read then).
__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CopyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void CopyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace statehouse::kernels
