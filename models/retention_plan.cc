#include "models/retention_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse {

using kernels::RetentionLayout;
using kernels::RetentionShape;

namespace {

// Rows that a flag may ask to be kept: with it, a layer's memory is far from overflow whatever its heads.
constexpr int64_t kMaxKeptRows = int64_t{1} << 32;

absl::Status CheckKeptRows(const char* flag, int64_t rows) {
  if (rows <= kMaxKeptRows) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", rows, ": expected at most ", kMaxKeptRows));
}

// The layout, if a slot of all layers can be counted in bytes at all.
absl::StatusOr<RetentionLayout> MakeLayout(const ModelConfig& config, const RetentionShape& shape) {
  auto layout = RetentionLayout::Make(shape);
  if (!layout.ok()) return layout;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(layout->layer_floats(), config.num_layers * int64_t{sizeof(float)}, &bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("one sequence would take ", config.num_layers, " layers of ", layout->layer_floats(),
                     " numbers, more than 2^63 bytes; set a smaller --max-tail-tokens or --switch-over"));
  }
  return layout;
}

}  // namespace

absl::StatusOr<RetentionLayout> PlanRetention(const ModelConfig& config, const RetentionFlags& flags) {
  RetentionShape shape;
  shape.heads_q = config.heads_q;
  shape.heads_kv = config.heads_kv;
  shape.head_dim = config.head_dim;
  shape.degree = config.degree;
  shape.chunk = flags.chunk > 0 ? flags.chunk : config.chunk;
  const int64_t chunk = shape.chunk;

  const bool has_state = config.degree == 2 || config.head_dim <= kMaxDegree4HeadDim;
  if (!has_state && flags.switch_over != kernels::kSwitchOverAuto && flags.switch_over != kernels::kNeverSwitch) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--switch-over ", flags.switch_over, ": degree ", config.degree, " with head size ", config.head_dim,
        " has no state form (head sizes up to ", kMaxDegree4HeadDim, " do); leave it at auto"));
  }
  if (!has_state || flags.switch_over == kernels::kNeverSwitch) {
    if (flags.max_tail_tokens < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--max-tail-tokens ", flags.max_tail_tokens, ": ",
          has_state ? std::string("without a switch-over")
                    : absl::StrCat("degree ", config.degree, " with head size ", config.head_dim,
                                   " has no state form, so that"),
          " every token of a sequence is kept; set --max-tail-tokens to the longest sequence to allow, for "
          "example 8192"));
    }
    if (absl::Status status = CheckKeptRows("--max-tail-tokens", flags.max_tail_tokens); !status.ok()) return status;
    shape.switch_over = kernels::kNeverSwitch;
    shape.max_tail_tokens = flags.max_tail_tokens;
    return MakeLayout(config, shape);
  }

  if (flags.switch_over != kernels::kSwitchOverAuto) {
    if (absl::Status status = CheckKeptRows("--switch-over", flags.switch_over); !status.ok()) return status;
    if (flags.switch_over < 0 || flags.switch_over % chunk != 0) {
      const int64_t below = std::max<int64_t>(0, flags.switch_over) / chunk * chunk;
      return absl::InvalidArgumentError(absl::StrCat("--switch-over ", flags.switch_over,
                                                     ": expected a multiple of the chunk length ", chunk,
                                                     "; the nearest are ", below, " and ", below + chunk));
    }
    shape.switch_over = flags.switch_over;
    return MakeLayout(config, shape);
  }

  auto layout = MakeLayout(config, shape);
  if (!layout.ok() || !config.switch_over_bound) return layout;
  const int64_t bound = *config.switch_over_bound / chunk * chunk;
  if (layout->shape().switch_over <= bound) return layout;
  shape.switch_over = bound;
  return MakeLayout(config, shape);
}

}  // namespace statehouse
