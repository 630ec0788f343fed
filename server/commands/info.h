// `statehouse info`: what a checkpoint costs to serve, by arithmetic on its config; no weights are read.
//
// Thread-safety: functions without state.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "models/config.h"

namespace statehouse {

// Bytes are bytes; FLOPs count a multiply-add as two.
struct CheckpointInfo {
  ModelConfig config;
  int64_t parameters = 0;
  int64_t state_f32_bytes = 0, state_bf16_bytes = 0;  // of one sequence, without its tail; 0: no state form
  int64_t tail_bytes = 0;
  int64_t slot_bytes = 0;       // what one running sequence takes here: state, tail and padding
  int64_t switch_over = 0;      // tokens; -1: never
  int64_t max_tail_tokens = 0;  // bound of a sequence without a state form; 0: none
  int64_t kv_bytes_per_token = 0;
  int64_t break_even_f32 = 0, break_even_bf16 = 0;  // tokens from which on the state is smaller than the KV cache
  double linear_flops = 0, retention_flops = 0, head_flops = 0;  // per token past the switch-over

  struct Fit {
    const char* dtype = "";  // of the weights: "f32", "bf16", "int8"
    int64_t weight_bytes = 0;
    int64_t sequences = 0;  // of any length, beside the weights; negative: the weights alone do not fit
    int64_t kv_tokens = 0;  // tokens of KV cache that the same room would hold
  };
  int64_t memory_bytes = 0;
  std::array<Fit, 3> fits;
};

// The memory of this machine, in bytes.
int64_t MachineMemoryBytes();

// `memory_bytes` is what weights and sequences may take together. `max_tail_tokens` (0: none) is needed by shapes
// without a state form. Errors as ReadConfig() and PlanRetention().
absl::StatusOr<CheckpointInfo> DescribeCheckpoint(const std::filesystem::path& checkpoint_dir, int64_t memory_bytes,
                                                  int64_t max_tail_tokens);

std::string InfoText(const CheckpointInfo& info);
std::string InfoJson(const CheckpointInfo& info);

}  // namespace statehouse
