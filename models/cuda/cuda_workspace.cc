#include "models/cuda/cuda_workspace.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "models/cuda/cuda_weights.h"

namespace statehouse {
namespace {

constexpr size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Bytes of each array, in the order of the members.
std::array<size_t, 10> ArrayBytes(const ModelConfig& config, int64_t rows, int64_t logit_rows, bool is_bf16) {
  const size_t element = is_bf16 ? 2 : 4;
  const size_t hidden = config.hidden_size, inner = config.intermediate_size, d = config.head_dim;
  const bool gated = config.family == Family::kBrumby;
  return {rows * hidden * 4,
          std::max(rows, logit_rows) * hidden * element,
          static_cast<size_t>(rows * CudaWeights::HeadsWidth(config) * 4),
          rows * config.heads_q * d * element,
          rows * inner * element * (gated ? 2 : 1),
          gated ? rows * inner * element : 0,
          rows * d / 2 * sizeof(float2),
          static_cast<size_t>(logit_rows * config.vocab_size * 4),
          CudaWorkspace::kPlaces * static_cast<size_t>(logit_rows * config.vocab_size * 4),
          static_cast<size_t>(logit_rows * 4)};
}

}  // namespace

absl::Status PinnedBuffer::Allocate(size_t bytes) {
  if (bytes <= bytes_) return absl::OkStatus();
  Free();
  const cudaError_t result = cudaHostAlloc(&data_, bytes, cudaHostAllocDefault);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky; later calls must not report it again
    data_ = nullptr;
    return absl::ResourceExhaustedError(absl::StrCat("page-locked host memory: ", bytes, " bytes needed"));
  }
  if (absl::Status status = kernels::CudaStatus(result, "cudaHostAlloc"); !status.ok()) return status;
  bytes_ = bytes;
  return absl::OkStatus();
}

void PinnedBuffer::Free() {
  if (data_ != nullptr) cudaFreeHost(data_);
  data_ = nullptr;
  bytes_ = 0;
}

int64_t CudaWorkspace::Bytes(const ModelConfig& config, int64_t max_rows, int64_t max_logit_rows, bool is_bf16) {
  size_t bytes = 0;
  for (size_t part : ArrayBytes(config, max_rows, max_logit_rows, is_bf16)) bytes += Aligned(part);
  return static_cast<int64_t>(bytes);
}

