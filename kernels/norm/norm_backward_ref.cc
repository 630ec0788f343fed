// With x̂ = (x - mean) / σ and g = dy weight: dx = (g - mean(g) - x̂ mean(g x̂)) / σ; RMSNorm has no means of x and g.
#include <cmath>

#include "kernels/norm/norm_backward.h"

namespace statehouse::kernels {

NormGradients NormBackwardRef(const std::vector<double>& x, const std::vector<double>& dy,
                              const std::vector<double>& weight, double epsilon, bool is_rms) {
  const size_t size = weight.size(), num_rows = x.size() / size;
  NormGradients out{std::vector<double>(x.size()), std::vector<double>(size), std::vector<double>(size)};
  for (size_t row = 0; row < num_rows; ++row) {
    const double *from = x.data() + row * size, *by = dy.data() + row * size;
    double mean = 0, variance = 0;
    for (size_t i = 0; i < size && !is_rms; ++i) mean += from[i] / static_cast<double>(size);
    for (size_t i = 0; i < size; ++i) variance += (from[i] - mean) * (from[i] - mean) / static_cast<double>(size);
    const double inverse = 1 / std::sqrt(variance + epsilon);
    double mean_g = 0, mean_gx = 0;
    for (size_t i = 0; i < size; ++i) {
      const double normed = (from[i] - mean) * inverse, g = by[i] * weight[i];
      out.dweight[i] += by[i] * normed;
      out.dbias[i] += by[i];
      if (!is_rms) mean_g += g / static_cast<double>(size);
      mean_gx += g * normed / static_cast<double>(size);
    }
    for (size_t i = 0; i < size; ++i) {
      const double normed = (from[i] - mean) * inverse;
      out.dx[row * size + i] = inverse * (by[i] * weight[i] - mean_g - normed * mean_gx);
    }
  }
  return out;
}

}  // namespace statehouse::kernels
