// Plain loops in double, with libm: the reference may use it, results may not.
#include <cmath>

#include "kernels/activation/activation.h"

namespace statehouse::kernels {

void GeluTanhRef(float* x, int64_t size) {
  const double c = std::sqrt(2 / 3.14159265358979323846);
  for (int64_t i = 0; i < size; ++i) {
    const double v = x[i];
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u), which does not cancel where tanh u is near -1.
    x[i] = static_cast<float>(v / (1 + std::exp(-2 * c * (v + 0.044715 * v * v * v))));
  }
}

void SiluMulRef(float* gate, const float* up, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const double v = gate[i];
    gate[i] = static_cast<float>(v / (1 + std::exp(-v)) * up[i]);
  }
}

void LogSigmoidRef(float* x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const double v = x[i];
    x[i] = static_cast<float>(std::fmin(v, 0) - std::log1p(std::exp(-std::fabs(v))));
  }
}

}  // namespace statehouse::kernels
