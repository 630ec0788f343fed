// Power retention on the GPU through a C interface: what the shared library libstatehouse_retention exports, for
// programs that cannot use the C++ headers (clients/python/power_retention loads it with ctypes).
//
// It is kernels/power_retention/cuda/{retention,backward}.h in C: the same shapes, layouts and errors. A function that
// can fail returns 0 or a StatehouseCode and writes a message; nothing throws and nothing ends the process. Every
// struct begins with its own size, so that a caller built against another version is refused and not misread.
// Thread-safety: a plan is immutable; calls that share a workspace must be in one stream.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STATEHOUSE_API __attribute__((visibility("default")))

// The numbers of gRPC and absl::StatusCode.
enum StatehouseCode {
  STATEHOUSE_OK = 0,
  STATEHOUSE_INVALID_ARGUMENT = 3,
  STATEHOUSE_RESOURCE_EXHAUSTED = 8,
  STATEHOUSE_FAILED_PRECONDITION = 9,  // no GPU or no driver
  STATEHOUSE_UNIMPLEMENTED = 12,       // the message names what there is no kernel for
  STATEHOUSE_INTERNAL = 13             // a CUDA call failed; the message names it
};

enum StatehouseDtype { STATEHOUSE_BF16 = 0, STATEHOUSE_FP16 = 1, STATEHOUSE_FLOAT32 = 2 };

// Where a message goes: a string of at most `size` bytes, the closing 0 included. May be null.
struct StatehouseMessage {
  char* text;
  size_t size;
};

struct StatehouseRetentionShape {
  size_t size;  // sizeof(struct StatehouseRetentionShape)
  int32_t device;
  int32_t dtype;  // StatehouseDtype, of Q, K, V, y and their gradients
  int32_t heads_q;
  int32_t heads_kv;
  int32_t head_dim;
  int32_t degree;  // 2, or 4 without states
  float scale;     // 0: 1/sqrt(head_dim)
  int32_t chunk;   // 0: what was measured to be fastest
};

// Device memory; members as in CudaRetentionForwardArgs.
struct StatehouseRetentionForwardArgs {
  size_t size;
  const void* Q;
  const void* K;
  const void* V;
  const float* log_G;
  void* y;
  float* denominator;
  const float* initial_state;
  const float* initial_normalizer;
  float* final_state;
  float* final_normalizer;
  void* workspace;
  void* saved;  // statehouse_retention_saved_bytes(), for the backward pass; may be null
};

// Device memory; members as in CudaRetentionBackwardArgs.
struct StatehouseRetentionBackwardArgs {
  size_t size;
  const void* Q;
  const void* K;
  const void* V;
  const float* log_G;
  const void* y;
  const float* denominator;
  const void* dY;
  const float* initial_state;
  const float* initial_normalizer;
  const float* dfinal_state;
  const float* dfinal_normalizer;
  void* dQ;
  void* dK;
  void* dV;
  float* dlog_G;
  float* dinitial_state;
  float* dinitial_normalizer;
  void* workspace;
  const void* saved;  // what the forward pass left with the same plan; null: computed again
};

struct StatehouseRetentionPlan;

// P, the rows of one head's state on the device, and the row of the pair (i, j); 0 and -1 for a head_dim that 8 does
// not divide or a pair that is not there.
STATEHOUSE_API int64_t statehouse_retention_state_rows(int32_t head_dim);
STATEHOUSE_API int64_t statehouse_retention_state_row(int32_t i, int32_t j, int32_t head_dim);

// Is there a backward pass for this shape?
STATEHOUSE_API int statehouse_retention_check_backward(const struct StatehouseRetentionShape* shape,
                                                       struct StatehouseMessage message);
// The chunk length that suits a backward pass over sequences of up to `longest` rows; 0 for a struct or dtype that is
// refused.
STATEHOUSE_API int64_t statehouse_retention_backward_chunk(const struct StatehouseRetentionShape* shape,
                                                           int64_t longest);

// cu_seqlens: num_sequences + 1 first rows. Allocates a little device memory and waits. The plan is the caller's, until
// statehouse_retention_plan_free(), which may be given null.
STATEHOUSE_API int statehouse_retention_plan_make(const struct StatehouseRetentionShape* shape,
                                                  const int64_t* cu_seqlens, int64_t num_sequences,
                                                  struct StatehouseRetentionPlan** plan,
                                                  struct StatehouseMessage message);
STATEHOUSE_API void statehouse_retention_plan_free(struct StatehouseRetentionPlan* plan);

// Bytes of a call's workspace. has_states: one of the backward pass's six pointers to states is not null.
STATEHOUSE_API size_t statehouse_retention_forward_workspace(const struct StatehouseRetentionPlan* plan);
STATEHOUSE_API size_t statehouse_retention_backward_workspace(const struct StatehouseRetentionPlan* plan,
                                                              int has_states);

// Bytes of what a forward pass can leave for a backward pass with the same plan.
STATEHOUSE_API size_t statehouse_retention_saved_bytes(const struct StatehouseRetentionPlan* plan);

// Queue the kernels on `stream`, a cudaStream_t of the plan's device, and return. The caller's current device stays
// what it was.
STATEHOUSE_API int statehouse_retention_forward(const struct StatehouseRetentionPlan* plan,
                                                const struct StatehouseRetentionForwardArgs* args, void* stream,
                                                struct StatehouseMessage message);
STATEHOUSE_API int statehouse_retention_backward(const struct StatehouseRetentionPlan* plan,
                                                 const struct StatehouseRetentionBackwardArgs* args, void* stream,
                                                 struct StatehouseMessage message);

#ifdef __cplusplus
}
#endif
