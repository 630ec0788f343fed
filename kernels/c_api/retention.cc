#include "kernels/c_api/retention.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward.h"
#include "kernels/power_retention/cuda/retention.h"

namespace kernels = statehouse::kernels;

struct StatehouseRetentionPlan {
  int device = 0;
  kernels::CudaRetentionPlan plan;
};

namespace {

int Return(const absl::Status& status, StatehouseMessage message) {
  if (message.text != nullptr && message.size > 0) {
    const std::string text(status.message());
    std::snprintf(message.text, message.size, "%s", text.c_str());
  }
  return static_cast<int>(status.code());
}

// Makes a device current for as long as it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    status_ = kernels::CudaStatus(cudaGetDevice(&before_), "cudaGetDevice");
    if (status_.ok() && before_ != device) {
      status_ = kernels::CudaStatus(cudaSetDevice(device), "cudaSetDevice");
      is_changed_ = status_.ok();
    }
  }
  ~CurrentDevice() {
    if (is_changed_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
  int before_ = 0;
  bool is_changed_ = false;
};

template <typename Struct>
absl::Status CheckStruct(const Struct* given, const char* name) {
  if (given == nullptr) return absl::InvalidArgumentError(absl::StrCat(name, " is null"));
  if (given->size == sizeof(Struct)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ".size is ", given->size, ", and this library's is ",
                                                 sizeof(Struct), ": the caller was built for another version"));
}

absl::StatusOr<kernels::CudaRetentionShape> ToShape(const StatehouseRetentionShape* given) {
  if (absl::Status status = CheckStruct(given, "shape"); !status.ok()) return status;
  kernels::CudaRetentionShape out = {.heads_q = given->heads_q,
                                     .heads_kv = given->heads_kv,
                                     .head_dim = given->head_dim,
                                     .degree = given->degree,
                                     .scale = given->scale,
                                     .chunk = given->chunk};
  switch (given->dtype) {
    case STATEHOUSE_BF16:
      out.dtype = kernels::RetentionDtype::kBf16;
      return out;
    case STATEHOUSE_FP16:
      out.dtype = kernels::RetentionDtype::kFp16;
      return out;
    case STATEHOUSE_FLOAT32:
      out.dtype = kernels::RetentionDtype::kFloat32;
      return out;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", given->dtype, ": must be 0 (bf16), 1 (fp16) or 2 (float32)"));
  }
}

kernels::CudaRetentionForwardArgs ToArgs(const StatehouseRetentionForwardArgs& args) {
  return {.Q = args.Q,
          .K = args.K,
          .V = args.V,
          .log_G = args.log_G,
          .y = args.y,
          .denominator = args.denominator,
          .initial_state = args.initial_state,
          .initial_normalizer = args.initial_normalizer,
          .final_state = args.final_state,
          .final_normalizer = args.final_normalizer,
          .workspace = args.workspace,
          .saved = args.saved};
}

kernels::CudaRetentionBackwardArgs ToArgs(const StatehouseRetentionBackwardArgs& args) {
  return {.Q = args.Q,
          .K = args.K,
          .V = args.V,
          .log_G = args.log_G,
          .y = args.y,
          .denominator = args.denominator,
          .dY = args.dY,
          .initial_state = args.initial_state,
          .initial_normalizer = args.initial_normalizer,
          .dfinal_state = args.dfinal_state,
          .dfinal_normalizer = args.dfinal_normalizer,
          .dQ = args.dQ,
          .dK = args.dK,
          .dV = args.dV,
          .dlog_G = args.dlog_G,
          .dinitial_state = args.dinitial_state,
          .dinitial_normalizer = args.dinitial_normalizer,
          .workspace = args.workspace,
          .saved = args.saved};
}

// Checks what every call on a plan needs, makes its device current and runs `queue`.
template <typename Args, typename Queue>
int Call(const StatehouseRetentionPlan* plan, const Args* args, StatehouseMessage message, Queue queue) {
  if (plan == nullptr) return Return(absl::InvalidArgumentError("plan is null"), message);
  if (absl::Status status = CheckStruct(args, "args"); !status.ok()) return Return(status, message);
  CurrentDevice device(plan->device);
  if (!device.status().ok()) return Return(device.status(), message);
  return Return(queue(plan->plan, ToArgs(*args)), message);
}

