// What made a snapshot: identity (must be the same, or its numbers mean nothing here) and numeric mode (may differ
// where the caller allows it; the answer then goes on, but not bit for bit). Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "models/model.h"

namespace statehouse {

struct Identity {
  uint64_t weights = 0;    // Model::fingerprint()
  uint64_t tokenizer = 0;  // Tokenizer::fingerprint(); 0: none
  std::string adapter;     // empty: none
  int64_t num_layers = 0;
  int64_t vocab_size = 0;
  int heads_q = 0;
  int heads_kv = 0;
  int head_dim = 0;
  int degree = 0;
  float scale = 0;
  double rope_theta = 0;
  int64_t chunk = 0;
  int64_t switch_over = 0;  // INT64_MAX: never
};

struct NumericMode {
  std::string device = "cpu";
  std::string arithmetic = "f32-fma";  // instruction class: equal bits within one
  std::string weights;                 // "f32", "bf16", "int8"
  std::string state = "f32";
  // Model::is_batch_invariant(): if not, what is restored or computed again goes on, and not provably with the same
  // bits, also in one and the same mode. Files leave it out: `arithmetic` tells the modes apart.
  bool is_batch_invariant = true;
};

struct Fingerprint {
  Identity identity;
  NumericMode numeric;

  // Of a model as it computes here.
  static Fingerprint Of(const Model& model, uint64_t tokenizer);
};

// How a snapshot goes on under this fingerprint.
enum class Exactness { kExact, kContinued };
const char* ExactnessName(Exactness exactness);  // "exact", "continued"

// FAILED_PRECONDITION names the first field of the identity that differs, with both values.
absl::Status CheckIdentity(const Identity& snapshot, const Identity& here);
// Empty if the modes are the same, else "weights bf16, here f32; …".
std::string NumericDifference(const NumericMode& snapshot, const NumericMode& here);
// What is said of a sequence that goes on where is_batch_invariant is false.
inline constexpr char kNotBatchInvariant[] =
    "the arithmetic here depends on what is computed beside it; the server can be started with --deterministic";
// FAILED_PRECONDITION: going on from it was not allowed, since the bits may differ. `snapshot` names it.
absl::Status OtherNumericMode(const std::string& snapshot, const std::string& difference);

}  // namespace statehouse
