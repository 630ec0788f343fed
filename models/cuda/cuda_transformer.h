// Both model families on a GPU: weights, working memory and slots on the device, one stream, one wait per step.
//
// Weights and the inputs of products are bf16, or float32 for checkpoints that are; the residual stream, retention and
// logits are float32. A decode step (one row per sequence) is recorded as a CUDA graph at its second occurrence and
// then replayed. Thread-safety: as Model.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/matmul.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/power_retention/cuda/slot_retention.h"
#include "models/cuda/cuda_event.h"
#include "models/cuda/cuda_page_locker.h"
#include "models/cuda/cuda_weights.h"
#include "models/cuda/cuda_workspace.h"
#include "models/model.h"

namespace statehouse {

struct CudaModelOptions {
  kernels::DeviceProperties device;
  bool is_bf16 = true;
  bool deterministic = false;
  double memory_utilization = 0.9;
  kernels::ThreadPool* pool = nullptr;  // copies between host memory and slots; may be null, else outlives the model
  std::function<void(const std::string&)> on_warning;  // as LoadOptions::on_warning

  // What retention runs as where blocks get all the shared memory that they ask for, and on this GPU: without the
  // kernels that there is no room for.
  kernels::SlotRetentionMode wanted_retention_mode() const;
  kernels::SlotRetentionMode retention_mode(const kernels::RetentionLayout& layout) const;
};

class CudaTransformer final : public Model {
 public:
  // Without weights: fill weights(), then FinishLoading().
  static absl::StatusOr<std::unique_ptr<CudaTransformer>> Make(const ModelConfig& config,
                                                               const kernels::RetentionLayout& layout,
                                                               const CudaModelOptions& options);
  ~CudaTransformer() override;
  CudaWeights& weights() { return weights_; }
  absl::Status FinishLoading(const TensorTable& table, uint64_t weights_hash);

  const ModelConfig& config() const override { return config_; }
  const kernels::RetentionLayout& retention() const override { return layout_; }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t step_weight_bytes() const override;
  int64_t num_parameters() const override { return num_parameters_; }
  kernels::WeightType weight_type() const override {
    return options_.is_bf16 ? kernels::WeightType::kBF16 : kernels::WeightType::kF32;
  }
  uint64_t fingerprint() const override { return fingerprint_; }
  std::string device() const override { return "cuda"; }
  std::string arithmetic() const override;
  bool is_batch_invariant() const override { return options_.deterministic; }
  std::string device_name() const override;
  absl::StatusOr<std::unique_ptr<SlotMemory>> AllocateSlots(int64_t slot_bytes, int64_t num_slots) override;
  absl::StatusOr<std::optional<int64_t>> BytesForSlots(int64_t max_rows, int64_t max_logit_rows) const override;
  std::shared_ptr<PageLocker> page_locker() const override { return page_locker_; }
  void RegisterLogits(std::span<float> logits) override;
  absl::Status Reserve(int64_t max_rows, int64_t max_logit_rows) override;
  int64_t workspace_bytes() const override;
  absl::Status Forward(const StepBatch& batch, std::span<float> logits) override;
  absl::Status BeginForward(const StepBatch& batch, const StepResults& results) override;
  absl::Status EndForward() override;
  bool chooses_tokens() const override { return true; }
  bool queues_ahead() const override { return true; }
  absl::Status ReadLogits(int64_t logit_row, std::span<float> to) override;
  void SwitchOver(float* memory, int64_t unit) override;

 private:
  // What a recorded step depends on, beside its tables.
  struct StepKey {
    int64_t num_rows, num_logits;
    kernels::SlotWave wave;
    auto operator<=>(const StepKey&) const = default;
  };

  // What becomes of a product. Bias and activation are left out where JoinsEnds() is false.
  struct ProductEnd {
    const float* bias = nullptr;
    bool y_is_bf16 = false;
    bool add = false;
    bool gelu = false;
  };

  CudaTransformer(const ModelConfig& config, const kernels::RetentionLayout& layout, const CudaModelOptions& options,
                  kernels::Stream stream, kernels::CudaMatMul matmul, kernels::SlotRetention retention);

  // Makes the device current for the calling thread, which may be another one than the last time.
  absl::Status UseDevice() const;
  // Queues the choice of tokens, and the copies to the host.
  absl::Status QueueResults(const StepResults& results, int place);
  template <typename IsWanted>
  absl::Status CopyRows(const StepResults& results, IsWanted is_wanted, float* to, cudaMemcpyKind kind);
  absl::Status QueueStep();
  absl::Status QueueLayer(int64_t layer_idx, const float* bias_before);
  absl::Status QueueRetention(int64_t layer_idx);
  absl::Status QueueMlp(const CudaLayerWeights& layer, const kernels::CudaNormArgs& norm);
  absl::Status QueueHead(const float* bias_before);
  // Whether products of so many rows do themselves what comes after them (ProductEnd): else a kernel of its own does.
  bool JoinsEnds(int64_t rows) const;
  // Whether products of so many rows normalise them, too.
  bool JoinsNorms(int64_t rows) const;
  // y = weights · norm(x).
  absl::Status MultiplyNormed(const kernels::CudaNormArgs& norm, const CudaWeightMatrix& weights, void* y,
                              const ProductEnd& end);
  absl::Status Multiply(const CudaWeightMatrix& weights, const void* x, void* y, int64_t rows, const ProductEnd& end);
  static kernels::CudaFewRowsArgs FewRows(const CudaWeightMatrix& weights, const void* x, void* y, int64_t rows,
                                          const ProductEnd& end);
  // Runs, records or replays the step.
  absl::Status ReplayStep();
  absl::Status RecordStep(cudaGraphExec_t* recorded);
  void DropGraphs();

  const ModelConfig config_;
  const kernels::RetentionLayout layout_;
  const CudaModelOptions options_;
  kernels::Stream stream_;
  std::unique_ptr<kernels::Stream> side_stream_;  // for what must not wait for steps
  kernels::CudaMatMul matmul_;
  kernels::SlotRetention retention_;
  CudaWeights weights_;
  kernels::DeviceBuffer turns_;  // [d / 2] of RopeFrequencies::turns()
  kernels::SlotRetentionPlan plan_;
  CudaWorkspace workspace_;
  std::vector<kernels::SlotRows> rows_;
  std::map<StepKey, cudaGraphExec_t> graphs_;
  const std::shared_ptr<CudaPageLocker> page_locker_;
  std::span<float> registered_;  // logits, page-locked
  // Of the steps that are under way, by number of the step modulo kPlaces, as their places in workspace_.
  StepResults results_[CudaWorkspace::kPlaces];
  CudaEvent ended_[CudaWorkspace::kPlaces];
  int64_t num_begun_ = 0, num_ended_ = 0;
  CudaEvent settled_;        // see CudaSlotMemory
  bool joins_ends_ = false;  // of the step that is queued
  absl::Status queued_;      // the first error of what was queued between steps
  int64_t max_rows_ = 0, max_logit_rows_ = 0;
  int64_t weight_bytes_ = 0, num_parameters_ = 0;
  uint64_t fingerprint_ = 0;
};

}  // namespace statehouse
