// What a caller asks of the engine: token ids in, how to choose, when to stop. Plain data, made by server/ or a
// command.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/state/snapshot.h"

namespace statehouse {

inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxOutputs = 128;
// The range of Request::priority; lower runs first.
inline constexpr int kLowestPriority = -1000;
inline constexpr int kHighestPriority = 1000;

// A seam for grammars: asked on the engine thread before each choice; must neither block nor allocate.
class LogitsMask {
 public:
  virtual ~LogitsMask() = default;
  // Sets logits of forbidden tokens to -infinity. `output` is the generated ids so far. With n > 1 it is asked for each
  // output. Where no token stays allowed, the output ends (FinishReason::kStop).
  virtual void Apply(std::span<const int32_t> output, std::span<float> logits) = 0;
};

// How the next token is chosen. The choice is a pure function of (logits, seed, output index, position): Gumbel-max
// with Philox noise; docs/sampling.md is the recipe. Order: bias, allowed/banned, mask, penalties, temperature, then
// top-k, top-p, min-p, typical-p on what is left.
struct SamplingParams {
  double temperature = 1.0;                           // [0, 100]; 0 = greedy (largest logit, lowest id on a tie)
  int64_t top_k = 0;                                  // >= 0; 0 = off
  double top_p = 1.0;                                 // (0, 1]
  double min_p = 0.0;                                 // [0, 1]
  double typical_p = 1.0;                             // (0, 1]
  double repetition_penalty = 1.0;                    // (0, 10]; over prompt and output tokens
  double presence_penalty = 0.0;                      // [-2, 2]; over output tokens
  double frequency_penalty = 0.0;                     // [-2, 2]; over output tokens
  std::vector<std::pair<int32_t, float>> logit_bias;  // (token id, added to its logit, [-100, 100])
  std::vector<int32_t> allowed_token_ids;             // empty: all
  std::vector<int32_t> banned_token_ids;
  std::shared_ptr<LogitsMask> mask;
  std::optional<uint64_t> seed;  // empty: the engine draws one and reports it
};

struct StopConditions {
  int64_t max_tokens = 0;  // >= 1 once admitted; 0: the operator's cap, else 1024
  int64_t min_tokens =
      0;  // before that many, EOS and stop tokens are not chosen and stop strings do not end the output
  std::vector<std::string> stop;        // at most 16 strings of 1 … 256 bytes
  bool include_stop = false;            // keep the matched stop string in the text
  std::vector<int32_t> stop_token_ids;  // beside EOS
  bool ignore_eos = false;
};

// A snapshot to take on the way.
struct SnapshotOrder {
  // Position of an order that is filled where the request ends: after all tokens whose rows were computed (the last one
  // generated has had none), also if the request was cancelled or late. Not filled if it ended before its first row.
  static constexpr int64_t kAtEnd = -1;
  int64_t position = kAtEnd;  // tokens read: 1 … prompt size, or kAtEnd (n = 1 only)
  std::shared_ptr<SnapshotDraft> into;
};

struct Request {
  std::string id;               // unique among the principal's queued and running ones; empty: the engine makes one
  std::string principal;        // who asks; "" is the anonymous principal
  std::vector<int32_t> prompt;  // >= 1 token
  // Start from here: the prompt's first from->position() tokens are copied, not computed. They must be its tokens; with
  // all of the prompt it must hold logits; there can be no prompt logprobs.
  std::shared_ptr<const Snapshot> from;
  std::vector<SnapshotOrder> snapshots;  // ascending positions beyond from's, kAtEnd last; drafts are filled by kDone
  SamplingParams sampling;
  StopConditions stop;
  int32_t n = 1;                     // outputs of one prompt: one prefill, then forks. 1 … kMaxOutputs
  int32_t num_logprobs = -1;         // -1: none; 0: the chosen token's; k: and the k likeliest. <= kMaxLogprobs
  int32_t num_prompt_logprobs = -1;  // the same for prompt tokens (from the second on)
  int32_t priority = 0;              // lower runs first, as in vLLM; -1000 … 1000
  absl::Time deadline = absl::InfiniteFuture();
  // The text in which stop strings are searched and Event::text_bytes counts shows special tokens by their names. A
  // consumer gives its own Detokenizer the same setting.
  bool show_special_tokens = false;
};

// What ends an output when it is chosen: EOS unless ignored, and the stop tokens. Sorted, unique.
std::vector<int32_t> EndTokens(const StopConditions& stop, const std::vector<int32_t>& eos_ids);

// Checks every field but id and prompt, as ValidateRequest(): worth asking before a long prompt is encoded.
absl::Status ValidateParameters(const Request& request, int64_t vocab_size);
// Checks every field against its range and the model's vocabulary. INVALID_ARGUMENT names the field (see errors.h).
absl::Status ValidateRequest(const Request& request, int64_t vocab_size);

}  // namespace statehouse
