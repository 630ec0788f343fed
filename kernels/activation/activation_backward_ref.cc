#include <cmath>

#include "kernels/activation/activation_backward.h"

namespace statehouse::kernels {

double GeluTanhDerivative(double x) {
  const double root = std::sqrt(2 / std::acos(-1.0)), inner = root * (x + 0.044715 * x * x * x);
  const double tanh = std::tanh(inner);
  return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * x * x);
}

SiluMulGradient SiluMulBackwardRef(double gate, double up, double dy) {
  const double sigmoid = 1 / (1 + std::exp(-gate));
  return {dy * up * sigmoid * (1 + gate * (1 - sigmoid)), dy * gate * sigmoid};
}

}  // namespace statehouse::kernels
