// Element-wise functions between matrix products. All in float32 with our own exp and log (kernels/math).
#pragma once

#include <cstdint>

#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

// x = gelu(x), tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))). x [size], in place.
void GeluTanh(float* x, int64_t size, ThreadPool& pool);
// gate = silu(gate) · up, in place in `gate`. gate, up [size].
void SiluMul(float* gate, const float* up, int64_t size, ThreadPool& pool);
// x = log(sigmoid(x)), stable for any finite x; always <= 0. x [size], in place.
void LogSigmoid(float* x, int64_t size, ThreadPool& pool);

void GeluTanhRef(float* x, int64_t size);
void SiluMulRef(float* gate, const float* up, int64_t size);
void LogSigmoidRef(float* x, int64_t size);

}  // namespace statehouse::kernels
