// Which combinations of type, degree and head size this build has kernels for.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

bool HasForwardInstance(const CudaRetentionShape& shape);
std::string ForwardInstanceNames();  // for messages

// Does a call of bf16 and degree 2 take warpgroup products on the current device?
absl::StatusOr<bool> UsesWgmma(const CudaRetentionShape& shape, RetentionPath path);

}  // namespace statehouse::kernels
