#include "engine/state/fingerprint.h"

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

const char* WeightName(kernels::WeightType type) {
  switch (type) {
    case kernels::WeightType::kF32:
      return "f32";
    case kernels::WeightType::kBF16:
      return "bf16";
    case kernels::WeightType::kInt8:
      return "int8";
  }
  return "unknown";
}

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

}  // namespace

Fingerprint Fingerprint::Of(const Model& model, uint64_t tokenizer) {
  const kernels::RetentionShape& shape = model.retention().shape();
  Fingerprint made;
  made.identity = {.weights = model.fingerprint(),
                   .tokenizer = tokenizer,
                   .adapter = "",
                   .num_layers = model.config().num_layers,
                   .vocab_size = model.config().vocab_size,
                   .heads_q = shape.heads_q,
                   .heads_kv = shape.heads_kv,
                   .head_dim = shape.head_dim,
                   .degree = shape.degree,
                   .scale = shape.scale,
                   .rope_theta = model.config().rope_theta,
                   .chunk = shape.chunk,
                   .switch_over = shape.switch_over};
  made.numeric.device = model.device();
  made.numeric.arithmetic = model.arithmetic();
  made.numeric.weights = WeightName(model.weight_type());
  made.numeric.is_batch_invariant = model.is_batch_invariant();
  return made;
}

const char* ExactnessName(Exactness exactness) { return exactness == Exactness::kExact ? "exact" : "continued"; }

absl::Status CheckIdentity(const Identity& snapshot, const Identity& here) {
  absl::Status status;
  const auto check = [&status](const char* field, const auto& theirs, const auto& ours) {
    if (!status.ok() || theirs == ours) return;
    status = absl::FailedPreconditionError(
        absl::StrCat("the snapshot was made by another model: ", field, " is ", theirs, " there and ", ours,
                     " here; load it where it was made, or rebuild the session from its tokens"));
  };
  check("weights", Hex(snapshot.weights), Hex(here.weights));
  check("tokenizer", Hex(snapshot.tokenizer), Hex(here.tokenizer));
  check("adapter", snapshot.adapter, here.adapter);
  check("num_layers", snapshot.num_layers, here.num_layers);
  check("vocab_size", snapshot.vocab_size, here.vocab_size);
  check("heads_q", snapshot.heads_q, here.heads_q);
  check("heads_kv", snapshot.heads_kv, here.heads_kv);
  check("head_dim", snapshot.head_dim, here.head_dim);
  check("degree", snapshot.degree, here.degree);
  check("scale", snapshot.scale, here.scale);
  check("rope_theta", snapshot.rope_theta, here.rope_theta);
  check("chunk", snapshot.chunk, here.chunk);
  check("switch_over", snapshot.switch_over, here.switch_over);
  return status;
}

std::string NumericDifference(const NumericMode& snapshot, const NumericMode& here) {
  std::string difference;
  const auto check = [&difference](const char* field, const std::string& theirs, const std::string& ours) {
    if (theirs == ours) return;
    absl::StrAppend(&difference, difference.empty() ? "" : "; ", field, " ", theirs, ", here ", ours);
  };
  check("device", snapshot.device, here.device);
  check("arithmetic", snapshot.arithmetic, here.arithmetic);
  check("weights", snapshot.weights, here.weights);
  check("state", snapshot.state, here.state);
  return difference;
}

absl::Status OtherNumericMode(const std::string& snapshot, const std::string& difference) {
  return absl::FailedPreconditionError(absl::StrCat(snapshot, ": the snapshot is not of this numeric mode (",
                                                    difference, "); allow that to go on, with bits that may differ"));
}

}  // namespace statehouse
