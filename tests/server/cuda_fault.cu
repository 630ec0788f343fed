// Breaks the GPU under a running server, as a broken kernel would: a library to preload (LD_PRELOAD), which waits until
// the file named by STATEHOUSE_TEST_FAULT exists and then runs a kernel that traps in the process's own context. Every
// CUDA call after that fails. Built and used by cuda_fault.py; no part of the server.
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace {

__global__ void Trap() { asm volatile("trap;"); }

void WaitAndBreak(const char* file) {
  while (access(file, F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  Trap<<<1, 1>>>();
  std::fprintf(stderr, "cuda_fault: %s\n", cudaGetErrorString(cudaDeviceSynchronize()));
}

__attribute__((constructor)) void Begin() {
  const char* const file = std::getenv("STATEHOUSE_TEST_FAULT");
  if (file != nullptr) std::thread(WaitAndBreak, file).detach();
}

}  // namespace
