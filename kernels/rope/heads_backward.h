// The gradients of what happens between the projections and retention (cuda/heads.h) in double, and that itself: what
// the GPU's are held against. Plain loops. Thread-safety: pure functions.
#pragma once

#include <vector>

namespace statehouse::kernels {

// One head's q or k, or one gate.
struct HeadGradients {
  std::vector<double> dx;     // [d]
  std::vector<double> dnorm;  // [d]; empty without a norm
};
// rope(norm(x)); norm [d] or empty; cos, sin [d / 2].
std::vector<double> PrepareHeadRef(const std::vector<double>& x, const std::vector<double>& norm, double epsilon,
                                   const std::vector<double>& cos, const std::vector<double>& sin);
// The gradient of Σ dy · that.
HeadGradients PrepareHeadBackwardRef(const std::vector<double>& x, const std::vector<double>& norm, double epsilon,
                                     const std::vector<double>& cos, const std::vector<double>& sin,
                                     const std::vector<double>& dy);
// d log(sigmoid(x)) / dx
double LogSigmoidDerivative(double x);

}  // namespace statehouse::kernels
