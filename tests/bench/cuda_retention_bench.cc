// Power retention on the GPU: whole sequences forward, decode steps, and what happens to slots between them. Each case
// is checked against the definition in double first, then timed. `statehouse bench kernels` measures other shapes.
//   cuda_retention_bench [--json FILE] [--filter fwd|decode|slots|TEXT] [--runs N]
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "tests/bench/cuda_bench_support.h"
#include "tests/bench/cuda_slot_bench_cases.h"

namespace statehouse::kernels::bench {
namespace {

RetentionCase Forward(int64_t length, int heads_q, int heads_kv, int head_dim, int64_t chunk) {
  return {.pass = Pass::kForward,
          .length = length,
          .heads_q = heads_q,
          .heads_kv = heads_kv,
          .head_dim = head_dim,
          .chunk = chunk};
}

// One layer of PowerCoder-3B, a tail of 200 rows.
RetentionCase Decode(int64_t batch, Number state_dtype, int layers, int splits = 0) {
  return {.pass = Pass::kDecode,
          .batch = batch,
          .length = 1024 + 72,
          .heads_q = 24,
          .heads_kv = 2,
          .head_dim = 128,
          .chunk = 128,
          .state_dtype = state_dtype,
          .layers = layers,
          .splits = splits};
}

std::vector<RetentionCase> Cases() {
  constexpr Number kFloat = Number::kFloat32, kShort = Number::kBf16, kByte = Number::kInt8;
  std::vector<RetentionCase> out = {Forward(65536, 8, 8, 64, 1024),
                                    Forward(65536, 8, 8, 64, 512),
                                    Forward(65536, 8, 8, 64, 2048),
                                    Forward(16384, 24, 2, 128, 1024),
                                    Forward(16384, 8, 8, 128, 1024),
                                    Decode(1, kFloat, 30),
                                    Decode(1, kFloat, 30, 66),
                                    Decode(1, kShort, 30),
                                    Decode(1, kByte, 30),
                                    Decode(4, kFloat, 4),
                                    Decode(16, kFloat, 4),
                                    Decode(16, kShort, 4),
                                    Decode(16, kByte, 4),
                                    Decode(64, kFloat, 4),
                                    Decode(64, kFloat, 4, 16),
                                    Decode(64, kShort, 4),
                                    Decode(64, kShort, 4, 16),
                                    Decode(64, kByte, 4),
                                    Decode(64, kByte, 4, 4),
                                    Decode(64, kByte, 4, 16)};
  RetentionCase unsettled = Decode(1, kFloat, 30);
  unsettled.is_settled = false;
  out.push_back(unsettled);
  for (const Number state_dtype : {kFloat, kShort, kByte}) {
    RetentionCase small = Decode(32, state_dtype, 4);
    small.heads_q = small.heads_kv = 8, small.head_dim = 64;
    out.push_back(small);
  }
  return out;
}

int Main(const Options& options) {
  const DeviceProperties device = RequireDevice();
  std::vector<Row> rows;
  AddCases(Cases(), options, &rows);
  if (std::string("slots").find(options.filter) != std::string::npos) {
    absl::StatusOr<Stream> stream = Stream::Make();
    Check(stream.status(), "stream");
    for (const Row& row : BenchSlots(stream->get(), static_cast<int>(options.runs))) rows.push_back(row);
  }
  Report(rows, device, options.json);
  return 0;
}

}  // namespace
}  // namespace statehouse::kernels::bench

int main(int argc, char** argv) {
  namespace bench = statehouse::kernels::bench;
  return bench::Main(bench::ParseOptions(argc, argv));
}
