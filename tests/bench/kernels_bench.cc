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
  Timing time;

  // Seconds that bandwidth and arithmetic allow.
  double Floor(const Ceilings& ceilings) const { return std::max(bytes / ceilings.bandwidth, flops / ceilings.fma); }
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

// Ceilings wander with what else the host does: they are measured between the cases too, and the highest counts.
class CeilingMeter {
 public:
  CeilingMeter(int runs, ThreadPool& pool) : runs_(runs), pool_(pool) {
    if (!buffer_.Allocate(kBytes)) std::abort();
    for (int64_t i = 0; i < kBytes; i += 4096) buffer_.data()[i] = std::byte{1};
  }

  void Measure() {
    for (const int64_t ahead : {0, 8192}) {
      const Timing read = bench::Measure(runs_, [&] { ReadAll(buffer_.as<float>(), kBytes, ahead, pool_); });
      highest_.bandwidth = std::max(highest_.bandwidth, kBytes / read.best);
    }
    double flops = 0;
    const Timing fma = bench::Measure(runs_, [&] { flops = FmaInRegisters(pool_); });
    highest_.fma = std::max(highest_.fma, flops / fma.best);
  }
  const Ceilings& highest() const { return highest_; }

 private:
  static constexpr int64_t kBytes = int64_t{1} << 29;
  const int runs_;
  ThreadPool& pool_;
  kernels::AlignedBuffer buffer_;
  Ceilings highest_;
};

std::vector<Result> RunAll(const Options& options, CeilingMeter& meter, ThreadPool& pool) {
  std::vector<Result> results;
  const auto measure = [&](const Case& c) {
    std::fprintf(stderr, "%s, %s\n", c.name.c_str(), c.shape.c_str());
    results.push_back(
        {.name = c.name, .shape = c.shape, .bytes = c.bytes, .flops = c.flops, .time = Measure(options.runs, c.run)});
  };
  const WeightType types[] = {WeightType::kF32, WeightType::kBF16, WeightType::kInt8};
  for (const int64_t rows : {64, 512}) {
    meter.Measure();
    measure(SgemmPrefill(rows, 3072, 3072, pool));
    for (const WeightType type : types) measure(MatMulPrefill(type, rows, 3072, 3072, pool));
  }
  // 300 MB of weights and more, so that none stays in a cache.
  for (const WeightType type : types) {
    meter.Measure();
    const int copies = type == WeightType::kF32 ? 8 : type == WeightType::kBF16 ? 16 : 32;
    for (const int64_t batch : {1, 4, 16}) measure(MatMulDecode(type, batch, 3072, 3072, copies, pool));
  }
  meter.Measure();
  for (const RetentionCase& shape :
       {RetentionCase{24, 2, 128, 1, 1}, {24, 2, 128, 32, 1}, {40, 8, 128, 8, 1}, {2, 2, 128, 32, 1}}) {
    measure(RetentionDecode(shape, pool));
  }
  measure(RetentionPrefill({.heads_q = 24, .heads_kv = 2, .head_dim = 128, .sequences = 1, .rows = 512}, pool));
  measure(RetentionPrefill({.heads_q = 8, .heads_kv = 8, .head_dim = 64, .sequences = 1, .rows = 512}, pool));
  meter.Measure();
  return results;
}

void PrintTable(const std::vector<Result>& results, const Ceilings& ceilings) {
  std::printf("%-34s %-22s %9s %9s %9s %7s %8s %9s\n", "case", "shape (rows x K x N)", "best ms", "median ms",
              "floor ms", "GB/s", "GFLOP/s", "of floor");
  for (const Result& r : results) {
    std::printf("%-34s %-22s %9.3f %9.3f %9.3f %7.1f %8.1f %8.1f%%\n", r.name.c_str(), r.shape.c_str(),
                r.time.best * 1e3, r.time.median * 1e3, r.Floor(ceilings) * 1e3, r.bytes / r.time.best * 1e-9,
                r.flops / r.time.best * 1e-9, 100 * r.Floor(ceilings) / r.time.best);
  }
}

bool WriteJson(const std::string& path, const Ceilings& ceilings, int threads, const std::vector<Result>& results) {
  std::ofstream file(path);
  file << "{\"instruction_set\": \"" << InstructionSet() << "\", \"threads\": " << threads
       << ", \"read_gbps\": " << ceilings.bandwidth * 1e-9 << ", \"fma_gflops\": " << ceilings.fma * 1e-9
       << ", \"cases\": [";
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& r = results[i];
    const double floor = r.Floor(ceilings);
    file << (i ? ",\n" : "\n") << "{\"name\": \"" << r.name << "\", \"shape\": \"" << r.shape
         << "\", \"best_ms\": " << r.time.best * 1e3 << ", \"median_ms\": " << r.time.median * 1e3
         << ", \"floor_ms\": " << floor * 1e3 << ", \"share\": " << floor / r.time.best
         << ", \"gbps\": " << r.bytes / r.time.best * 1e-9 << ", \"gflops\": " << r.flops / r.time.best * 1e-9 << "}";
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
  CeilingMeter meter(options.runs, pool);
  const std::vector<Result> results = RunAll(options, meter, pool);
  const Ceilings& ceilings = meter.highest();
  std::printf("%s, %d threads; ceilings: read %.1f GB/s, FMA in registers %.1f GFLOP/s; best and median of %d runs\n\n",
              InstructionSet(), pool.num_threads(), ceilings.bandwidth * 1e-9, ceilings.fma * 1e-9, options.runs);
  PrintTable(results, ceilings);
  if (options.json.empty() || WriteJson(options.json, ceilings, pool.num_threads(), results)) return 0;
  std::fprintf(stderr, "cannot write %s\n", options.json.c_str());
  return 1;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) { return statehouse::bench::Main(argc, argv); }
