// Plain loops in double.
#include <cmath>

#include "kernels/norm/norm.h"

namespace statehouse::kernels {

void LayerNormRef(const NormArgs& args) {
  for (int64_t row = 0; row < args.num_rows; ++row) {
    const float* x = args.x + row * args.size;
    float* y = args.y + row * args.size;
    double mean = 0;
    for (int64_t i = 0; i < args.size; ++i) mean += x[i];
    mean /= static_cast<double>(args.size);
    double variance = 0;
    for (int64_t i = 0; i < args.size; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(args.size);
    const double inverse = 1 / std::sqrt(variance + args.epsilon);
    for (int64_t i = 0; i < args.size; ++i) {
      const double bias = args.bias == nullptr ? 0.0 : args.bias[i];
      y[i] = static_cast<float>((x[i] - mean) * inverse * args.weight[i] + bias);
    }
  }
}

void RmsNormRef(const NormArgs& args) {
  for (int64_t row = 0; row < args.num_rows; ++row) {
    const float* x = args.x + row * args.size;
    float* y = args.y + row * args.size;
    double mean_square = 0;
    for (int64_t i = 0; i < args.size; ++i) mean_square += static_cast<double>(x[i]) * x[i];
    mean_square /= static_cast<double>(args.size);
    const double inverse = 1 / std::sqrt(mean_square + args.epsilon);
    for (int64_t i = 0; i < args.size; ++i) y[i] = static_cast<float>(x[i] * inverse * args.weight[i]);
  }
}

}  // namespace statehouse::kernels
