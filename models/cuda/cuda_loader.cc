#include "models/cuda/cuda_loader.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "models/cuda/cuda_transformer.h"
#include "models/sizing.h"
#include "models/tensor_table.h"
#include "models/weight_files.h"
#include "models/weight_loader.h"

namespace statehouse {
namespace {

// A matrix that bf16 cannot hold as it is stored; null if there is none.
const std::pair<const std::string, WeightFiles::Tensor>* FirstMatrixBeyondBf16(const WeightFiles& files) {
  for (const auto& named : files.tensors()) {
    const TensorView& view = named.second.view;
    if (view.shape.size() == 2 && view.dtype != "BF16") return &named;
  }
  return nullptr;
}

absl::Status CheckRoom(const ModelConfig& config, bool is_bf16) {
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return absl::OkStatus();  // the next call says why
  const int64_t needed = WeightBytes(config, is_bf16 ? kernels::WeightType::kBF16 : kernels::WeightType::kF32);
  if (needed <= static_cast<int64_t>(free_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("GPU memory: the weights need ", needed, " bytes, and ", free_bytes,
                                                   " of ", total_bytes, " are free"));
}

}  // namespace

bool ComputesInBf16(const LoadOptions& options, const WeightFiles* files) {
  using DType = LoadOptions::DType;
  if (options.dtype != DType::kAuto) return options.dtype == DType::kBF16;
  if (files == nullptr) return true;
  const auto* const beyond = FirstMatrixBeyondBf16(*files);
  if (beyond != nullptr && options.on_warning) {
    options.on_warning(absl::StrCat("--dtype auto: the GPU computes in float32, because tensor ", beyond->first,
                                    " is stored as ", beyond->second.view.dtype,
                                    "; --dtype bf16 is faster and rounds it"));
  }
  return beyond == nullptr;
}

absl::StatusOr<std::unique_ptr<Model>> LoadCudaModel(const std::filesystem::path& checkpoint_dir,
                                                     const ModelConfig& config, const kernels::RetentionLayout& layout,
                                                     const LoadOptions& options, int gpu, kernels::ThreadPool* pool) {
  using DType = LoadOptions::DType;
  if (options.dtype == DType::kInt8) {
    return absl::UnimplementedError("--dtype int8 with --device cuda; auto, f32 and bf16 run on a GPU");
  }
  std::optional<WeightFiles> files;
  if (!options.dummy) {
    absl::StatusOr<WeightFiles> opened = WeightFiles::Open(checkpoint_dir);
    if (!opened.ok()) return opened.status();
    files.emplace(*std::move(opened));
  }
  CudaModelOptions made;
  made.is_bf16 = ComputesInBf16(options, files.has_value() ? &*files : nullptr);
  made.deterministic = options.deterministic;
  made.memory_utilization = options.gpu_memory_utilization;
  made.pool = pool;
  made.on_warning = options.on_warning;
  absl::StatusOr<kernels::DeviceProperties> device = kernels::GetDeviceProperties(gpu);
  if (!device.ok()) return device.status();
  made.device = *std::move(device);
  if (made.retention_mode(layout) != made.wanted_retention_mode() && options.on_warning) {
    options.on_warning(absl::StrCat("retention runs without its fast kernels: ", made.device.name, " gives a block ",
                                    made.device.max_shared_bytes_per_block, " bytes of shared memory; decoding needs ",
                                    kernels::FewKernelSharedBytes(layout), ", prompts on tensor cores ",
                                    kernels::WideKernelSharedBytes(layout)));
  }
  auto model = CudaTransformer::Make(config, layout, made);
  if (!model.ok()) return model.status();
  if (absl::Status status = CheckRoom(config, made.is_bf16); !status.ok()) return status;
  TensorTable table;
  (*model)->weights().Declare(config, made.is_bf16, &table);
  const absl::StatusOr<uint64_t> weights_hash =
      files.has_value() ? LoadTensors(*files, table, options, *pool) : FillDummyTensors(table, options, *pool);
  if (!weights_hash.ok()) return weights_hash.status();
  if (absl::Status status = (*model)->FinishLoading(table, *weights_hash); !status.ok()) return status;
  return std::unique_ptr<Model>(*std::move(model));
}

}  // namespace statehouse
