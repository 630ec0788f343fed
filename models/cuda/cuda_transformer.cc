#include "models/cuda/cuda_transformer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/rope/rope.h"
#include "kernels/sampling/cuda/choose.h"
#include "models/cuda/cuda_slot_memory.h"
#include "models/cuda/profile_range.h"
#include "models/identity_hash.h"

namespace statehouse {
namespace {

using kernels::CudaStatus;

// What the CUDA runtime and cuBLAS take when their code is first used.
constexpr int64_t kRuntimeBytes = int64_t{512} << 20;
// Recordings kept; beyond that all are made anew.
constexpr size_t kMostGraphs = 256;

}  // namespace

kernels::SlotRetentionMode CudaModelOptions::wanted_retention_mode() const {
  using Mode = kernels::SlotRetentionMode;
  return deterministic ? Mode::kDeterministic : is_bf16 ? Mode::kFastBf16 : Mode::kFast;
}

kernels::SlotRetentionMode CudaModelOptions::retention_mode(const kernels::RetentionLayout& layout) const {
  using Mode = kernels::SlotRetentionMode;
  const int room = device.max_shared_bytes_per_block;
  if (kernels::FewKernelSharedBytes(layout) > room) return Mode::kDeterministic;
  const Mode wanted = wanted_retention_mode();
  const int needed = std::max(kernels::WideKernelSharedBytes(layout), kernels::RowKernelSharedBytes(layout));
  return wanted == Mode::kFastBf16 && needed > room ? Mode::kFast : wanted;
}

absl::StatusOr<std::unique_ptr<CudaTransformer>> CudaTransformer::Make(const ModelConfig& config,
                                                                       const kernels::RetentionLayout& layout,
                                                                       const CudaModelOptions& options) {
  const int64_t q_width = int64_t{config.heads_q} * config.head_dim;
  for (int64_t size : {config.hidden_size, config.intermediate_size, q_width}) {
    if (size % 8 == 0) continue;
    return absl::UnimplementedError(absl::StrCat("on the GPU: a width of ", size, ", which is not a multiple of 8"));
  }
  if (absl::Status status = CudaStatus(cudaSetDevice(options.device.index), "cudaSetDevice"); !status.ok()) {
    return status;
  }
  absl::StatusOr<kernels::Stream> stream = kernels::Stream::Make(), side_stream = kernels::Stream::Make();
  if (!stream.ok()) return stream.status();
  if (!side_stream.ok()) return side_stream.status();
  using kernels::MatMulMode;
  auto matmul = kernels::CudaMatMul::Make(options.deterministic ? MatMulMode::kDeterministic : MatMulMode::kFast,
                                          options.is_bf16, stream->get());
  if (!matmul.ok()) return matmul.status();
  auto retention = kernels::SlotRetention::Make(layout, options.retention_mode(layout));
  if (!retention.ok()) return retention.status();
  std::unique_ptr<CudaTransformer> made(
      new CudaTransformer(config, layout, options, *std::move(stream), *std::move(matmul), *std::move(retention)));
  made->side_stream_ = std::make_unique<kernels::Stream>(*std::move(side_stream));
  const kernels::RopeFrequencies rope(config.head_dim, config.rope_theta);
  const size_t bytes = rope.turns().size() * sizeof(rope.turns()[0]);
  if (absl::Status status = made->turns_.Allocate(bytes); !status.ok()) return status;
  if (absl::Status status = made->turns_.Upload(rope.turns().data(), bytes); !status.ok()) return status;
  return made;
}

CudaTransformer::CudaTransformer(const ModelConfig& config, const kernels::RetentionLayout& layout,
                                 const CudaModelOptions& options, kernels::Stream stream, kernels::CudaMatMul matmul,
                                 kernels::SlotRetention retention)
    : config_(config),
      layout_(layout),
      options_(options),
      stream_(std::move(stream)),
      matmul_(std::move(matmul)),
      retention_(std::move(retention)),
      weights_(config),
      page_locker_(std::make_shared<CudaPageLocker>(options.device.index)) {}

CudaTransformer::~CudaTransformer() {
  cudaStreamSynchronize(stream_.get());
  RegisterLogits({});
  DropGraphs();
}

absl::Status CudaTransformer::FinishLoading(const TensorTable& table, uint64_t weights_hash) {
  for (const TensorSpec& spec : table.specs()) {
    const bool absent = spec.sink != nullptr ? !spec.sink->filled() : spec.vector->empty();
    if (!absent) num_parameters_ += spec.num_elements();
  }
  fingerprint_ = IdentityHash(config_, layout_, weights_hash);
  if (absl::Status status = weights_.Finish(config_); !status.ok()) return status;
  weight_bytes_ = weights_.bytes();
  return absl::OkStatus();
}

int64_t CudaTransformer::step_weight_bytes() const {
  return weight_bytes_ - (weights_.lm_head.bytes() > 0 ? weights_.embedding.bytes() : 0);
}

std::string CudaTransformer::arithmetic() const {
  return absl::StrCat("sm_", options_.device.major, options_.device.minor, options_.is_bf16 ? "-bf16" : "-f32",
                      options_.deterministic ? "-deterministic" : "-fast");
}

std::string CudaTransformer::device_name() const {
  return absl::StrCat(options_.device.name, " (cuda:", options_.device.index, ")");
}

absl::Status CudaTransformer::UseDevice() const {
  return CudaStatus(cudaSetDevice(options_.device.index), "cudaSetDevice");
}

absl::StatusOr<std::unique_ptr<SlotMemory>> CudaTransformer::AllocateSlots(int64_t slot_bytes, int64_t num_slots) {
  return CudaSlotMemory::Allocate(slot_bytes, num_slots, options_.device.index, stream_.get(), &settled_,
                                  options_.pool);
}

absl::StatusOr<std::optional<int64_t>> CudaTransformer::BytesForSlots(int64_t max_rows, int64_t max_logit_rows) const {
  size_t free_bytes = 0, total_bytes = 0;
  if (absl::Status status = UseDevice(); !status.ok()) return status;
  const absl::Status status = CudaStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  if (!status.ok()) return status;
  const double kept = (1.0 - options_.memory_utilization) * static_cast<double>(total_bytes);
  return static_cast<int64_t>(free_bytes) - static_cast<int64_t>(kept) - kRuntimeBytes - retention_.BytesFor(max_rows) -
         CudaWorkspace::Bytes(config_, max_rows, max_logit_rows, options_.is_bf16);
}

void CudaTransformer::RegisterLogits(std::span<float> logits) {
  if (!registered_.empty()) page_locker_->Unlock(std::as_writable_bytes(registered_));
  registered_ = {};
  if (logits.empty()) return;
  const absl::Status status = page_locker_->Lock(std::as_writable_bytes(logits));
  if (status.ok()) {
    registered_ = logits;
  } else if (options_.on_warning) {
    options_.on_warning(absl::StrCat("logits are copied from the GPU by a slower way: ", logits.size_bytes(),
                                     " bytes could not be page-locked: ", std::string(status.message())));
  }
}

absl::Status CudaTransformer::Reserve(int64_t max_rows, int64_t max_logit_rows) {
  if (absl::Status status = UseDevice(); !status.ok()) return status;
  if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;
  DropGraphs();  // they hold addresses
  max_rows_ = std::max(max_rows, max_rows_);
  max_logit_rows_ = std::max(max_logit_rows, max_logit_rows_);
  absl::Status status =
      plan_.Reserve(layout_, max_rows_, options_.retention_mode(layout_), options_.device.num_multiprocessors);
  if (!status.ok()) return status;
  if (status = retention_.Reserve(max_rows_); !status.ok()) return status;
  rows_.reserve(max_rows_);
  return workspace_.Reserve(config_, plan_, max_rows_, max_logit_rows_, options_.is_bf16);
}

int64_t CudaTransformer::workspace_bytes() const { return workspace_.bytes() + retention_.bytes() + matmul_.bytes(); }

void CudaTransformer::SwitchOver(float* memory, int64_t unit) {
  float* const layer_memory = memory + unit / config_.heads_kv * layout_.layer_floats();
  absl::Status status = UseDevice();
  if (status.ok()) {
    status = retention_.SwitchOver(layer_memory, static_cast<int>(unit % config_.heads_kv), stream_.get());
  }
  if (status.ok()) status = settled_.Record(stream_.get());
  if (queued_.ok()) queued_ = status;
}

absl::Status CudaTransformer::Forward(const StepBatch& batch, std::span<float> logits) {
  if (absl::Status status = BeginForward(batch, {.logits = logits, .uses = {}, .tokens = {}}); !status.ok())
    return status;
  return EndForward();
}

absl::Status CudaTransformer::BeginForward(const StepBatch& batch, const StepResults& results) {
  const ProfileRange range("step");
  if (!queued_.ok()) return queued_;
  if (static_cast<int64_t>(batch.tokens.size()) > max_rows_) {
    return absl::InternalError(absl::StrCat("a step of ", batch.tokens.size(), " rows; reserved were ", max_rows_));
  }
  if (absl::Status status = UseDevice(); !status.ok()) return status;
  rows_.clear();
  for (const StepSequence& sequence : batch.sequences) {
    rows_.push_back({sequence.memory, sequence.position, sequence.first_row, sequence.num_rows});
  }
  if (num_begun_ - num_ended_ >= CudaWorkspace::kPlaces) return absl::InternalError("too many steps begun");
  plan_.Make(rows_);
  // Behind a step that may hold a row too many of a sequence that has ended, its slot is settled with this one.
  const bool is_alone = num_begun_ == num_ended_;
  if (absl::Status status = is_alone ? settled_.Record(stream_.get()) : absl::OkStatus(); !status.ok()) return status;
  const int place = static_cast<int>(num_begun_ % CudaWorkspace::kPlaces);
  results_[place] = results;
  absl::Status status = workspace_.Begin(batch, results.uses, plan_, place, stream_.get());
  if (!status.ok()) return status;
  const bool is_decode = plan_.bulks().empty() && plan_.waves().size() == 1 && plan_.waves()[0].max_rows == 1;
  {
    const ProfileRange kind(is_decode ? "decode" : "prefill");
    if (status = is_decode ? ReplayStep() : QueueStep(); !status.ok()) return status;
  }
  if (status = QueueResults(results, place); !status.ok()) return status;
  if (status = ended_[place].Record(stream_.get()); !status.ok()) return status;
  if (!is_alone) {
    if (status = settled_.Record(stream_.get()); !status.ok()) return status;
  }
  ++num_begun_;  // last: what fails was not begun
  return absl::OkStatus();
}

absl::Status CudaTransformer::QueueResults(const StepResults& results, int place) {
  const ProfileRange range("choose");
  CudaWorkspace& w = workspace_;
  absl::Status status = kernels::CudaChooseTokens({.logits = w.logits,
                                                   .vocab = config_.vocab_size,
                                                   .choices = w.choices,
                                                   .tokens = w.chosen,
                                                   .host_tokens = w.host_chosen(place),
                                                   .num_choices = w.num_choices()},
                                                  options_.device.max_shared_bytes_per_block, stream_.get());
  if (!status.ok()) return status;
  status = CopyRows(
      results, [](const LogitUse& use) { return use.keeps; }, w.KeptLogits(place), cudaMemcpyDeviceToDevice);
  if (!status.ok() || results.logits.empty()) return status;
  return CopyRows(
      results, [](const LogitUse& use) { return use.copies; }, results.logits.data(), cudaMemcpyDeviceToHost);
}

// Neighbouring rows in one copy.
template <typename IsWanted>
absl::Status CudaTransformer::CopyRows(const StepResults& results, IsWanted is_wanted, float* to, cudaMemcpyKind kind) {
  const int64_t vocab = config_.vocab_size, rows = workspace_.num_logits();
  const auto wanted = [&](int64_t row) { return is_wanted(results.uses.empty() ? LogitUse{} : results.uses[row]); };
  for (int64_t row = 0; row < rows;) {
    const int64_t first = row;
    while (row < rows && wanted(row)) ++row;
    if (row == first) {
      ++row;
      continue;
    }
    const absl::Status status = CudaStatus(cudaMemcpyAsync(to + first * vocab, workspace_.logits + first * vocab,
                                                           (row - first) * vocab * sizeof(float), kind, stream_.get()),
                                           "copy of logits");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// On a stream of its own, so that it does not wait for a step that is under way.
absl::Status CudaTransformer::ReadLogits(int64_t logit_row, std::span<float> to) {
  if (num_ended_ == 0) return absl::InternalError("no step has ended");
  const int place = static_cast<int>((num_ended_ - 1) % CudaWorkspace::kPlaces);
  absl::Status status = UseDevice();
  if (!status.ok()) return status;
  const float* const kept = workspace_.KeptLogits(place) + logit_row * config_.vocab_size;
  status = CudaStatus(cudaMemcpyAsync(to.data(), kept, to.size_bytes(), cudaMemcpyDeviceToHost, side_stream_->get()),
                      "copy of kept logits");
  return status.ok() ? side_stream_->Synchronize() : status;
}

absl::Status CudaTransformer::EndForward() {
  const ProfileRange range("wait for a step");
  if (num_ended_ == num_begun_) return absl::InternalError("no step was begun");
  const int place = static_cast<int>(num_ended_++ % CudaWorkspace::kPlaces);
  if (absl::Status status = ended_[place].Wait(); !status.ok()) return status;
  const StepResults& results = results_[place];
  const int32_t* chosen = workspace_.host_chosen(place);
  for (size_t row = 0; row < results.uses.size(); ++row) {
    if (results.uses[row].chooses) results.tokens[row] = *chosen++;
  }
  return absl::OkStatus();
}

// The first step of a kind runs as it is, so that nothing is loaded or set up while the second is recorded.
absl::Status CudaTransformer::ReplayStep() {
  const StepKey key = {workspace_.num_rows(), workspace_.num_logits(), plan_.waves()[0]};
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMostGraphs) DropGraphs();
    graphs_.emplace(key, nullptr);
    return QueueStep();
  }
  if (found->second == nullptr) {
    if (absl::Status status = RecordStep(&found->second); !status.ok()) return status;
  }
  return CudaStatus(cudaGraphLaunch(found->second, stream_.get()), "cudaGraphLaunch");
}

absl::Status CudaTransformer::RecordStep(cudaGraphExec_t* recorded) {
  absl::Status status =
      CudaStatus(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  const absl::Status queued = QueueStep();
  cudaGraph_t graph = nullptr;
  status = CudaStatus(cudaStreamEndCapture(stream_.get(), &graph), "cudaStreamEndCapture");
  if (!queued.ok()) status = queued;
  if (status.ok()) status = CudaStatus(cudaGraphInstantiate(recorded, graph, 0), "cudaGraphInstantiate");
  if (graph != nullptr) cudaGraphDestroy(graph);
  return status;
}

void CudaTransformer::DropGraphs() {
  for (const auto& [key, recorded] : graphs_) {
    if (recorded != nullptr) cudaGraphExecDestroy(recorded);
  }
  graphs_.clear();
}

}  // namespace statehouse
