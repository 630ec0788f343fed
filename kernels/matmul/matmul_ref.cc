// Plain loops, double accumulation.
#include <vector>

#include "kernels/matmul/matmul.h"

namespace statehouse::kernels {

void MatMulRef(const MatMulArgs& args) {
  const int64_t N = args.weights->rows();
  const int64_t K = args.weights->cols();
  std::vector<float> weights(K);
  for (int64_t n = 0; n < N; ++n) {
    args.weights->UnpackRow(n, weights.data());
    for (int64_t row = 0; row < args.num_rows; ++row) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += static_cast<double>(args.x[row * K + k]) * weights[k];
      if (args.bias != nullptr) sum += args.bias[n];
      float& y = args.y[row * N + n];
      y = static_cast<float>(args.output == MatMulOutput::kAdd ? y + sum : sum);
    }
  }
}

}  // namespace statehouse::kernels
