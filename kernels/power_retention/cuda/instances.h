// Which combinations of type and head size this build has kernels for.
#pragma once

#include <string>

#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

bool HasForwardInstance(RetentionDtype dtype, int head_dim);
std::string ForwardInstanceNames();  // for messages: "bf16 with head_dim 64, 128"

}  // namespace statehouse::kernels
