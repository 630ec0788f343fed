// Power retention on the CPU: y[t] = Σ_j (σ q[t]·k[j])^p e^{G[t]-G[j]} v[j] / Σ_j (same weight), one call per layer and
// step.
//
// Rows are appended to each sequence's tail, full chunks are folded into its state on the way, and every row is
// answered from state and tail with one shared normalisation. Decode (1 row) and prefill (many) are the same call and
// give the same bits, however rows are cut into calls. Source: Gelada et al., arXiv 2507.04239; definition in
// docs/retention.md. Thread-safety: calls on one pool must not overlap. Never allocates: scratch comes from
// RetentionScratch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

// The rows of one sequence in one call. Pointers address row 0 of the sequence's rows within step-wide arrays.
struct RetentionRows {
  const float* q = nullptr;      // [num_rows, Hq, d], after norm and RoPE
  const float* k = nullptr;      // [num_rows, Hk, d], after norm and RoPE
  const float* v = nullptr;      // [num_rows, Hk, d]
  const float* log_g = nullptr;  // [num_rows, Hk], <= 0 (below -200 counts as -200); null: no gates (all 0)
  float* y = nullptr;            // [num_rows, Hq, d]
  float* memory = nullptr;  // the sequence's memory of this layer: layout.layer_floats(), zero before its first row
  int64_t position = 0;     // absolute position of the first row = tokens held so far
  int64_t num_rows = 0;     // >= 1
};

// Per-thread and per-call working memory, made once for the largest call.
class RetentionScratch {
 public:
  // max_rows: the most rows (all sequences together) of one call. RESOURCE_EXHAUSTED if memory is short.
  absl::Status Reserve(const RetentionLayout& layout, int64_t max_rows, int num_threads);
  int64_t bytes() const;

  // What a call works on; for the functions below only.
  struct Segment {  // one sequence's rows within one chunk
    const RetentionRows* rows = nullptr;
    int64_t first_row = 0;
    int64_t num_rows = 0;
    int64_t first_task = 0;  // of the query tasks
  };
  std::vector<Segment>& segments() { return segments_; }
  float* worker(int worker_idx) { return buffer_.as<float>() + worker_idx * worker_floats_; }
  float* staging() { return staging_.as<float>(); }  // one head's rows form

 private:
  AlignedBuffer buffer_;
  AlignedBuffer staging_;
  int64_t worker_floats_ = 0;
  std::vector<Segment> segments_;
};

// Appends, folds and answers the rows of several sequences (all distinct). Within one call a sequence's rows must not
// reach across the switch-over: position < switch_over implies position + num_rows <= switch_over; and a sequence at or
// past the switch-over must have had SwitchOver() run on every head. REQUIRES: both (the engine plans steps so).
//
// Rows may be taken back by calling with a smaller position: to any position from the tail's start on, so at least the
// last C rows always, also across the switch-over. What the memory held beyond is never read. Rows computed after that
// are right; their bits are those of an uninterrupted run unless a fold lies between (the state then covers more of
// what the tail would hold).
void PowerRetention(const RetentionLayout& layout, std::span<const RetentionRows> sequences, RetentionScratch& scratch,
                    ThreadPool& pool);

// Turns one head's rows form into state form at position == switch_over (> 0): stages the rows in scratch, folds all
// chunks but the last, keeps the last C rows as tail. One call is one slice of the work; the engine spreads the heads
// over steps. Does nothing if the head is in state form already (rows were taken back and the switch-over was reached
// again).
void SwitchOver(const RetentionLayout& layout, float* layer_memory, int head, RetentionScratch& scratch,
                ThreadPool& pool);
// Floating-point operations of one such slice, for the step's budget.
double SwitchOverFlops(const RetentionLayout& layout);

// The slow twin in double, straight from the definition (quadratic form): no memory, no chunks.
// Q [t, Hq, d], K V [t, Hk, d], log_G [t, Hk] or null, Y [t, Hq, d], one sequence.
struct RetentionRefArgs {
  const float* Q = nullptr;
  const float* K = nullptr;
  const float* V = nullptr;
  const float* log_G = nullptr;
  double* Y = nullptr;
  int64_t t = 0;
  int heads_q = 0;
  int heads_kv = 0;
  int head_dim = 0;
  int degree = 2;
  double scale = 0;
};
void PowerRetentionQuadraticRef(const RetentionRefArgs& args);
// The same through S and z, one token at a time, in double.
void PowerRetentionRecurrentRef(const RetentionRefArgs& args);

}  // namespace statehouse::kernels
