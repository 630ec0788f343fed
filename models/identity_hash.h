// What decides a model's numbers, beside how they are computed: two models that agree in it can share states.
// Thread-safety: a pure function.
#pragma once

#include <cstdint>

#include "kernels/power_retention/layout.h"
#include "models/config.h"

namespace statehouse {

// Model::fingerprint(). `weights_hash` stands for the weights' names, shapes and stored bytes.
uint64_t IdentityHash(const ModelConfig& config, const kernels::RetentionLayout& layout, uint64_t weights_hash);

}  // namespace statehouse
