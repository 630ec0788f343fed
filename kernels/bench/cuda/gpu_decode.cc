// One new token of many sequences, each against its own state and tail.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/bench/cuda/gpu_arrays.h"
#include "kernels/bench/cuda/gpu_cases.h"
#include "kernels/bench/cuda/gpu_slot.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/decode.h"

namespace statehouse::kernels::bench {
namespace {

constexpr int64_t kDefaultChunk = 128;  // rows between folds of the tail

// Slots of `layers` x `batch` sequences, all with the same contents.
struct Slots {
  std::vector<DeviceBuffer> memory;
  DeviceBuffer addresses, positions, state_ends;
};

Slots MakeSlots(const RetentionCase& it, const RandomSlot& slot, int64_t tail, GpuArrays& arrays) {
  Slots out;
  std::vector<char*> addresses;
  for (int64_t i = 0; i < it.layers * it.batch && arrays.status().ok(); ++i) {
    DeviceBuffer& buffer = out.memory.emplace_back();
    if (i == 0) {
      buffer = arrays.Upload(slot.bytes());
    } else {
      arrays.Note(buffer.Allocate(slot.bytes().size()));
      if (!arrays.status().ok()) break;
      arrays.Note(CudaStatus(cudaMemcpy(buffer.as<char>(), addresses[0], slot.bytes().size(), cudaMemcpyDeviceToDevice),
                             "cudaMemcpy"));
    }
    addresses.push_back(buffer.as<char>());
  }
  // The tail lies at the start of the ring, so the state ends at a multiple of the ring's rows.
  const int64_t ring = it.length == tail ? 0 : 1 << 20;
  out.addresses = arrays.Upload(addresses);
  out.positions = arrays.Upload(std::vector<int64_t>(it.batch, ring + tail - 1));
  out.state_ends = arrays.Upload(std::vector<int64_t>(it.batch, ring));
  return out;
}

int64_t RingRows(int64_t tail) {  // a power of two, so that it divides where the state ends
  int64_t out = 256;
  while (out < tail) out *= 2;
  return out;
}

}  // namespace

absl::StatusOr<Figure> MeasureDecode(const RetentionCase& it, cudaStream_t stream, int64_t runs) {
  const int64_t chunk = it.chunk == 0 ? kDefaultChunk : it.chunk, tail = TailRows(it.length, chunk);
  constexpr int64_t kMaxTail = 65536, kMaxBatch = 65535;  // grids, and more than any slot holds
  if (tail > kMaxTail || it.batch > kMaxBatch) {
    return absl::InvalidArgumentError(absl::StrCat("decode on the GPU: ", it.batch, " sequences with ", tail,
                                                   " rows since the last fold; at most ", kMaxBatch, " and ",
                                                   kMaxTail));
  }
  if (it.state_dtype == Number::kFp16)
    return absl::UnimplementedError("decode on the GPU: a state in fp16; there are float32, bf16 and int8");
  const absl::StatusOr<RetentionSlotLayout> layout =
      RetentionSlotLayout::Make({.heads_q = it.heads_q,
                                 .heads_kv = it.heads_kv,
                                 .head_dim = it.head_dim,
                                 .tail_rows = RingRows(tail),
                                 .dtype = ToDtype(it.dtype),
                                 .state_dtype = it.state_dtype == Number::kBf16   ? RetentionStateDtype::kBf16
                                                : it.state_dtype == Number::kInt8 ? RetentionStateDtype::kInt8
                                                                                  : RetentionStateDtype::kFloat32});
  if (!layout.ok()) return layout.status();
  GpuArrays arrays;
  const RandomSlot slot(it, *layout, tail, arrays.Random());
  const Slots slots = MakeSlots(it, slot, tail, arrays);
  std::vector<float> q_host;
  const int64_t queries = it.batch * it.heads_q * it.head_dim;
  const DeviceBuffer q = arrays.Normal(queries, it.dtype, &q_host);
  const DeviceBuffer y = arrays.Poisoned(queries * (it.dtype == Number::kFloat32 ? 4 : 2));
  const absl::StatusOr<DeviceProperties> device = GetDeviceProperties(0);
  if (!device.ok()) return device.status();
  const int batch = static_cast<int>(it.batch);
  const int splits = it.splits > 0 ? it.splits : RetentionDecodeSplits(*layout, batch, device->num_multiprocessors);
  const DeviceBuffer workspace =
      arrays.Poisoned(static_cast<int64_t>(std::max<size_t>(RetentionDecodeWorkspace(*layout, batch, 1, splits), 16)));
  if (!arrays.status().ok()) return arrays.status();
  const auto queue = [&]() -> absl::Status {
    for (int layer = 0; layer < it.layers; ++layer) {
      const CudaRetentionSlots of_layer = {slots.addresses.as<char*>() + layer * it.batch,
                                           slots.positions.as<int64_t>(), slots.state_ends.as<int64_t>(), batch, 1};
      const absl::Status status = CudaRetentionDecode(
          *layout, of_layer, {q.as<void>(), y.as<void>(), workspace.as<void>(), splits, it.is_settled}, stream);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  };
  if (absl::Status status = queue(); !status.ok()) return status;
  if (absl::Status status = CudaStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); !status.ok())
    return status;
  const double error = slot.Error(q_host, arrays.Download(y, queries, it.dtype));
  if (!arrays.status().ok()) return arrays.status();
  if (absl::Status status = AcceptError(it, error); !status.ok()) return status;
  absl::StatusOr<Figure> figure = TimeGraph(stream, runs, queue);
  if (!figure.ok()) return figure.status();
  figure->median /= it.layers, figure->min /= it.layers;
  figure->error = error;
  figure->chunk = chunk;
  return figure;
}

}  // namespace statehouse::kernels::bench
