// A deterministic stand-in for a Model: logits are a pure hash of the tokens that its slot holds, and it checks the
// engine's side of the contract on every call.
//
// Checked: a slot is all zero at position 0; positions continue; every region agrees on what the sequence is (so a fork
// that missed a part is seen); nothing beyond the used part is written; rows do not cross the switch-over; each
// switch-over unit runs once, at the right position; sequences of a step are distinct; logit rows ascend. The first
// breach is kept in violation(). Faults: FailAfter() and `on_forward`. Forward() allocates nothing. Thread-safety: as
// Model; violation() and the counters may be read from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "models/model.h"

namespace statehouse::testing {

struct FakeModelOptions {
  int64_t vocab_size = 64;
  int64_t num_layers = 2;
  int heads_kv = 2;
  int64_t chunk = 8;
  int64_t switch_over = 32;     // as RetentionShape::switch_over
  int64_t max_tail_tokens = 0;  // with kNeverSwitch
  std::vector<int32_t> eos_ids = {};
  float spread = 8.0f;  // logits are in [-spread, spread]
  // A sequence may go on from an earlier position than its slot holds, where Snapshot::exact_from() allows it.
  bool may_be_taken_back = false;
  bool is_batch_invariant = true;  // as Model says it; the fake's logits always are
  std::string device = "cpu";      // as Model::device() says
};

class FakeModel : public Model {
 public:
  explicit FakeModel(const FakeModelOptions& options = {});

  const ModelConfig& config() const override { return config_; }
  const kernels::RetentionLayout& retention() const override { return layout_; }
  int64_t weight_bytes() const override { return 1 << 20; }
  int64_t num_parameters() const override { return 1 << 18; }
  kernels::WeightType weight_type() const override { return kernels::WeightType::kF32; }
  uint64_t fingerprint() const override { return 1; }
  std::string device() const override { return options_.device; }
  bool is_batch_invariant() const override { return options_.is_batch_invariant; }
  absl::Status Reserve(int64_t max_rows, int64_t max_logit_rows) override;
  int64_t workspace_bytes() const override { return 4096; }
  absl::Status Forward(const StepBatch& batch, std::span<float> logits) override;
  void SwitchOver(float* memory, int64_t unit) override;
  absl::StatusOr<std::unique_ptr<SlotMemory>> AllocateSlots(int64_t slot_bytes, int64_t num_slots) override;

  // The logits after a token history: what Forward() answers.
  std::vector<float> LogitsAfter(std::span<const int32_t> tokens) const;

  // Forward() number `call` (from 1 on, counted from now) fails; 0: none.
  void FailAfter(int64_t call) { fail_at_ = call > 0 ? num_steps() + call : 0; }
  // From now on nothing can be copied out of slots: their memory reports an error.
  void FailSlotReads() { fail_slot_reads_ = true; }
  // Called at the start of each Forward(): a slow step, a clock that moves.
  std::function<void(const StepBatch&)> on_forward;

  std::string violation() const;
  int64_t num_steps() const { return num_steps_.load(); }
  int64_t num_rows() const { return num_rows_.load(); }
  int64_t num_switch_overs() const { return num_switch_units_.load() / num_switch_units(); }

 private:
  void Violation(const char* what);
  void RunRows(const StepBatch& batch, const StepSequence& sequence);
  void CheckMemory(const StepSequence& sequence, uint64_t* hash);
  void WriteMemory(float* memory, int64_t position, uint64_t hash);
  // The hash after `position` tokens, as a region remembers it.
  float* HashAt(float* region, int64_t position) const;
  bool IsTakenBack(int64_t from, int64_t to) const;
  void FillLogits(uint64_t hash, std::span<float> logits) const;
  int64_t num_regions() const { return config_.num_layers * config_.heads_kv; }

  FakeModelOptions options_;
  bool fail_slot_reads_ = false;
  ModelConfig config_;
  kernels::RetentionLayout layout_;
  int64_t max_rows_ = 0;
  int64_t max_logit_rows_ = 0;
  std::vector<uint64_t> row_hashes_;
  int64_t history_ = 0;  // positions whose hashes a region remembers
  std::atomic<int64_t> num_steps_{0};
  std::atomic<int64_t> num_rows_{0};
  std::atomic<int64_t> num_switch_units_{0};
  std::atomic<int64_t> fail_at_{0};
  mutable std::mutex mu_;
  std::string violation_;  // guarded by mu_
};

}  // namespace statehouse::testing