bool IsHeadDim(int32_t head_dim) { return head_dim > 0 && head_dim <= 256 && head_dim % 8 == 0; }

}  // namespace

int64_t statehouse_retention_state_rows(int32_t head_dim) {
  return IsHeadDim(head_dim) ? kernels::RetentionStateRows(head_dim) : 0;
}

int64_t statehouse_retention_state_row(int32_t i, int32_t j, int32_t head_dim) {
  if (!IsHeadDim(head_dim) || i < 0 || j < 0 || i >= head_dim || j >= head_dim || i / 8 > j / 8) return -1;
  return kernels::RetentionStateRow(i, j, head_dim);
}

int statehouse_retention_check_backward(const StatehouseRetentionShape* shape, StatehouseMessage message) {
  const absl::StatusOr<kernels::CudaRetentionShape> resolved = ToShape(shape);
  return Return(resolved.ok() ? kernels::CheckRetentionBackwardShape(*resolved) : resolved.status(), message);
}

int64_t statehouse_retention_backward_chunk(const StatehouseRetentionShape* shape, int64_t longest) {
  const absl::StatusOr<kernels::CudaRetentionShape> resolved = ToShape(shape);
  return resolved.ok() ? kernels::RetentionBackwardChunk(*resolved, longest) : 0;
}

int statehouse_retention_plan_make(const StatehouseRetentionShape* shape, const int64_t* cu_seqlens,
                                   int64_t num_sequences, StatehouseRetentionPlan** plan, StatehouseMessage message) {
  if (plan == nullptr) return Return(absl::InvalidArgumentError("plan is null"), message);
  *plan = nullptr;
  if (cu_seqlens == nullptr || num_sequences < 1)
    return Return(absl::InvalidArgumentError("cu_seqlens is null or num_sequences is below 1"), message);
  const absl::StatusOr<kernels::CudaRetentionShape> resolved = ToShape(shape);
  if (!resolved.ok()) return Return(resolved.status(), message);
  CurrentDevice device(shape->device);
  if (!device.status().ok()) return Return(device.status(), message);
  try {  // the tables of a plan grow with the number of chunks, and C has no exceptions
    absl::StatusOr<kernels::CudaRetentionPlan> made =
        kernels::CudaRetentionPlan::Make(*resolved, std::span(cu_seqlens, static_cast<size_t>(num_sequences) + 1));
    if (!made.ok()) return Return(made.status(), message);
    *plan = new StatehouseRetentionPlan{shape->device, *std::move(made)};
  } catch (const std::bad_alloc&) {
    return Return(absl::ResourceExhaustedError("no host memory for the plan"), message);
  }
  return Return(absl::OkStatus(), message);
}

void statehouse_retention_plan_free(StatehouseRetentionPlan* plan) { delete plan; }

size_t statehouse_retention_forward_workspace(const StatehouseRetentionPlan* plan) {
  return plan == nullptr ? 0 : plan->plan.workspace_bytes();
}

size_t statehouse_retention_backward_workspace(const StatehouseRetentionPlan* plan, int has_states) {
  return plan == nullptr ? 0 : kernels::CudaRetentionBackwardWorkspace(plan->plan, has_states != 0);
}

size_t statehouse_retention_saved_bytes(const StatehouseRetentionPlan* plan) {
  return plan == nullptr ? 0 : kernels::CudaRetentionSavedBytes(plan->plan);
}

int statehouse_retention_forward(const StatehouseRetentionPlan* plan, const StatehouseRetentionForwardArgs* args,
                                 void* stream, StatehouseMessage message) {
  return Call(plan, args, message, [&](const kernels::CudaRetentionPlan& it, const auto& call_args) {
    return kernels::CudaRetentionForward(it, call_args, static_cast<cudaStream_t>(stream));
  });
}

int statehouse_retention_backward(const StatehouseRetentionPlan* plan, const StatehouseRetentionBackwardArgs* args,
                                  void* stream, StatehouseMessage message) {
  return Call(plan, args, message, [&](const kernels::CudaRetentionPlan& it, const auto& call_args) {
    return kernels::CudaRetentionBackward(it, call_args, static_cast<cudaStream_t>(stream));
  });
}
