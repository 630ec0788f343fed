#include "kernels/power_retention/cuda/slot_bulk.h"

#include <algorithm>
#include <array>

#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/slot_args.cuh"
#include "kernels/power_retention/cuda/slot_bulk_args.h"

namespace statehouse::kernels {
namespace {

constexpr size_t kMostPlans = 64;  // kept; beyond that all are made anew

// Rows of a slot that may go through the forward pass again: its tail.
int64_t MostOldRows(const RetentionLayout& layout) {
  return std::max(2 * layout.shape().chunk, layout.shape().switch_over);
}

CudaRetentionShape ForwardShape(const RetentionLayout& layout) {
  const RetentionShape& shape = layout.shape();
  return {.heads_q = shape.heads_q, .heads_kv = shape.heads_kv, .head_dim = shape.head_dim, .scale = shape.scale};
}

}  // namespace

SlotBulkForward::Buffers SlotBulkForward::Place(const RetentionLayout& layout, int64_t rows, char* base) {
  const RetentionShape& shape = layout.shape();
  const int64_t q = int64_t{shape.heads_q} * shape.head_dim, kv = int64_t{shape.heads_kv} * shape.head_dim;
  const int64_t state = shape.heads_kv * RetentionStateRows(shape.head_dim);
  Buffers placed = {};
  const auto take = [&](int64_t bytes) {
    char* const at = base + placed.bytes;
    placed.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  placed.Q = take(rows * q * 2);
  placed.K = take(rows * kv * 2);
  placed.V = take(rows * kv * 2);
  placed.y = take(rows * q * 2);
  placed.log_G = reinterpret_cast<float*>(take(rows * shape.heads_kv * 4));
  placed.S = reinterpret_cast<float*>(take(state * shape.head_dim * 4));
  placed.z = reinterpret_cast<float*>(take(state * 4));
  return placed;
}

int64_t SlotBulkForward::BytesFor(const RetentionLayout& layout, int64_t max_rows) {
  const RetentionShape& shape = layout.shape();
  const int64_t rows = max_rows + MostOldRows(layout), chunks = rows / kChunk + 3, d = shape.head_dim;
  const int64_t per_chunk = kChunk * (4 * d + 16) + RetentionStateRows(shape.head_dim) * (6 * d + 8);
  return static_cast<int64_t>(Place(layout, rows, nullptr).bytes) + chunks * shape.heads_kv * per_chunk;
}

absl::Status SlotBulkForward::Reserve(int64_t max_rows) {
  const int64_t chunk = layout_.shape().chunk, rows = max_rows + MostOldRows(layout_);
  if (rows <= max_rows_) return absl::OkStatus();
  plans_.clear();
  const auto plan = PlanOf(rows, 2 * chunk);
  if (!plan.ok()) return plan.status();
  // One chunk more than the longest has: another cut of fewer rows may have one.
  const size_t per_chunk = (*plan)->workspace_bytes() / (*plan)->num_chunks() + 4096;
  for (const absl::Status& status : {rows_.Allocate(Place(layout_, rows, nullptr).bytes),
                                     workspace_.Allocate((*plan)->workspace_bytes() + per_chunk)}) {
    if (!status.ok()) return status;
  }
  max_rows_ = rows;
  return absl::OkStatus();
}

absl::StatusOr<const CudaRetentionPlan*> SlotBulkForward::PlanOf(int64_t rows, int64_t open_rows) {
  if (plans_.size() >= kMostPlans) plans_.clear();
  const auto found = plans_.find({rows, open_rows});
  if (found != plans_.end()) return &found->second;
  auto plan = CudaRetentionPlan::Make(ForwardShape(layout_), std::array<int64_t, 2>{0, rows}, open_rows);
  if (!plan.ok()) return plan.status();
  return &plans_.emplace(std::pair(rows, open_rows), *std::move(plan)).first->second;
}

absl::Status SlotBulkForward::Run(const SlotBulk& bulk, const SlotKernelArgs& args, cudaStream_t stream) {
  const RetentionShape& shape = layout_.shape();
  const int64_t before = bulk.rows.position - bulk.first_position, rows = before + bulk.rows.num_rows;
  if (rows > max_rows_) return absl::InternalError("power retention: more rows of a sequence than were reserved");
  const auto plan = PlanOf(rows, bulk.open_rows);
  if (!plan.ok()) return plan.status();
  if ((*plan)->workspace_bytes() > workspace_.bytes()) {
    return absl::InternalError("power retention: the forward pass's working memory is too small");
  }
  const Buffers at = Place(layout_, max_rows_, rows_.as<char>());
  const SlotBulkArgs bulk_args = {.slot = args,
                                  .memory = bulk.rows.memory,
                                  .first_row = bulk.rows.first_row,
                                  .first_position = bulk.first_position,
                                  .before = static_cast<int32_t>(before),
                                  .rows = static_cast<int32_t>(rows),
                                  .folded_after = (bulk.first_position + rows - bulk.open_rows) / shape.chunk,
                                  .Q = at.Q,
                                  .K = at.K,
                                  .V = at.V,
                                  .log_G = at.log_G,
                                  .S = at.S,
                                  .z = at.z};
  if (absl::Status status = LaunchSlotPack(bulk_args, shape.head_dim, bulk.holds_state, stream); !status.ok()) {
    return status;
  }
  const CudaRetentionForwardArgs forward = {.Q = at.Q,
                                            .K = at.K,
                                            .V = at.V,
                                            .log_G = at.log_G,
                                            .y = at.y,
                                            .initial_state = bulk.holds_state ? at.S : nullptr,
                                            .initial_normalizer = bulk.holds_state ? at.z : nullptr,
                                            .final_state = bulk.holds_state ? at.S : nullptr,
                                            .final_normalizer = bulk.holds_state ? at.z : nullptr,
                                            .workspace = workspace_.as<void>()};
  if (absl::Status status = CudaRetentionForward(**plan, forward, stream); !status.ok()) return status;
  if (bulk.holds_state) {
    if (absl::Status status = LaunchSlotUnpackState(bulk_args, shape.head_dim, stream); !status.ok()) return status;
  }
  SlotKernelArgs tail = args;
  tail.segments += bulk.first_segment;
  if (absl::Status status = LaunchSlotAppend(tail, shape.head_dim, bulk.num_segments, /*overlaps=*/true, stream);
      !status.ok()) {
    return status;
  }
  const int64_t row_bytes = int64_t{shape.heads_q} * shape.head_dim * 2;
  return CudaStatus(cudaMemcpyAsync(static_cast<char*>(args.y) + bulk.rows.first_row * row_bytes,
                                    static_cast<const char*>(at.y) + before * row_bytes, bulk.rows.num_rows * row_bytes,
                                    cudaMemcpyDeviceToDevice, stream),
                    "copy of a prompt's answers");
}

}  // namespace statehouse::kernels
