// Times the CPU kernels beside what the machine can do at most, in one run: read bandwidth, fused multiply-adds in
// registers, OpenBLAS. Checks results first. Usage: kernels_bench [--threads N] [--runs N] [--json FILE]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"
#include "tests/bench/kernels_bench_cases.h"
#include "tests/bench/kernels_bench_ceilings.h"

namespace statehouse::bench {
namespace {

using kernels::ThreadPool;
using kernels::WeightType;

struct Options {
  int threads = 0;
  int runs = 20;
  std::string json;
};

struct Timing {
  double median = 0;
  double best = 0;
};

struct Ceilings {
  double bandwidth = 0;  // bytes/s
  double fma = 0;        // operations/s
};

struct Result {
  std::string name, shape;
  Timing time;
  double gbps = 0, gflops = 0;  // of the best run
  double floor = 0;             // seconds that bandwidth and arithmetic allow
  double share = 0;             // floor / best time
};

Timing Measure(int runs, const std::function<void()>& run) {
  run();  // warm-up
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front()};
}

Ceilings MeasureCeilings(const Options& options, ThreadPool& pool) {
  kernels::AlignedBuffer buffer;
  constexpr int64_t kBytes = int64_t{1} << 30;
  if (!buffer.Allocate(kBytes)) std::abort();
  for (int64_t i = 0; i < kBytes; i += 4096) buffer.data()[i] = std::byte{1};
  Ceilings ceilings;
  ceilings.bandwidth = kBytes / Measure(options.runs, [&] { ReadAll(buffer.as<float>(), kBytes, pool); }).best;
  double flops = 0;
  const Timing fma = Measure(options.runs, [&] { flops = FmaInRegisters(pool); });
  ceilings.fma = flops / fma.best;
  return ceilings;
}

Result Report(const Case& c, const Ceilings& ceilings, int runs) {
  Result result{.name = c.name, .shape = c.shape, .time = Measure(runs, c.run)};
  result.gbps = c.bytes / result.time.best * 1e-9;
  result.gflops = c.flops / result.time.best * 1e-9;
  result.floor = std::max(c.bytes / ceilings.bandwidth, c.flops / ceilings.fma);
  result.share = result.floor / result.time.best;
  std::printf("%-36s %-22s %10.3f %10.3f %9.1f %9.1f %7.1f %%\n", result.name.c_str(), result.shape.c_str(),
              result.time.best * 1e3, result.time.median * 1e3, result.gbps, result.gflops, result.share * 100);
  std::fflush(stdout);
  return result;
}

std::vector<Result> RunAll(const Options& options, const Ceilings& ceilings, ThreadPool& pool) {
  std::vector<Result> results;
  const auto report = [&](const Case& c) { results.push_back(Report(c, ceilings, options.runs)); };
  std::printf("%-36s %-22s %10s %10s %9s %9s %9s\n", "case", "shape (rows x K x N)", "best ms", "median ms", "GB/s",
              "GFLOP/s", "of floor");
  const WeightType types[] = {WeightType::kF32, WeightType::kBF16, WeightType::kInt8};
  for (const int64_t rows : {64, 512}) {
    report(SgemmPrefill(rows, 3072, 3072, pool));
    for (const WeightType type : types) report(MatMulPrefill(type, rows, 3072, 3072, pool));
  }
  // 300 MB of weights and more, so that none stays in a cache.
  for (const WeightType type : types) {
    const int copies = type == WeightType::kF32 ? 8 : type == WeightType::kBF16 ? 16 : 32;
    for (const int64_t batch : {1, 4, 16}) report(MatMulDecode(type, batch, 3072, 3072, copies, pool));
  }
  report(RetentionDecode({.heads_q = 24, .heads_kv = 2, .head_dim = 128, .sequences = 1, .rows = 1}, pool));
  report(RetentionDecode({.heads_q = 24, .heads_kv = 2, .head_dim = 128, .sequences = 32, .rows = 1}, pool));
  report(RetentionDecode({.heads_q = 40, .heads_kv = 8, .head_dim = 128, .sequences = 8, .rows = 1}, pool));
  report(RetentionDecode({.heads_q = 2, .heads_kv = 2, .head_dim = 128, .sequences = 32, .rows = 1}, pool));
  report(RetentionDecode({.heads_q = 1, .heads_kv = 1, .head_dim = 128, .sequences = 64, .rows = 1}, pool));
  report(RetentionPrefill({.heads_q = 24, .heads_kv = 2, .head_dim = 128, .sequences = 1, .rows = 512}, pool));
  report(RetentionPrefill({.heads_q = 8, .heads_kv = 8, .head_dim = 64, .sequences = 1, .rows = 512}, pool));
  return results;
}

bool WriteJson(const std::string& path, const Ceilings& ceilings, int threads, const std::vector<Result>& results) {
  std::ofstream file(path);
  file << "{\"instruction_set\": \"" << InstructionSet() << "\", \"threads\": " << threads
       << ", \"read_gbps\": " << ceilings.bandwidth * 1e-9 << ", \"fma_gflops\": " << ceilings.fma * 1e-9
       << ", \"cases\": [";
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& r = results[i];
    file << (i ? ",\n" : "\n") << "{\"name\": \"" << r.name << "\", \"shape\": \"" << r.shape
         << "\", \"best_ms\": " << r.time.best * 1e3 << ", \"median_ms\": " << r.time.median * 1e3
         << ", \"floor_ms\": " << r.floor * 1e3 << ", \"share\": " << r.share << ", \"gbps\": " << r.gbps
         << ", \"gflops\": " << r.gflops << "}";
  }
  file << "\n]}\n";
  return static_cast<bool>(file);
}

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) return false;
    if (flag == "--threads") {
      options.threads = std::atoi(argv[i + 1]);
    } else if (flag == "--runs") {
      options.runs = std::max(1, std::atoi(argv[i + 1]));
    } else if (flag == "--json") {
      options.json = argv[i + 1];
    } else {
      return false;
    }
  }
  return true;
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "usage: %s [--threads N] [--runs N] [--json FILE]\n", argv[0]);
    return 2;
  }
  ThreadPool pool(options.threads);
  if (!CheckResults(pool)) return 1;
  const Ceilings ceilings = MeasureCeilings(options, pool);
  std::printf("%s, %d threads; ceilings: read %.1f GB/s, FMA in registers %.1f GFLOP/s; best and median of %d runs\n\n",
              InstructionSet(), pool.num_threads(), ceilings.bandwidth * 1e-9, ceilings.fma * 1e-9, options.runs);
  const std::vector<Result> results = RunAll(options, ceilings, pool);
  if (options.json.empty() || WriteJson(options.json, ceilings, pool.num_threads(), results)) return 0;
  std::fprintf(stderr, "cannot write %s\n", options.json.c_str());
  return 1;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) { return statehouse::bench::Main(argc, argv); }
