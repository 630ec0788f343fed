// The gradients of LayerNorm and RMSNorm in double: what the GPU's are held against. Plain loops, part of no product
// path. Thread-safety: pure function.
#pragma once

#include <cstdint>
#include <vector>

namespace statehouse::kernels {

struct NormGradients {
  std::vector<double> dx;       // [num_rows, size]
  std::vector<double> dweight;  // [size]
  std::vector<double> dbias;    // [size]; for RMSNorm too, where there is no bias
};
// x, dy [num_rows, size]; weight [size].
NormGradients NormBackwardRef(const std::vector<double>& x, const std::vector<double>& dy,
                              const std::vector<double>& weight, double epsilon, bool is_rms);

}  // namespace statehouse::kernels
