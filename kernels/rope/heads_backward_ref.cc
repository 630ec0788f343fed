#include <cmath>

#include "kernels/norm/norm_backward.h"
#include "kernels/rope/heads_backward.h"

namespace statehouse::kernels {

std::vector<double> PrepareHeadRef(const std::vector<double>& x, const std::vector<double>& norm, double epsilon,
                                   const std::vector<double>& cos, const std::vector<double>& sin) {
  const size_t d = x.size(), half = d / 2;
  double scale = 1;
  if (!norm.empty()) {
    double squares = 0;
    for (const double element : x) squares += element * element / static_cast<double>(d);
    scale = 1 / std::sqrt(squares + epsilon);
  }
  const auto normed = [&](size_t i) { return norm.empty() ? x[i] : x[i] * scale * norm[i]; };
  std::vector<double> y(d);
  for (size_t i = 0; i < half; ++i) {
    y[i] = normed(i) * cos[i] - normed(i + half) * sin[i];
    y[i + half] = normed(i) * sin[i] + normed(i + half) * cos[i];
  }
  return y;
}

HeadGradients PrepareHeadBackwardRef(const std::vector<double>& x, const std::vector<double>& norm, double epsilon,
                                     const std::vector<double>& cos, const std::vector<double>& sin,
                                     const std::vector<double>& dy) {
  const size_t d = x.size(), half = d / 2;
  std::vector<double> turned(d);  // back
  for (size_t i = 0; i < half; ++i) {
    turned[i] = dy[i] * cos[i] + dy[i + half] * sin[i];
    turned[i + half] = dy[i + half] * cos[i] - dy[i] * sin[i];
  }
  if (norm.empty()) return {turned, {}};
  const NormGradients gradients = NormBackwardRef(x, turned, norm, epsilon, true);
  return {gradients.dx, gradients.dweight};
}

double LogSigmoidDerivative(double x) { return 1 / (1 + std::exp(x)); }

}  // namespace statehouse::kernels
