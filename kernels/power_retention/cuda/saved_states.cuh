// Where a forward pass leaves what its backward pass finds: CudaRetentionForwardArgs::saved.
#pragma once

#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/workspace.h"

namespace statehouse::kernels {

// Lets a pass leave, or find, what SavedStates holds at `saved`.
template <typename T>
void PointToSaved(const SavedStates& parts, char* saved, RetentionArgs<T>& args) {
  args.sums = reinterpret_cast<float2*>(saved + parts.sums);
  args.key_factors = reinterpret_cast<float*>(saved + parts.key_factors);
  args.decay = reinterpret_cast<float*>(saved + parts.decay);
  args.prefix = reinterpret_cast<PrefixElement<T>*>(saved + parts.prefix);
  args.prefix_z = reinterpret_cast<float*>(saved + parts.prefix_z);
}

}  // namespace statehouse::kernels
