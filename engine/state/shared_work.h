// Large copies by several threads: for calls that may block, never for the engine thread, whose pool is the kernels'.
// Thread-safety: free functions.
#pragma once

#include <cstdint>
#include <functional>

namespace statehouse {

// How many threads are worth their start for so many bytes in so many pieces: 1 … 4, and no more than there are cores.
int WorthwhileThreads(int64_t bytes, int64_t pieces);
// Calls `work` once in each of so many threads, the caller's among them, and waits for all. In fewer, if the system
// gives no more: `work` must take its pieces from a counter until none is left.
void ShareWork(int num_threads, const std::function<void()>& work);

}  // namespace statehouse
