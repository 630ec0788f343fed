#include "engine/state/shared_work.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/parallel/core_count.h"

namespace statehouse {
namespace {

constexpr int64_t kMostThreads = 4;
// Fewer per thread are copied sooner than a thread is started.
constexpr int64_t kBytesPerThread = int64_t{2} << 20;

}  // namespace

int WorthwhileThreads(int64_t bytes, int64_t pieces) {
  static const int64_t cores = kernels::AvailableCores();
  return static_cast<int>(std::max<int64_t>(1, std::min({cores, kMostThreads, pieces, 1 + bytes / kBytesPerThread})));
}

void ShareWork(int num_threads, const std::function<void()>& work) {
  std::vector<std::thread> others;
  try {
    for (int thread = 1; thread < num_threads; ++thread) others.emplace_back(work);
  } catch (const std::system_error&) {
    // Those that there are do it.
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace statehouse