absl::Status CudaWorkspace::Reserve(const ModelConfig& config, const kernels::SlotRetentionPlan& plan, int64_t max_rows,
                                    int64_t max_logit_rows, bool is_bf16) {
  const size_t bytes = Bytes(config, max_rows, max_logit_rows, is_bf16);
  Offsets offsets;
  const auto place = [&offsets](size_t* offset, size_t size) {
    *offset = offsets.end;
    offsets.end += Aligned(size);
  };
  place(&offsets.tokens, max_rows * sizeof(int32_t));
  place(&offsets.positions, max_rows * sizeof(int64_t));
  place(&offsets.logit_rows, max_logit_rows * sizeof(int32_t));
  place(&offsets.segments, plan.max_segments() * sizeof(kernels::SlotSegment));
  place(&offsets.tiles, plan.max_tiles() * sizeof(kernels::SlotTile));
  place(&offsets.folds, plan.max_folds() * sizeof(int32_t));
  place(&offsets.choices, max_logit_rows * sizeof(kernels::CudaChoice));
  const size_t chosen_bytes = max_logit_rows * sizeof(int32_t);
  for (const absl::Status& status : {arrays_.Allocate(bytes), tables_.Allocate(offsets.end),
                                     host_tables_[0].Allocate(offsets.end), host_tables_[1].Allocate(offsets.end),
                                     host_chosen_[0].Allocate(chosen_bytes), host_chosen_[1].Allocate(chosen_bytes)}) {
    if (status.ok()) continue;
    return absl::Status(status.code(),
                        absl::StrCat("step buffers for ", max_rows, " rows: ", std::string(status.message()),
                                     "; set a smaller --max-num-batched-tokens"));
  }
  const auto sizes = ArrayBytes(config, max_rows, max_logit_rows, is_bf16);
  char* next = arrays_.as<char>();
  size_t array = 0;
  const auto take = [&](auto** member) {
    *member = reinterpret_cast<std::remove_pointer_t<decltype(member)>>(next);
    next += Aligned(sizes[array++]);
  };
  take(&x), take(&normed), take(&heads), take(&y), take(&mlp), take(&gated), take(&angles), take(&logits), take(&kept),
      take(&chosen);
  const char* const tables = tables_.as<char>();
  tokens = reinterpret_cast<const int32_t*>(tables + offsets.tokens);
  positions = reinterpret_cast<const int64_t*>(tables + offsets.positions);
  logit_rows = reinterpret_cast<const int32_t*>(tables + offsets.logit_rows);
  segments = reinterpret_cast<const kernels::SlotSegment*>(tables + offsets.segments);
  tiles = reinterpret_cast<const kernels::SlotTile*>(tables + offsets.tiles);
  folds = reinterpret_cast<const int32_t*>(tables + offsets.folds);
  choices = reinterpret_cast<const kernels::CudaChoice*>(tables + offsets.choices);
  offsets_ = offsets;
  max_rows_ = max_rows;
  max_logit_rows_ = max_logit_rows;
  kept_floats_ = max_logit_rows * config.vocab_size;
  return absl::OkStatus();
}

absl::Status CudaWorkspace::Begin(const StepBatch& batch, std::span<const LogitUse> uses,
                                  const kernels::SlotRetentionPlan& plan, int place, cudaStream_t stream) {
  num_rows_ = static_cast<int64_t>(batch.tokens.size());
  num_logits_ = static_cast<int64_t>(batch.logit_rows.size());
  if (num_rows_ > max_rows_ || num_logits_ > max_logit_rows_) {
    return absl::InternalError(absl::StrCat("a step of ", num_rows_, " rows and ", num_logits_,
                                            " logit rows; reserved were ", max_rows_, " and ", max_logit_rows_));
  }
  char* const tables = host_tables_[place].as<char>();
  const auto write = [tables](size_t offset, const auto& values) {
    if (!values.empty()) std::memcpy(tables + offset, values.data(), values.size() * sizeof(values[0]));
  };
  write(offsets_.tokens, batch.tokens);
  write(offsets_.logit_rows, batch.logit_rows);
  write(offsets_.segments, plan.segments());
  write(offsets_.tiles, plan.tiles());
  write(offsets_.folds, plan.folds());
  auto* const positions_out = reinterpret_cast<int64_t*>(tables + offsets_.positions);
  for (const StepSequence& sequence : batch.sequences) {
    for (int32_t i = 0; i < sequence.num_rows; ++i) positions_out[sequence.first_row + i] = sequence.position + i;
  }
  num_choices_ = 0;
  auto* const choices_out = reinterpret_cast<kernels::CudaChoice*>(tables + offsets_.choices);
  for (size_t row = 0; row < uses.size(); ++row) {
    const TokenChoice& choice = uses[row].choice;
    if (!uses[row].chooses) continue;
    choices_out[num_choices_++] = {.row = static_cast<int32_t>(row),
                                   .temperature = choice.temperature,
                                   .top_k = choice.top_k,
                                   .top_p = choice.top_p,
                                   .min_p = choice.min_p,
                                   .seed = choice.seed,
                                   .position = choice.position,
                                   .output = choice.output,
                                   .unused = 0};
  }
  return kernels::CudaStatus(cudaMemcpyAsync(tables_.as<char>(), tables, offsets_.end, cudaMemcpyHostToDevice, stream),
                             "copy of a step's tables");
}

}  // namespace statehouse
