// e^z of candidates and logits, in float: what probabilities are sums and quotients of. A choice may need one per token
// of the vocabulary; kernels/math has the double forms. Its bits do not depend on the host's libm, and a change changes
// what a seed means (docs/sampling.md).
#pragma once

#include "kernels/sampling/choice_math.h"

namespace statehouse {

using kernels::Weight;

}  // namespace statehouse
