#include "tests/bench/kernels_bench_cases.h"

#include <cblas.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "kernels/power_retention/power_retention.h"

extern "C" void openblas_set_num_threads(int num_threads);

namespace statehouse::bench {
namespace {

using kernels::AlignedBuffer;
using kernels::MatMulArgs;
using kernels::PackedMatrix;
using kernels::RetentionLayout;
using kernels::RetentionRows;
using kernels::SourceType;
using kernels::ThreadPool;
using kernels::WeightType;

// Cheap and good enough to time with: a table of normal numbers, repeated at odd offsets.
std::vector<float> Numbers(int64_t size, float deviation) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> out(size);
  const int64_t table = std::min<int64_t>(size, 100'003);
  for (int64_t i = 0; i < table; ++i) out[i] = normal(rng);
  for (int64_t i = table; i < size; ++i) out[i] = out[i - table];
  return out;
}

PackedMatrix Weights(WeightType type, int64_t N, int64_t K, ThreadPool& pool) {
  const std::vector<float> values = Numbers(N * K, 0.05f);
  return *PackedMatrix::Pack({values.data(), SourceType::kF32, N, K}, type, pool);
}

std::string Size(int64_t rows, int64_t N, int64_t K) {
  return std::to_string(rows) + " x " + std::to_string(K) + " x " + std::to_string(N);
}

bool Agrees(const std::vector<float>& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double relative = std::sqrt(error / norm);
  if (relative <= tolerance) return true;
  std::printf("WRONG: %s differs from its reference by %.2e\n", what.c_str(), relative);
  return false;
}

bool CheckMatMul(WeightType type, int64_t rows, ThreadPool& pool) {
  const int64_t N = 100, K = 500;
  const PackedMatrix weights = Weights(type, N, K, pool);
  const std::vector<float> x = Numbers(rows * K, 1);
  std::vector<float> y(rows * N), want(rows * N);
  MatMul({.weights = &weights, .x = x.data(), .y = y.data(), .num_rows = rows}, pool);
  kernels::MatMulRef({.weights = &weights, .x = x.data(), .y = want.data(), .num_rows = rows});
  return Agrees(y, {want.begin(), want.end()}, 1e-5, std::string("matmul ") + WeightTypeName(type));
}

bool CheckRetention(ThreadPool& pool) {
  const int64_t t = 150;
  const RetentionLayout layout =
      *RetentionLayout::Make({.heads_q = 4, .heads_kv = 2, .head_dim = 64, .chunk = 32, .switch_over = 0});
  const std::vector<float> q = Numbers(t * 4 * 64, 1), k = Numbers(t * 2 * 64 + 1, 1), v = Numbers(t * 2 * 64 + 2, 1);
  std::vector<float> y(q.size()), memory(layout.layer_floats());
  std::vector<double> want(q.size());
  kernels::RetentionScratch scratch;
  if (!scratch.Reserve(layout, t, pool.num_threads()).ok()) return false;
  const RetentionRows rows{
      .q = q.data(), .k = k.data() + 1, .v = v.data() + 2, .y = y.data(), .memory = memory.data(), .num_rows = t};
  PowerRetention(layout, std::span(&rows, 1), scratch, pool);
  kernels::PowerRetentionQuadraticRef({.Q = q.data(),
                                       .K = rows.k,
                                       .V = rows.v,
                                       .Y = want.data(),
                                       .t = t,
                                       .heads_q = 4,
                                       .heads_kv = 2,
                                       .head_dim = 64,
                                       .scale = layout.shape().scale});
  return Agrees(y, want, 2e-5, "power retention");
}

struct MatMulData {
  std::vector<PackedMatrix> weights;
  std::vector<float> x, y;
  size_t next = 0;
};

// Sequences past their switch-over, with made-up state: time does not depend on values, as long as they are ordinary.
struct RetentionData {
  RetentionLayout layout;
  kernels::RetentionScratch scratch;
  std::vector<AlignedBuffer> memories;
  std::vector<float> q, k, v, log_g, y;
  std::vector<RetentionRows> rows;

  RetentionData(const RetentionCase& shape, int64_t rows_each, ThreadPool& pool)
      : layout(*RetentionLayout::Make(
            {.heads_q = shape.heads_q, .heads_kv = shape.heads_kv, .head_dim = shape.head_dim, .switch_over = 0})) {
    const int64_t all = shape.sequences * rows_each;
    q = Numbers(all * shape.heads_q * shape.head_dim, 1);
    k = Numbers(all * shape.heads_kv * shape.head_dim, 1);
    v = Numbers(all * shape.heads_kv * shape.head_dim, 1);
    log_g.assign(all * shape.heads_kv, -0.01f);
    y.resize(q.size());
    if (!scratch.Reserve(layout, all, pool.num_threads()).ok()) std::abort();
    const std::vector<float> state = Numbers(layout.layer_floats(), 1);
    for (int64_t i = 0; i < shape.sequences; ++i) {
      memories.emplace_back();
      if (!memories.back().Allocate(layout.layer_floats() * 4)) std::abort();
      std::copy(state.begin(), state.end(), memories.back().as<float>());
      for (int head = 0; head < shape.heads_kv; ++head) layout.WriteHeader(memories.back().as<float>(), head, {});
      const int64_t row = i * rows_each;
      rows.push_back({.q = q.data() + row * shape.heads_q * shape.head_dim,
                      .k = k.data() + row * shape.heads_kv * shape.head_dim,
                      .v = v.data() + row * shape.heads_kv * shape.head_dim,
                      .log_g = log_g.data() + row * shape.heads_kv,
                      .y = y.data() + row * shape.heads_q * shape.head_dim,
                      .memory = memories.back().as<float>(),
                      .num_rows = rows_each});
    }
  }

