// Which combinations of type, degree and head size this build has kernels for.
#pragma once

#include <string>

#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

bool HasForwardInstance(const CudaRetentionShape& shape);
std::string ForwardInstanceNames();  // for messages

}  // namespace statehouse::kernels
