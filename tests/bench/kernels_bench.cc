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
  double bytes = 0, flops = 0;
  Timing time = {};
  Ceilings ceilings = {};

  // Seconds that bandwidth and arithmetic allow.
  double Floor() const { return std::max(bytes / ceilings.bandwidth, flops / ceilings.fma); }
};

double SecondsOf(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// On a shared host the memory's speed halves and doubles within seconds. So every run of a case is followed by one pass
// of reading, and the case's ceiling is the best of its own passes.
class Meter {
 public:
  Meter(int runs, ThreadPool& pool) : runs_(runs), pool_(pool) {
    if (!buffer_.Allocate(kBytes)) std::abort();
    for (int64_t i = 0; i < kBytes; i += 4096) buffer_.data()[i] = std::byte{1};
  }

  Result Measure(const Case& c) {
    Result result = {.name = c.name, .shape = c.shape, .bytes = c.bytes, .flops = c.flops};
    double flops = 0;
    c.run();  // warm-up
    std::vector<double> seconds;
    for (int i = 0; i < runs_; ++i) {
      seconds.push_back(SecondsOf(c.run));
      const int64_t ahead = i % 2 == 0 ? 0 : 8192;
      const double read = SecondsOf([&] { ReadAll(buffer_.as<float>(), kBytes, ahead, pool_); });
      result.ceilings.bandwidth = std::max(result.ceilings.bandwidth, kBytes / read);
      if (i % 4 == 0) {
        const double arithmetic = SecondsOf([&] { flops = FmaInRegisters(pool_); });
        fma_ = std::max(fma_, flops / arithmetic);
      }
    }
    std::sort(seconds.begin(), seconds.end());
    result.time = {seconds[seconds.size() / 2], seconds.front()};
    return result;
  }

  // The highest of all cases: arithmetic has no neighbours.
  double fma() const { return fma_; }

 private:
  static constexpr int64_t kBytes = int64_t{1} << 28;

  const int runs_;
  ThreadPool& pool_;
  kernels::AlignedBuffer buffer_;
  double fma_ = 0;
};

std::vector<Result> RunAll(Meter& meter, ThreadPool& pool) {
  std::vector<Result> results;
  const auto measure = [&](const Case& c) {
    std::fprintf(stderr, "%s, %s\n", c.name.c_str(), c.shape.c_str());
    results.push_back(meter.Measure(c));
  };
  const WeightType types[] = {WeightType::kF32, WeightType::kBF16, WeightType::kInt8};
  for (const int64_t rows : {64, 512}) {
    measure(SgemmPrefill(rows, 3072, 3072, pool));
    for (const WeightType type : types) measure(MatMulPrefill(type, rows, 3072, 3072, pool));
  }
  // 300 MB of weights and more, so that none stays in a cache.
  for (const WeightType type : types) {
    const int copies = type == WeightType::kF32 ? 8 : type == WeightType::kBF16 ? 16 : 32;
    for (const int64_t batch : {1, 4, 16}) measure(MatMulDecode(type, batch, 3072, 3072, copies, pool));
  }
  for (const RetentionCase& shape :
       {RetentionCase{24, 2, 128, 1, 1}, {24, 2, 128, 32, 1}, {40, 8, 128, 8, 1}, {2, 2, 128, 32, 1}}) {
    measure(RetentionDecode(shape, pool));
  }
  measure(RetentionPrefill({.heads_q = 24, .heads_kv = 2, .head_dim = 128, .sequences = 1, .rows = 512}, pool));
  measure(RetentionPrefill({.heads_q = 8, .heads_kv = 8, .head_dim = 64, .sequences = 1, .rows = 512}, pool));
  for (Result& result : results) result.ceilings.fma = meter.fma();
  return results;
}

void PrintTable(const std::vector<Result>& results) {
  std::printf("%-34s %-22s %9s %9s %9s %7s %8s %9s %9s\n", "case", "shape (rows x K x N)", "best ms", "median ms",
              "floor ms", "GB/s", "GFLOP/s", "of floor", "read GB/s");
  for (const Result& r : results) {
    std::printf("%-34s %-22s %9.3f %9.3f %9.3f %7.1f %8.1f %8.1f%% %9.1f\n", r.name.c_str(), r.shape.c_str(),
                r.time.best * 1e3, r.time.median * 1e3, r.Floor() * 1e3, r.bytes / r.time.best * 1e-9,
                r.flops / r.time.best * 1e-9, 100 * r.Floor() / r.time.best, r.ceilings.bandwidth * 1e-9);
  }
}

bool WriteJson(const std::string& path, int threads, const std::vector<Result>& results) {
  std::ofstream file(path);
  file << "{\"instruction_set\": \"" << InstructionSet() << "\", \"threads\": " << threads
       << ", \"fma_gflops\": " << results.back().ceilings.fma * 1e-9 << ", \"cases\": [";
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& r = results[i];
    const double floor = r.Floor();
    file << (i ? ",\n" : "\n") << "{\"name\": \"" << r.name << "\", \"shape\": \"" << r.shape
         << "\", \"best_ms\": " << r.time.best * 1e3 << ", \"median_ms\": " << r.time.median * 1e3
         << ", \"floor_ms\": " << floor * 1e3 << ", \"share\": " << floor / r.time.best
         << ", \"gbps\": " << r.bytes / r.time.best * 1e-9 << ", \"gflops\": " << r.flops / r.time.best * 1e-9
         << ", \"read_gbps\": " << r.ceilings.bandwidth * 1e-9 << "}";
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
  Meter meter(options.runs, pool);
  const std::vector<Result> results = RunAll(meter, pool);
  std::printf(
      "%s, %d threads; FMA in registers %.1f GFLOP/s; best and median of %d runs; read: the best of as many passes "
      "between them\n\n",
      InstructionSet(), pool.num_threads(), results.back().ceilings.fma * 1e-9, options.runs);
  PrintTable(results);
  if (options.json.empty() || WriteJson(options.json, pool.num_threads(), results)) return 0;
  std::fprintf(stderr, "cannot write %s\n", options.json.c_str());
  return 1;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) { return statehouse::bench::Main(argc, argv); }
