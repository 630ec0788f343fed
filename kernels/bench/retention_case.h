// One measurement of power retention, on whatever device: what to run, what the task needs, and what came out.
//
// Shared by `statehouse bench kernels` and the benchmarks of tests/bench, so that both count and check alike.
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace statehouse::kernels::bench {

enum class Pass { kForward, kBackward, kForwardBackward, kDecode };
const char* PassName(Pass pass);  // "fwd", "bwd", "fwd+bwd", "decode"

enum class Number { kBf16, kFp16, kFloat32, kInt8 };
const char* NumberName(Number number);  // "bf16", "fp16", "float32", "int8"

// Gated (random log gates of -0.001 … 0), degree 2, random normal Q, K, V.
struct RetentionCase {
  Pass pass = Pass::kForward;
  int64_t batch = 1;      // sequences
  int64_t length = 4096;  // rows of each; for decode, tokens that each holds, the new one included
  int heads_q = 8, heads_kv = 8, head_dim = 64;
  int64_t chunk = 0;  // rows; 0: the device's own choice
  Number dtype = Number::kBf16;
  Number state_dtype = Number::kFloat32;  // of decode; kInt8 on the GPU alone
  // Of the GPU alone:
  bool only_sm80 = false;     // instructions that every GPU has
  int layers = 1;             // decode: calls captured in one graph, each on slots of its own
  int splits = 0;             // decode: 0: chosen
  bool keeps_states = false;  // gradients: the forward pass leaves its chunk states to the backward pass
  bool is_settled = true;     // decode: CudaRetentionDecodeArgs::is_settled
};

// INVALID_ARGUMENT names what is not positive or does not divide.
absl::Status CheckCase(const RetentionCase& it);
// INVALID_ARGUMENT if its rows are too many to be held: all but decode on a GPU, which holds states, keeps every row.
absl::Status CheckRows(const RetentionCase& it);
std::string ShapeName(const RetentionCase& it);  // "b1 t65536 Hq8 Hk8 d64 C1024 bf16"

// Rows of a decoding sequence's tail when it holds `length` tokens and chunks have `chunk` rows; the state covers the
// rest.
constexpr int64_t TailRows(int64_t length, int64_t chunk) {
  return length < 2 * chunk ? length : chunk + length % chunk;
}

// What the task needs, not what kernels do: nothing is computed or read twice, pairs up to the diagonal, D = d(d+1)/2,
// and of the forms that the definition allows (chunks of `chunk` as resolved or longer, up to one that needs no state)
// the cheapest.
double NeededFlops(const RetentionCase& it, int64_t chunk);
double NeededBytes(const RetentionCase& it, int64_t chunk);

struct Figure {
  int64_t chunk = 0;           // resolved
  double error = 0;            // relative, of sampled rows against the definition in double; NaN never gets here
  double median = 0, min = 0;  // seconds of one call (of one layer, where several are in a graph)
  int64_t runs = 0;
};

struct Ceilings {
  std::string device;      // "NVIDIA H100 80GB HBM3", or the processor
  double bytes_per_s = 0;  // GPU: a large copy, read plus written; CPU: reading
  double flops_per_s = 0;  // GPU: cuBLAS, bf16; CPU: fused multiply-adds in registers. 0: not measured
};

// Host copies of a case's inputs as the kernels see them (rounded to the type): sequence after sequence.
struct HostInputs {
  std::vector<float> Q;      // [batch * length, Hq, d]
  std::vector<float> K, V;   // [batch * length, Hk, d]
  std::vector<float> log_G;  // [batch * length, Hk]
};

// Relative error of some rows of y [batch * length, Hq, d], each summed over all its keys in double. `rows`: how many
// are drawn, the last row of a sequence among them.
double ForwardError(const RetentionCase& it, const HostInputs& in, const std::vector<float>& y, int rows);

// What the backward pass left, on the host.
struct HostGradients {
  std::vector<float> dY, y, denominator;  // its inputs: [.., Hq, d], [.., Hq, d], [.., Hq]
  std::vector<float> dQ, dK, dV;          // dlog_G is checked by the tests alone
};
// The largest relative error of some rows of dQ, dK and dV.
double GradientError(const RetentionCase& it, const HostInputs& in, const HostGradients& gradients, int rows);

// What an error may be for a result to be timed.
double MostError(const RetentionCase& it);

}  // namespace statehouse::kernels::bench
