#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/power_retention/cuda/instances.h"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/tables.h"
#include "kernels/power_retention/cuda/workspace.h"

namespace statehouse::kernels {
namespace {

// Longer chunks cost more within the chunk, shorter ones more traffic of chunk states.
constexpr int64_t kDefaultChunk = 1024;
constexpr int64_t kMaxChunk = 65536;

absl::Status CheckShape(const CudaRetentionShape& shape) {
  if (shape.heads_kv < 1 || shape.heads_q < 1 || shape.heads_q % shape.heads_kv != 0) {
    return absl::InvalidArgumentError(absl::StrCat("heads_q ", shape.heads_q, ", heads_kv ", shape.heads_kv,
                                                   ": heads_q must be a positive multiple of heads_kv"));
  }
  if (shape.chunk < 0 || shape.chunk > kMaxChunk) {
    return absl::InvalidArgumentError(absl::StrCat("chunk ", shape.chunk, ": must be 0 (default) … ", kMaxChunk));
  }
  if (shape.degree != 2 && shape.degree != 4) {
    return absl::InvalidArgumentError(absl::StrCat("degree ", shape.degree, ": must be 2 or 4"));
  }
  if (!std::isfinite(shape.scale) || shape.scale < 0) {
    return absl::InvalidArgumentError(absl::StrCat("scale ", shape.scale, ": must be positive, or 0 (1/sqrt(d))"));
  }
  if (shape.degree == 4 && shape.has_states && shape.head_dim > kMostFourthDim) {
    return absl::UnimplementedError(absl::StrCat("power retention on the GPU: states of degree 4 with head_dim ",
                                                 shape.head_dim, "; ", kMostFourthDim, " is the most"));
  }
  if (!HasForwardInstance(shape)) {
    return absl::UnimplementedError(absl::StrCat("power retention on the GPU: head_dim ", shape.head_dim, ", ",
                                                 RetentionDtypeName(shape.dtype), ": this build has ",
                                                 ForwardInstanceNames()));
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const CudaRetentionShape& shape, std::span<const int64_t> cu_seqlens) {
  if (cu_seqlens.size() < 2 || cu_seqlens.front() != 0) {
    return absl::InvalidArgumentError(
        "cu_seqlens: must begin with 0 and hold one more entry per sequence, at least one");
  }
  for (size_t i = 1; i < cu_seqlens.size(); ++i) {
    if (cu_seqlens[i] < cu_seqlens[i - 1]) {
      return absl::InvalidArgumentError(absl::StrCat("cu_seqlens[", i, "] ", cu_seqlens[i], ": must not be below ",
                                                     cu_seqlens[i - 1], ", the entry before it"));
    }
    if (shape.degree == 4 && shape.head_dim > kMostFourthDim && cu_seqlens[i] - cu_seqlens[i - 1] > kMaxChunk) {
      return absl::UnimplementedError(absl::StrCat(
          "power retention of degree 4 on the GPU: sequence ", i - 1, " has ", cu_seqlens[i] - cu_seqlens[i - 1],
          " rows; there is no state for this head_dim, and ", kMaxChunk, " rows are the most without one"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const char* RetentionDtypeName(RetentionDtype dtype) {
  switch (dtype) {
    case RetentionDtype::kBf16:
      return "bf16";
    case RetentionDtype::kFp16:
      return "fp16";
    case RetentionDtype::kFloat32:
      return "float32";
  }
  return "unknown";
}

absl::StatusOr<CudaRetentionPlan> CudaRetentionPlan::Make(const CudaRetentionShape& shape,
                                                          std::span<const int64_t> cu_seqlens, int64_t open_rows) {
  if (absl::Status status = CheckShape(shape); !status.ok()) return status;
  if (absl::Status status = CheckLengths(shape, cu_seqlens); !status.ok()) return status;
  CudaRetentionPlan plan;
  plan.shape_ = shape;
  if (shape.scale == 0) plan.shape_.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  if (shape.chunk == 0) plan.shape_.chunk = kDefaultChunk;
  if (shape.degree == 4 && (shape.chunk == 0 || shape.head_dim > kMostFourthDim)) {
    // One chunk per sequence, up to where a state takes fewer operations.
    plan.shape_.chunk = 1;
    for (size_t i = 1; i < cu_seqlens.size(); ++i)
      plan.shape_.chunk = std::max(plan.shape_.chunk, cu_seqlens[i] - cu_seqlens[i - 1]);
    plan.shape_.chunk = std::min(plan.shape_.chunk, shape.head_dim == 16 ? 8192 : kMaxChunk);
  }
  const int64_t C = plan.shape_.chunk;
  if (open_rows < 0 || open_rows > C) {
    return absl::InvalidArgumentError(absl::StrCat("open_rows ", open_rows, ": must be 0 … ", C, ", the chunk"));
  }
  if (open_rows > 0 && shape.degree == 4 && shape.head_dim > kMostFourthDim) {
    return absl::UnimplementedError(
        absl::StrCat("power retention of degree 4 on the GPU: open rows with head_dim ", shape.head_dim));
  }
  plan.open_rows_ = open_rows;

  std::vector<ChunkEntry> chunks;
  std::vector<BlockEntry> blocks;
  std::vector<int> first_chunks;
  for (size_t sequence = 0; sequence + 1 < cu_seqlens.size(); ++sequence) {
    const int64_t begin = cu_seqlens[sequence], end = cu_seqlens[sequence + 1];
    first_chunks.push_back(static_cast<int>(chunks.size()));
    const int64_t open = std::max(begin, end - open_rows);  // its first open row
    for (int64_t row = begin; row < end;) {
      const int num_rows = static_cast<int>(std::min(C, (row < open ? open : end) - row));
      for (int first = 0; first < num_rows; first += kBlockRows)
        blocks.push_back({static_cast<int>(chunks.size()), first});
      const int index = static_cast<int>(chunks.size()) - first_chunks.back();
      chunks.push_back({row, num_rows, static_cast<int>(sequence), index, row + num_rows >= end});
      row += num_rows;
    }
    if (static_cast<int>(chunks.size()) - first_chunks.back() > 1) plan.has_long_sequence_ = true;
  }
  first_chunks.push_back(static_cast<int>(chunks.size()));
  plan.num_rows_ = cu_seqlens.back();
  plan.num_sequences_ = static_cast<int>(cu_seqlens.size()) - 1;
  plan.num_chunks_ = static_cast<int>(chunks.size());
  plan.num_blocks_ = static_cast<int>(blocks.size());
  constexpr int kMaxGrid = 65535;  // chunks are a grid's last dimension
  if (plan.num_chunks_ > kMaxGrid) {
    return absl::InvalidArgumentError(absl::StrCat("chunk ", C, ": makes ", plan.num_chunks_, " chunks of ",
                                                   plan.num_rows_, " rows; ", kMaxGrid, " is the most"));
  }

  plan.block_table_offset_ = chunks.size() * sizeof(ChunkEntry);
  plan.sequence_table_offset_ = plan.block_table_offset_ + blocks.size() * sizeof(BlockEntry);
  const size_t bytes = plan.sequence_table_offset_ + first_chunks.size() * sizeof(int);
  if (absl::Status status = plan.tables_.Allocate(bytes); !status.ok()) return status;
  const auto upload = [&](const auto& table, size_t offset) {
    return plan.tables_.Upload(table.data(), table.size() * sizeof(table[0]), offset);
  };
  if (absl::Status status = upload(chunks, 0); !status.ok()) return status;
  if (absl::Status status = upload(blocks, plan.block_table_offset_); !status.ok()) return status;
  if (absl::Status status = upload(first_chunks, plan.sequence_table_offset_); !status.ok()) return status;
  plan.workspace_bytes_ = ForwardWorkspace(plan).bytes;
  return plan;
}

}  // namespace statehouse::kernels
