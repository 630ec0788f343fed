// Philox4x32-10 under the engine's names; kernels/sampling/choice_math.h has it, because a GPU forms the same words.
#pragma once

#include "kernels/sampling/choice_math.h"

namespace statehouse {

using kernels::Philox4x32;
using kernels::PhiloxCounter;
using kernels::PhiloxKey;

}  // namespace statehouse
