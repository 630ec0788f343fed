// Plain loops in double.
#include "kernels/rope/rope.h"

namespace statehouse::kernels {

void ApplyRopeRef(const RopeArgs& args) {
  const int64_t half = args.head_dim / 2;
  for (int64_t row = 0; row < args.num_rows; ++row) {
    for (int64_t head = 0; head < args.num_heads; ++head) {
      float* x = args.x + (row * args.num_heads + head) * args.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double a = x[i];
        const double b = x[i + half];
        const double cos = args.cos[row * half + i];
        const double sin = args.sin[row * half + i];
        x[i] = static_cast<float>(a * cos - b * sin);
        x[i + half] = static_cast<float>(b * cos + a * sin);
      }
    }
  }
}

}  // namespace statehouse::kernels
