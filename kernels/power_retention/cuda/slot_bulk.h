// Many rows of one sequence at once, for prompts of models in bf16: the forward pass of retention.h on packed rows,
// with the slot's state before them and after them. What a slot holds afterwards is what rows one chunk at a time
// leave, but for the order of summation.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/slot_retention.h"

namespace statehouse::kernels {

struct SlotKernelArgs;

class SlotBulkForward {
 public:
  static constexpr int64_t kChunk = 1024;  // the forward pass's

  explicit SlotBulkForward(const RetentionLayout& layout) : layout_(layout) {}

  // Room for so many new rows of one sequence in a step. UNIMPLEMENTED where this build has no forward pass for the
  // shape.
  absl::Status Reserve(int64_t max_rows);
  // What Reserve() will take, a little more than less.
  static int64_t BytesFor(const RetentionLayout& layout, int64_t max_rows);
  int64_t bytes() const { return static_cast<int64_t>(rows_.bytes() + workspace_.bytes()); }

  // Queues one layer; the first of a new (rows, open rows) makes a plan, which allocates a little. `args` names rows,
  // layer, tables; its segments are the plan's first.
  absl::Status Run(const SlotBulk& bulk, const SlotKernelArgs& args, cudaStream_t stream);

 private:
  struct Buffers {
    void *Q, *K, *V, *y;
    float *log_G, *S, *z;
    size_t bytes;
  };
  static Buffers Place(const RetentionLayout& layout, int64_t rows, char* base);
  absl::StatusOr<const CudaRetentionPlan*> PlanOf(int64_t rows, int64_t open_rows);

  RetentionLayout layout_;
  int64_t max_rows_ = 0;  // with a tail before them
  DeviceBuffer rows_;     // Q, K, V, y, log_G; S and z
  DeviceBuffer workspace_;
  std::map<std::pair<int64_t, int64_t>, CudaRetentionPlan> plans_;  // by rows and open rows
};

}  // namespace statehouse::kernels
