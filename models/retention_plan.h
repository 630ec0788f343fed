// How a model's sequences keep their retention memory: the layout that a config and the operator's flags lead to.
// Thread-safety: free functions.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/power_retention/layout.h"
#include "models/config.h"

namespace statehouse {

struct RetentionFlags {
  int64_t switch_over = kernels::kSwitchOverAuto;  // --switch-over: tokens, kSwitchOverAuto or kNeverSwitch
  int64_t max_tail_tokens = 0;                     // --max-tail-tokens: used only by shapes without a state form
  int64_t chunk = 0;                               // 0: the config's
};

// Largest head size that degree 4 has a state form for; beyond it the state would be larger than any use of it.
inline constexpr int kMaxDegree4HeadDim = 32;

// Auto takes the largest multiple of C whose rows fit in the state's bytes, and no more than the config's own bound
// (rounded down to a multiple of C). INVALID_ARGUMENT names the flag and what to set it to.
absl::StatusOr<kernels::RetentionLayout> PlanRetention(const ModelConfig& config, const RetentionFlags& flags);

}  // namespace statehouse
