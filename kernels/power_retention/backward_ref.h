// Power retention in double, forward and backward, from and to a state: what the gradients of every other
// implementation are held against. Plain loops, any even degree, one sequence; slow, and part of no product path.
//
// States are canonical: S [Hk, D, d] and z [Hk, D] hold, per monomial of k, its sum times how often it occurs
// (docs/retention.md). A gradient has the layout of what it belongs to. Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

namespace statehouse::kernels {

// REQUIRES: sizes as written, heads_q a multiple of heads_kv, degree even.
struct RetentionDoubles {
  int64_t t = 0;
  int heads_q = 0;
  int heads_kv = 0;
  int head_dim = 0;
  int degree = 2;
  double scale = 0;                // sigma
  std::vector<double> Q = {};      // [t, Hq, d]
  std::vector<double> K = {};      // [t, Hk, d]
  std::vector<double> V = {};      // [t, Hk, d]
  std::vector<double> log_G = {};  // [t, Hk]; empty: no gates
  std::vector<double> S = {};      // [Hk, D, d], the initial state; empty: zero
  std::vector<double> z = {};      // [Hk, D]; empty exactly if S is
};

struct RetentionDoubleOutputs {
  std::vector<double> y = {};            // [t, Hq, d]
  std::vector<double> denominator = {};  // [t, Hq]
  std::vector<double> S, z;              // after the last row
};

// Rows are sums over pairs, plus what the initial state answers; S and z follow token by token.
RetentionDoubleOutputs PowerRetentionForwardRef(const RetentionDoubles& inputs);

struct RetentionGradients {
  std::vector<double> dQ, dK, dV;
  std::vector<double> dlog_G = {};  // [t, Hk], also where there are no gates: what they would have at 0
  std::vector<double> dS, dz;       // by the initial state, also where it is zero
};

// What Σ dY·y + Σ dS_final·S + Σ dz_final·z has for derivatives, over pairs of rows. dS_final and dz_final may be
// empty: zero. A row whose denominator is 0 has y = 0 and passes nothing back.
RetentionGradients PowerRetentionBackwardRef(const RetentionDoubles& inputs, const std::vector<double>& dY,
                                             const std::vector<double>& dS_final, const std::vector<double>& dz_final);

}  // namespace statehouse::kernels
