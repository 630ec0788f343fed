#include "kernels/bench/retention_case.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace statehouse::kernels::bench {
namespace {

double Width(Number number) { return number == Number::kFloat32 ? 4 : number == Number::kInt8 ? 1 : 2; }
double Expanded(const RetentionCase& it) { return it.head_dim * (it.head_dim + 1) / 2.0; }

// A sequence in chunks: rows beyond the first query a state, all but the last chunk's are folded into one, and pairs
// count up to the diagonal of their chunk (two products of d each, forward).
double ChunkedFlops(const RetentionCase& it, int64_t chunk) {
  const double D = Expanded(it), d = it.head_dim, length = static_cast<double>(it.length);
  const double querying = static_cast<double>(std::max<int64_t>(0, it.length - chunk));
  const double folded = static_cast<double>((it.length - 1) / chunk * chunk);
  const double states = 2 * D * (d + 1) * (querying * it.heads_q + folded * it.heads_kv);
  const double pairs = length * 2 * static_cast<double>(std::min(chunk, it.length)) / 2 * d * it.heads_q;
  const double times_states = it.pass == Pass::kForward ? 1 : it.pass == Pass::kBackward ? 2 : 3;
  const double times_pairs = it.pass == Pass::kForward ? 2 : it.pass == Pass::kBackward ? 5 : 7;
  return times_states * states + times_pairs * pairs;
}

}  // namespace

const char* PassName(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "fwd";
    case Pass::kBackward:
      return "bwd";
    case Pass::kForwardBackward:
      return "fwd+bwd";
    case Pass::kDecode:
      return "decode";
  }
  return "unknown";
}

const char* NumberName(Number number) {
  switch (number) {
    case Number::kBf16:
      return "bf16";
    case Number::kFp16:
      return "fp16";
    case Number::kFloat32:
      return "float32";
    case Number::kInt8:
      return "int8";
  }
  return "unknown";
}

absl::Status CheckCase(const RetentionCase& it) {
  const struct {
    const char* name;
    int64_t value;
  } positive[] = {{"batch", it.batch},       {"length", it.length},     {"heads", it.heads_q},
                  {"kv-heads", it.heads_kv}, {"head-dim", it.head_dim}, {"layers", it.layers}};
  for (const auto& [name, value] : positive) {
    if (value < 1) return absl::InvalidArgumentError(absl::StrCat(name, " ", value, ": must be 1 or more"));
  }
  if (it.heads_q % it.heads_kv != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("heads ", it.heads_q, ", kv-heads ", it.heads_kv, ": heads must be a multiple of kv-heads"));
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const RetentionCase& it) {
  constexpr int64_t kMaxNumbers = int64_t{1} << 31;
  const int64_t row = int64_t{it.heads_q} * it.head_dim;
  if (it.batch <= kMaxNumbers / it.length && it.batch * it.length <= kMaxNumbers / row) return absl::OkStatus();
  return absl::InvalidArgumentError("batch x length x heads x head-dim must be at most 2^31");
}

std::string ShapeName(const RetentionCase& it) {
  std::string out =
      absl::StrCat("b", it.batch, " t", it.length, " Hq", it.heads_q, " Hk", it.heads_kv, " d", it.head_dim);
  if (it.chunk > 0) absl::StrAppend(&out, " C", it.chunk);
  absl::StrAppend(&out, " ", NumberName(it.dtype));
  if (it.pass == Pass::kDecode) {
    absl::StrAppend(&out, ", state ", NumberName(it.state_dtype));
    if (it.layers > 1) absl::StrAppend(&out, ", ", it.layers, " in a graph");
    if (it.splits > 0) absl::StrAppend(&out, ", ", it.splits, " splits");
    if (!it.is_settled) absl::StrAppend(&out, ", unsettled");
  }
  if (it.keeps_states) absl::StrAppend(&out, ", states kept");
  if (it.only_sm80) absl::StrAppend(&out, ", sm_80");
  return out;
}

double NeededFlops(const RetentionCase& it, int64_t chunk) {
  const double batch = static_cast<double>(it.batch);
  if (it.pass == Pass::kDecode) {
    const double D = Expanded(it), d = it.head_dim;
    const int64_t tail = TailRows(it.length, chunk);
    const double in_rows = 4 * static_cast<double>(it.length) * d;
    const double with_state = 2 * D * (d + 1) + 4 * static_cast<double>(tail) * d;
    return batch * it.heads_q * std::min(in_rows, with_state);
  }
  // Longer chunks give the same sums, up to one that needs no state at all; what is needed is the least of them.
  double least = ChunkedFlops(it, chunk);
  for (int64_t longer = chunk; longer < it.length;) {
    longer *= 2;
    least = std::min(least, ChunkedFlops(it, longer));
  }
  return batch * least;
}

double NeededBytes(const RetentionCase& it, int64_t chunk) {
  const double batch = static_cast<double>(it.batch), d = it.head_dim;
  if (it.pass == Pass::kDecode) {
    const int64_t tail = TailRows(it.length, chunk);
    const double D = tail < it.length ? Expanded(it) : 0;
    return batch * it.heads_kv *
           (D * d * Width(it.state_dtype) + D * 4 + static_cast<double>(tail) * (2 * d * Width(it.dtype) + 4));
  }
  // Rows of Q, y, dY, y and dQ; of K, V and dK, dV; and gates.
  const bool backward = it.pass != Pass::kForward, forward = it.pass != Pass::kBackward;
  const double query_rows = (forward ? 2 : 0) + (backward ? 4 : 0), key_rows = (forward ? 2 : 0) + (backward ? 4 : 0);
  const double gates = (forward ? 1 : 0) + (backward ? 2 : 0);
  return batch * static_cast<double>(it.length) *
         (Width(it.dtype) * d * (query_rows * it.heads_q + key_rows * it.heads_kv) + 4 * gates * it.heads_kv);
}

double MostError(const RetentionCase& it) {
  switch (it.dtype) {
    case Number::kBf16:
      return it.pass == Pass::kForward || it.pass == Pass::kDecode ? 1e-2 : 2e-2;
    case Number::kFp16:
      return 4e-3;
    case Number::kFloat32:
      return 1e-4;
    case Number::kInt8:
      break;  // no type of rows
  }
  return 0;
}

}  // namespace statehouse::kernels::bench
