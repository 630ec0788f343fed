#include "tests/bench/cuda_slot_bench_cases.h"

#include <random>
#include <string>

#include "kernels/power_retention/cuda/decode_slots.h"
#include "kernels/power_retention/cuda/tail_fold.h"

namespace statehouse::kernels::bench {
namespace {

constexpr int kBatch = 64, kHeads = 2, kDim = 128, kChunk = 128;

// Slots of a batch; numbers are random, and small enough that folding again and again stays finite.
struct Slots {
  std::vector<DeviceBuffer> memory;
  DeviceBuffer addresses;
};

Slots MakeSlots(const RetentionSlotLayout& layout) {
  std::mt19937 rng(std::random_device{}());
  std::vector<uint32_t> words(layout.bytes() / 4);
  // Any two bf16 numbers, or any float, between 2^-4 and 2^-2 in magnitude.
  for (uint32_t& word : words) word = (rng() & 0x80ff80ffu) | 0x3d803d80u;
  std::vector<float> gates(kHeads * layout.shape().tail_rows, -0.01f);
  Slots slots;
  std::vector<char*> addresses;
  for (int i = 0; i < kBatch; ++i) {
    slots.memory.emplace_back();
    Check(slots.memory.back().Allocate(layout.bytes()), "allocate");
    if (i == 0) {
      Check(slots.memory[0].Upload(words.data(), layout.bytes()), "upload");
      Check(slots.memory[0].Upload(gates.data(), gates.size() * 4, layout.gates()), "upload");
    } else {
      Check(
          cudaMemcpy(slots.memory[i].as<char>(), slots.memory[0].as<char>(), layout.bytes(), cudaMemcpyDeviceToDevice),
          "cudaMemcpy");
    }
    addresses.push_back(slots.memory.back().as<char>());
  }
  Check(slots.addresses.Allocate(addresses.size() * sizeof(char*)), "allocate");
  Check(slots.addresses.Upload(addresses.data(), slots.addresses.bytes()), "upload");
  return slots;
}

Row MakeRow(const std::string& name, RetentionStateDtype state_dtype, int count, double bytes) {
  Row row;
  row.name = name;
  row.shape = std::to_string(count) + " slots Hk2 d128 " + RetentionStateDtypeName(state_dtype);
  row.bytes = bytes;
  return row;
}

}  // namespace

std::vector<Row> BenchSlots(cudaStream_t stream, int runs) {
  std::vector<Row> rows;
  for (const RetentionStateDtype state_dtype :
       {RetentionStateDtype::kFloat32, RetentionStateDtype::kBf16, RetentionStateDtype::kInt8}) {
    const absl::StatusOr<RetentionSlotLayout> layout = RetentionSlotLayout::Make(
        {.heads_q = 24, .heads_kv = kHeads, .head_dim = kDim, .tail_rows = 2 * kChunk, .state_dtype = state_dtype});
    Check(layout.status(), "layout");
    const Slots from = MakeSlots(*layout), to = MakeSlots(*layout);
    const std::vector<int64_t> state_ends(kBatch, 1024), positions(kBatch, 1024 + 200);
    DeviceBuffer ends, where;
    Check(ends.Allocate(kBatch * 8), "allocate"), Check(where.Allocate(kBatch * 8), "allocate");
    Check(ends.Upload(state_ends.data(), kBatch * 8), "upload");
    Check(where.Upload(positions.data(), kBatch * 8), "upload");
    const double state = static_cast<double>(layout->keys());  // S and z
    const double tail = 200.0 * kHeads * (2 * kDim * 2 + 4);
    for (const int count : {1, kBatch}) {
      Row fold = MakeRow("fold of 128 rows", state_dtype, count, count * (2 * state + kChunk * kHeads * kDim * 4.0));
      fold.flop = 2.0 * count * kHeads * kChunk * kDim * (kDim + 1) / 2 * (kDim + 1);
      fold.times = Measure(stream, runs, [&] {
        return CudaRetentionFoldTail(*layout, {from.addresses.as<char*>(), ends.as<int64_t>(), count, kChunk, 1},
                                     stream);
      });
      rows.push_back(fold);
      Row fork = MakeRow("fork", state_dtype, count, 2.0 * count * (state + tail));
      fork.times = Measure(stream, runs, [&] {
        return CudaRetentionForkSlots(*layout,
                                      {from.addresses.as<const char*>(), to.addresses.as<char*>(), where.as<int64_t>(),
                                       ends.as<int64_t>(), count},
                                      stream);
      });
      rows.push_back(fork);
      Row zero = MakeRow("zero", state_dtype, count, 1.0 * count * layout->bytes());
      zero.times = Measure(stream, runs, [&] {
        return CudaRetentionZeroSlots(*layout, to.addresses.as<char*>(), count, 0, layout->bytes(), stream);
      });
      rows.push_back(zero);
    }
  }
  return rows;
}

}  // namespace statehouse::kernels::bench
