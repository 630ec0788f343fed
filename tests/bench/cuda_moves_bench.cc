// How fast slots move between the GPU and host memory, page-locked as snapshots' (SnapshotMemory) and ordinary, beside
// what the link does in the same run; what locking takes; and what a step takes while a slice of another slot is copied
// out, and while another thread locks memory. Region by region, as the engine moves a slot that is not used as a
// whole; what came back is compared with what was sent.
//
//   cuda_moves_bench DIR [--runs 20]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/state/snapshot_memory.h"
#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/bench/bench_flags.h"

namespace statehouse {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

void CheckCuda(cudaError_t result) {
  if (result != cudaSuccess) Check(absl::InternalError(cudaGetErrorString(result)));
}

// Bytes per second, the median of all runs but the first.
double Rate(int64_t bytes, int64_t runs, const std::function<void()>& move) {
  std::vector<double> seconds;
  for (int64_t run = 0; run <= runs; ++run) {
    const double begin = Now();
    move();
    if (run > 0) seconds.push_back(Now() - begin);
  }
  std::nth_element(seconds.begin(), seconds.begin() + runs / 2, seconds.end());
  return static_cast<double>(bytes) / seconds[runs / 2];
}

double LinkRate(cudaMemcpyKind kind, int64_t bytes, int64_t runs) {
  void *host = nullptr, *device = nullptr;
  CheckCuda(cudaHostAlloc(&host, bytes, cudaHostAllocDefault));
  CheckCuda(cudaMalloc(&device, bytes));
  std::memset(host, 1, bytes);
  const bool to_host = kind == cudaMemcpyDeviceToHost;
  const double rate =
      Rate(bytes, runs, [&] { CheckCuda(cudaMemcpy(to_host ? host : device, to_host ? device : host, bytes, kind)); });
  cudaFree(device);
  cudaFreeHost(host);
  return rate;
}

// Seconds of a step of 32 rows, one per slot, with `between` while it runs.
double StepSeconds(Model* model, SlotMemory* slots, int64_t runs, const std::function<void()>& between) {
  constexpr int32_t kRows = 32;
  std::vector<int32_t> tokens(kRows, 5), rows;
  std::vector<StepSequence> sequences;
  std::vector<LogitUse> uses(kRows, LogitUse{.copies = false, .chooses = true, .choice = {}});
  std::vector<int32_t> chosen(kRows);
  for (int32_t row = 0; row < kRows; ++row) sequences.push_back({slots->slot(row + 1), 0, row, 1}), rows.push_back(row);
  return 1 / Rate(1, runs, [&] {
           Check(model->BeginForward({tokens, sequences, rows}, {{}, uses, chosen}));
           between();
           Check(model->EndForward());
           for (StepSequence& sequence : sequences) ++sequence.position;
         });
}

int Run(const std::string& dir, int64_t runs) {
  kernels::ThreadPool pool(0);
  LoadOptions options;
  options.dummy = true;
  options.device = "cuda";
  auto model = LoadModel(dir, options, &pool);
  Check(model.status());
  const int64_t floats = (*model)->slot_floats(), bytes = floats * 4, regions = (*model)->num_switch_units();
  const int64_t region = floats / regions;
  Check((*model)->Reserve(64, 64));
  auto slots = (*model)->AllocateSlots((bytes + 127) / 128 * 128, 33);
  Check(slots.status());
  auto memory = SnapshotMemory::Make({.block_bytes = bytes, .num_blocks = 2}, (*model)->page_locker());
  const auto take = [&](bool locked) {
    SnapshotBuffer buffer =
        SnapshotMemory::TakeFrom(locked ? memory.get() : nullptr, bytes, SnapshotMemory::Contents::kUndefined);
    if (buffer.empty() || buffer.is_page_locked() != locked) Check(absl::ResourceExhaustedError("host memory"));
    return buffer;
  };
  CheckCuda(cudaDeviceSynchronize());
  double in[2], out[2], beside[2];
  const double bare = StepSeconds(model->get(), slots->get(), runs, [] {});
  for (const bool locked : {false, true}) {
    SnapshotBuffer sent = take(locked), received = take(locked);
    for (int64_t i = 0; i < floats; ++i) sent.as<float>()[i] = static_cast<float>(i * 2654435761 % 1000003);
    std::memset(received.as<float>(), 0, bytes);
    in[locked] = Rate(bytes, runs, [&] {
      for (int64_t r = 0; r < regions; ++r) {
        (*slots)->Write(sent.as<float>() + r * region, (*slots)->slot(0) + r * region, region);
      }
      CheckCuda(cudaDeviceSynchronize());
    });
    out[locked] = Rate(bytes, runs, [&] {
      for (int64_t r = 0; r < regions; ++r) {
        (*slots)->Read((*slots)->slot(0) + r * region, received.as<float>() + r * region, region);
      }
    });
    Check((*slots)->status());
    if (std::memcmp(sent.as<float>(), received.as<float>(), bytes) != 0)
      Check(absl::InternalError("what came back is not what was sent"));
    int64_t next = 0;
    const auto copy = [&] {
      for (int64_t r = 0; r < 8; ++r, ++next) {
        const int64_t at = next % regions * region;
        (*slots)->Read((*slots)->slot(0) + at, received.as<float>() + at, region);
      }
    };
    beside[locked] = StepSeconds(model->get(), slots->get(), runs, copy);
    Check((*slots)->status());
  }
  const double before_lock = Now();
  const auto lock_one = [&] {
    Check(SnapshotMemory::Make({.block_bytes = bytes, .num_blocks = 1}, (*model)->page_locker())->why_fewer());
  };
  lock_one();
  const double lock_seconds = Now() - before_lock;
  std::thread other(lock_one);
  double longest = 0;
  const double until = Now() + 4 * lock_seconds;
  while (Now() < until) longest = std::max(longest, StepSeconds(model->get(), slots->get(), 1, [] {}));
  other.join();
  const double up = LinkRate(cudaMemcpyHostToDevice, bytes, runs), down = LinkRate(cudaMemcpyDeviceToHost, bytes, runs);
  std::printf("%s, a slot of %.1f MB in %lld regions, %d threads\n", (*model)->device_name().c_str(), bytes / 1e6,
              static_cast<long long>(regions), pool.num_threads());
  for (const bool locked : {false, true}) {
    const char* const kind = locked ? "page-locked" : "ordinary";
    std::printf("into a slot from %s memory: %.1f GB/s, link %.1f: %.0f %%\n", kind, in[locked] / 1e9, up / 1e9,
                in[locked] / up * 100);
    std::printf("out of a slot to %s memory: %.1f GB/s, link %.1f: %.0f %% (aim: 70 %%)\n", kind, out[locked] / 1e9,
                down / 1e9, out[locked] / down * 100);
    std::printf("a step of 32 rows: %.3f ms; with %.1f MB of another slot copied out meanwhile: %.3f ms\n", bare * 1e3,
                8e-6 * static_cast<double>(region) * 4, beside[locked] * 1e3);
  }
  std::printf("locking a block and letting it go: %.1f ms; the longest step while another thread locks one: %.3f ms\n",
              lock_seconds * 1e3, longest * 1e3);
  return 0;
}

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  int64_t runs = 20;
  statehouse::BenchFlags parser("cuda_moves_bench DIR [--runs 20]");
  parser.Add("--runs", &runs);
  if (argc < 2) parser.Fail("a folder with a config.json is wanted");
  parser.Parse(argc, argv, 2);
  return statehouse::Run(argv[1], runs);
}
