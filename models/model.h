// Loaded weights and their forward pass. Knows slots only as memory that a caller owns; knows no request.
//
// Thread-safety: one thread (the engine thread) calls Forward() and SwitchOver(); const methods that read configuration
// may be called from any thread. Forward() does not allocate: Reserve() sized its working memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matmul/matmul.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/layout.h"
#include "models/config.h"
#include "models/page_locker.h"
#include "models/slot_memory.h"

namespace statehouse {

// The rows of one sequence in a step. Sequences of one step are distinct.
struct StepSequence {
  // Its slot: Model::slot_floats() floats of SlotMemory, zero before the first row. Only the model reads it.
  float* memory = nullptr;
  int64_t position = 0;   // absolute position of the first row = tokens held so far
  int32_t first_row = 0;  // index of its first row in StepBatch::tokens
  int32_t num_rows = 0;   // >= 1; rows of one sequence are contiguous
};

// In StepBatch::tokens: the token that the step before chose for its logit row `choice`, counted among those with
// LogitUse::chooses. Only where Model::queues_ahead().
constexpr int32_t ChosenBefore(int32_t choice) { return -1 - choice; }

struct StepBatch {
  std::span<const int32_t> tokens;          // [num_rows], each in [0, vocab_size) or ChosenBefore()
  std::span<const StepSequence> sequences;  // cover all rows, in row order
  std::span<const int32_t> logit_rows;      // rows whose logits are wanted, ascending
};

// How a row's token is chosen, by the recipe of docs/sampling.md, where nothing edits the logits before.
struct TokenChoice {
  float temperature = 1;  // 0: greedy
  int64_t top_k = 0;      // 0: off
  double top_p = 1.0;     // (0, 1]
  double min_p = 0.0;     // [0, 1]
  uint64_t seed = 0;
  int32_t output = 0;
  int64_t position = 0;  // of the chosen token
};

// What becomes of one row's logits.
struct LogitUse {
  bool copies = true;    // they are wanted on the host
  bool chooses = false;  // only where the model does: Model::chooses_tokens()
  bool keeps = false;    // only with `chooses`: Model::ReadLogits() may be asked for them
  TokenChoice choice;
};

// Where a step's results go. The memory must stay until Model::EndForward().
struct StepResults {
  std::span<float> logits;         // [logit_rows.size(), vocab_size]; rows that are not copied may hold anything
  std::span<const LogitUse> uses;  // one per logit row, or none: all are copied
  std::span<int32_t> tokens;       // one per logit row with `chooses`: the id, or -1 where no logit is above -infinity
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  // One layer's retention memory; a slot is num_layers of them, layer after layer.
  virtual const kernels::RetentionLayout& retention() const = 0;
  int64_t slot_floats() const { return config().num_layers * retention().layer_floats(); }
  // Bytes of weights held.
  virtual int64_t weight_bytes() const = 0;
  // Bytes of weights that one step reads: decode's bandwidth floor. Less than all of them if the embedding is not the
  // head too.
  virtual int64_t step_weight_bytes() const { return weight_bytes(); }
  // Parameters, embeddings counted once.
  virtual int64_t num_parameters() const = 0;
  // The type that most parameters are held in.
  virtual kernels::WeightType weight_type() const = 0;
  // Identity of the weights: a hash over config and tensors (docs/retention.md, "Identity and numeric mode"), stable
  // across hosts and dtypes.
  virtual uint64_t fingerprint() const = 0;

  // Where and how it computes. States go on bit for bit only where both are the same.
  virtual std::string device() const { return "cpu"; }          // "cpu", "cuda"
  virtual std::string arithmetic() const { return "f32-fma"; }  // instruction class and types
  // Whether a sequence's bits are independent of what else is in its steps and of how its rows are cut into steps. If
  // not, a state that is restored goes on close to what it would have been, never provably bit for bit.
  virtual bool is_batch_invariant() const { return true; }
  // For people: "cpu, 8 threads", "NVIDIA H200 (cuda:0)".
  virtual std::string device_name() const { return device(); }

  // Slots where this model computes, all zero. RESOURCE_EXHAUSTED says how many bytes are needed, and how many are free
  // if that is known.
  virtual absl::StatusOr<std::unique_ptr<SlotMemory>> AllocateSlots(int64_t slot_bytes, int64_t num_slots) {
    return AllocateHostSlots(slot_bytes, num_slots);
  }
  // Where copies between slots and host memory are faster if the latter is page-locked; null: they are not. May outlive
  // the model.
  virtual std::shared_ptr<PageLocker> page_locker() const { return nullptr; }
  // Bytes of device memory that slots may take, beside steps of up to max_rows rows with max_logit_rows logits. Nothing
  // where slots are in host memory, which is the operator's to divide. INTERNAL if the device does not answer.
  virtual absl::StatusOr<std::optional<int64_t>> BytesForSlots(int64_t max_rows, int64_t max_logit_rows) const {
    return std::nullopt;
  }
  // Logits are often written to this memory: a device may copy to it faster. Before it is freed, call with nothing.
  // Where that is refused, steps are slower but the same, and LoadOptions::on_warning hears of it.
  virtual void RegisterLogits(std::span<float> logits) {}

