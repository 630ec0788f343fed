// Gradients of power retention on the GPU, alone and after the forward pass. Some rows of dQ, dK and dV are checked
// against the definition in double first, then times are taken; dlog_G is checked by the tests alone.
//   cuda_backward_bench [--json FILE] [--filter bwd|fwd+bwd|TEXT] [--runs N]
#include <vector>

#include "tests/bench/cuda_bench_support.h"

namespace statehouse::kernels::bench {
namespace {

RetentionCase Shape(int64_t length, int heads_q, int heads_kv, int head_dim, int64_t chunk,
                    Number dtype = Number::kBf16) {
  return {.pass = Pass::kBackward,
          .length = length,
          .heads_q = heads_q,
          .heads_kv = heads_kv,
          .head_dim = head_dim,
          .chunk = chunk,
          .dtype = dtype};
}

std::vector<RetentionCase> Cases() {
  std::vector<RetentionCase> shapes = {Shape(65536, 8, 8, 64, 1024),
                                       Shape(65536, 8, 8, 64, 512),
                                       Shape(65536, 8, 8, 64, 2048),
                                       Shape(65536, 8, 8, 64, 1024),
                                       Shape(16384, 24, 2, 128, 1024),
                                       Shape(16384, 24, 2, 128, 2048),
                                       Shape(4096, 8, 8, 64, 4096),
                                       Shape(4096, 8, 8, 64, 1024),
                                       Shape(4096, 8, 8, 64, 4096, Number::kFp16),
                                       Shape(4096, 8, 8, 64, 1024, Number::kFp16),
                                       Shape(4096, 8, 8, 64, 1024, Number::kFloat32),
                                       Shape(4096, 24, 2, 128, 4096, Number::kFloat32)};
  shapes[3].only_sm80 = true;
  std::vector<RetentionCase> out;
  for (RetentionCase it : shapes) {
    out.push_back(it);
    it.pass = Pass::kForwardBackward;
    out.push_back(it);
    if (it.chunk == it.length || it.only_sm80) continue;
    it.keeps_states = true;
    out.push_back(it);
  }
  return out;
}

int Main(const Options& options) {
  const DeviceProperties device = RequireDevice();
  std::vector<Row> rows;
  AddCases(Cases(), options, &rows);
  Report(rows, device, options.json);
  return 0;
}

}  // namespace
}  // namespace statehouse::kernels::bench

int main(int argc, char** argv) {
  namespace bench = statehouse::kernels::bench;
  return bench::Main(bench::ParseOptions(argc, argv));
}
