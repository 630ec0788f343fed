// The gradients of the element-wise functions in double: what the GPU's are held against. Thread-safety: pure.
#pragma once

namespace statehouse::kernels {

// The derivative of gelu, tanh form, at x.
double GeluTanhDerivative(double x);

struct SiluMulGradient {
  double dgate, dup;
};
// Of silu(gate) · up, times dy.
SiluMulGradient SiluMulBackwardRef(double gate, double up, double dy);

}  // namespace statehouse::kernels
