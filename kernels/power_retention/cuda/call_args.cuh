// What the kernels of a forward pass are given, from what the caller gave: the same where a backward pass computes the
// states before chunks again.
#pragma once

#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

// Call: CudaRetentionForwardArgs or CudaRetentionBackwardArgs; Parts: the workspace of that. What only one of them has
// is left null.
template <typename T, typename Call, typename Parts>
RetentionArgs<T> RetentionArgsOf(const CudaRetentionPlan& plan, const Call& call, const Parts& parts) {
  char* const workspace = static_cast<char*>(call.workspace);
  RetentionArgs<T> out = {};
  out.chunks = static_cast<const ChunkEntry*>(plan.chunk_table());
  out.blocks = static_cast<const BlockEntry*>(plan.block_table());
  out.first_chunks = plan.sequence_table();
  out.num_chunks = plan.num_chunks();
  out.num_blocks = plan.num_blocks();
  out.num_sequences = plan.num_sequences();
  out.heads_q = plan.shape().heads_q;
  out.heads_kv = plan.shape().heads_kv;
  out.chunk_rows = parts.chunk_rows;
  out.scale_squared = plan.shape().scale * plan.shape().scale;
  out.degree = plan.shape().degree;
  out.fold_heads = 1;
  out.folds_first = true;
  out.Q = static_cast<const T*>(call.Q);
  out.K = static_cast<const T*>(call.K);
  out.V = static_cast<const T*>(call.V);
  out.log_G = call.log_G;
  out.initial_state = call.initial_state;
  out.initial_normalizer = call.initial_normalizer;
  out.sums = reinterpret_cast<float2*>(workspace + parts.sums);
  out.key_factors = reinterpret_cast<float*>(workspace + parts.key_factors);
  out.decay = reinterpret_cast<float*>(workspace + parts.decay);
  out.keys = reinterpret_cast<T*>(workspace + parts.keys);
  out.values = reinterpret_cast<T*>(workspace + parts.values);
  out.local = reinterpret_cast<float*>(workspace + parts.local);
  out.local_z = reinterpret_cast<float*>(workspace + parts.local_z);
  out.prefix = reinterpret_cast<PrefixElement<T>*>(workspace + parts.prefix);
  out.prefix_z = reinterpret_cast<float*>(workspace + parts.prefix_z);
  return out;
}

}  // namespace statehouse::kernels