  void SetPosition(int64_t position, int64_t folded_chunks) {
    for (RetentionRows& row : rows) {
      row.position = position;
      for (int head = 0; head < layout.shape().heads_kv; ++head) {
        layout.WriteHeader(row.memory, head, {.folded_chunks = folded_chunks, .in_state_form = 1});
      }
    }
  }
};

std::string RetentionSize(const RetentionCase& shape) {
  return "Hq " + std::to_string(shape.heads_q) + " Hk " + std::to_string(shape.heads_kv) + " d " +
         std::to_string(shape.head_dim);
}

}  // namespace

bool CheckResults(ThreadPool& pool) {
  bool good = CheckRetention(pool);
  for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kInt8}) {
    for (const int64_t rows : {1, 16, 200}) good = CheckMatMul(type, rows, pool) && good;
  }
  return good;
}

Case MatMulDecode(WeightType type, int64_t batch, int64_t N, int64_t K, int copies, ThreadPool& pool) {
  auto data = std::make_shared<MatMulData>();
  data->x = Numbers(batch * K, 1);
  data->y.resize(batch * N);
  for (int i = 0; i < copies; ++i) data->weights.push_back(Weights(type, N, K, pool));
  Case out;
  out.name = std::string("matmul decode ") + WeightTypeName(type) + " batch " + std::to_string(batch);
  out.shape = Size(batch, N, K);
  out.bytes = static_cast<double>(data->weights[0].bytes()) * copies;
  out.flops = 2.0 * static_cast<double>(batch * N * K) * copies;
  out.run = [data, batch, &pool] {
    for (const PackedMatrix& weights : data->weights) {
      MatMul({.weights = &weights, .x = data->x.data(), .y = data->y.data(), .num_rows = batch}, pool);
    }
  };
  return out;
}

Case MatMulPrefill(WeightType type, int64_t rows, int64_t N, int64_t K, ThreadPool& pool) {
  Case out = MatMulDecode(type, rows, N, K, 1, pool);
  out.name = std::string("matmul prefill ") + WeightTypeName(type);
  return out;
}

Case SgemmPrefill(int64_t rows, int64_t N, int64_t K, ThreadPool& pool) {
  openblas_set_num_threads(pool.num_threads());
  auto a = std::make_shared<std::vector<float>>(Numbers(rows * K, 1));
  auto b = std::make_shared<std::vector<float>>(Numbers(N * K, 0.05f));
  auto c = std::make_shared<std::vector<float>>(rows * N);
  Case out;
  out.name = "OpenBLAS sgemm";
  out.shape = Size(rows, N, K);
  out.flops = 2.0 * static_cast<double>(rows * N * K);
  out.run = [a, b, c, rows, N, K] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows), static_cast<int>(N),
                static_cast<int>(K), 1.0f, a->data(), static_cast<int>(K), b->data(), static_cast<int>(K), 0.0f,
                c->data(), static_cast<int>(N));
  };
  return out;
}

Case RetentionDecode(const RetentionCase& shape, ThreadPool& pool) {
  auto data = std::make_shared<RetentionData>(shape, 1, pool);
  const int64_t C = data->layout.shape().chunk;
  // Half a chunk beyond a fold: the mean tail of 1.5 C rows.
  const int64_t position = 10 * C + C / 2;
  data->SetPosition(position, 9);
  Case out;
  out.name = "retention decode, " + std::to_string(shape.sequences) + " sequences";
  out.shape = RetentionSize(shape);
  const double D = static_cast<double>(data->layout.expanded());
  const double heads = static_cast<double>(shape.sequences * shape.heads_kv);
  const double tail_rows = static_cast<double>(C + C / 2);
  out.bytes = 4 * heads * (D * (shape.head_dim + 1) + tail_rows * (2 * shape.head_dim + 2));
  const double queries = static_cast<double>(shape.sequences * shape.heads_q);
  out.flops = 2 * queries * (D * (shape.head_dim + 1) + tail_rows * 2 * shape.head_dim);
  out.run = [data, &pool] { PowerRetention(data->layout, data->rows, data->scratch, pool); };
  return out;
}

Case RetentionPrefill(const RetentionCase& shape, ThreadPool& pool) {
  auto data = std::make_shared<RetentionData>(shape, shape.rows, pool);
  const int64_t C = data->layout.shape().chunk;
  Case out;
  out.name = "retention prefill, " + std::to_string(shape.rows) + " rows";
  out.shape = RetentionSize(shape);
  const double D = static_cast<double>(data->layout.expanded());
  const double rows = static_cast<double>(shape.rows);
  // Query state, fold, and the tail: the chunk before (whole) and the current one (its causal half).
  out.flops = 2 * rows * D * (shape.head_dim + 1) * (shape.heads_q + shape.heads_kv) +
              2 * rows * (1.5 * static_cast<double>(C)) * 2 * shape.head_dim * shape.heads_q;
  out.run = [data, C, &pool] {
    data->SetPosition(10 * C, 8);
    PowerRetention(data->layout, data->rows, data->scratch, pool);
  };
  return out;
}

}  // namespace statehouse::bench