  // Makes room for steps of up to max_rows rows with up to max_logit_rows logits. Call before Forward(), once or to
  // grow.
  virtual absl::Status Reserve(int64_t max_rows, int64_t max_logit_rows) = 0;
  virtual int64_t workspace_bytes() const = 0;

  // Runs one step. logits [logit_rows.size(), vocab_size]. REQUIRES: within Reserve()d sizes; no sequence's rows reach
  // across the switch-over; a sequence at or past it has had SwitchOver() for every unit.
  // An error means that the device failed, never that the input was bad.
  virtual absl::Status Forward(const StepBatch& batch, std::span<float> logits) = 0;

  // Forward() in two halves, so that the caller can do something else meanwhile; nothing else is called between the
  // two, but see queues_ahead(). What the two spans refer to must stay until the second. A model that computes on the
  // caller's thread does so there.
  virtual absl::Status BeginForward(const StepBatch& batch, const StepResults& results) {
    begun_ = batch;
    results_ = results;
    return absl::OkStatus();
  }
  virtual absl::Status EndForward() { return Forward(begun_, results_.logits); }
  // Whether a second step may be begun before the first has ended, so that the device does not wait for the host
  // between the two; each EndForward() then ends the older one. A row whose ChosenBefore() is -1 computes nothing of
  // use. Slots that are in no step under way may be copied, zeroed, read and written meanwhile;
  // one that is in it may be zeroed or read too, which comes after every step begun before.
  virtual bool queues_ahead() const { return false; }
  // Whether it chooses tokens itself, where the logits are (LogitUse::chooses).
  virtual bool chooses_tokens() const { return false; }
  // The logits of a row with LogitUse::keeps of the step that ended last; not after the next BeginForward(). REQUIRES:
  // chooses_tokens().
  virtual absl::Status ReadLogits(int64_t logit_row, std::span<float> to) {
    return absl::UnimplementedError("this model keeps no logits");
  }

  // The switch-over of a slot that holds exactly retention().shape().switch_over (> 0) tokens, in num_switch_units()
  // slices (layer × head), each called once, in any order, with nothing else in between for that slot.
  int64_t num_switch_units() const { return config().num_layers * config().heads_kv; }
  virtual void SwitchOver(float* memory, int64_t unit) = 0;

 private:
  StepBatch begun_;
  StepResults results_;
};

struct LoadOptions {
  enum class DType { kAuto, kF32, kBF16, kInt8 };
  // kAuto: as stored (F16 is kept as f32; dummy weights are bf16). kInt8: the embedding is bf16, gates stay as stored.
  DType dtype = DType::kAuto;
  std::string device = "cpu";           // --device: "cpu", "cuda", "cuda:N" or "auto" (see models/device.h)
  bool deterministic = false;           // --deterministic, GPU: bits that do not depend on what else is in a step
  double gpu_memory_utilization = 0.9;  // share of the GPU's memory that weights, steps and slots may take, in (0, 1]
  bool dummy = false;                   // random weights from config.json alone
  uint64_t dummy_seed = 0;
  int64_t switch_over = kernels::kSwitchOverAuto;  // --switch-over
  int64_t max_tail_tokens = 0;                     // --max-tail-tokens: bound for shapes without a state form
  int64_t chunk = 0;                               // 0: the config's; tests use others
  // Called as tensors are loaded: (bytes done, bytes in all). May be empty.
  std::function<void(int64_t, int64_t)> progress;
  // Hears which device was taken, and why. May be empty.
  std::function<void(const std::string&)> on_device;
  // Hears what makes the model slower than it might be, and why; at load and later. May be empty; else it must be
  // callable as long as the model lives.
  std::function<void(const std::string&)> on_warning;
};

// "auto", "f32", "bf16" or "int8", as --dtype takes them. INVALID_ARGUMENT lists them.
absl::StatusOr<LoadOptions::DType> ParseDType(std::string_view name);

// Loads and checks everything before it returns; errors name file, tensor and expectation. `pool` must outlive the
// model.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::filesystem::path& checkpoint_dir,
                                                 const LoadOptions& options, kernels::ThreadPool* pool);
// The same with a config that was read (or made up) before.
absl::StatusOr<std::unique_ptr<Model>> LoadModelWithConfig(const std::filesystem::path& checkpoint_dir,
                                                           const ModelConfig& config, const LoadOptions& options,
                                                           kernels::ThreadPool* pool);

}  // namespace statehouse
