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

bool IsStoredAsBf16(const WeightFiles& files) {
  const auto found = files.tensors().find("model.embed_tokens.weight");
  return found != files.tensors().end() && found->second.view.dtype == "BF16";
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
  made.is_bf16 = options.dtype == DType::kBF16 ||
                 (options.dtype == DType::kAuto && (!files.has_value() || IsStoredAsBf16(*files)));
  made.deterministic = options.deterministic;
  made.memory_utilization = options.gpu_memory_utilization;
  absl::StatusOr<kernels::DeviceProperties> device = kernels::GetDeviceProperties(gpu);
  if (!device.ok()) return device.status();
  made.device = *std::move(device);
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
