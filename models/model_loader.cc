// LoadModel(): from a checkpoint directory to a model that can serve.
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/device.h"
#include "models/json.h"  // QuotedName
#include "models/model.h"
#include "models/retention_plan.h"
#include "models/transformer.h"
#include "models/weight_files.h"
#include "models/weight_loader.h"
#ifdef STATEHOUSE_CUDA
#include "models/cuda/cuda_loader.h"
#endif

namespace statehouse {

absl::StatusOr<LoadOptions::DType> ParseDType(std::string_view name) {
  if (name == "auto") return LoadOptions::DType::kAuto;
  if (name == "f32") return LoadOptions::DType::kF32;
  if (name == "bf16") return LoadOptions::DType::kBF16;
  if (name == "int8") return LoadOptions::DType::kInt8;
  return absl::InvalidArgumentError(absl::StrCat("--dtype ", QuotedName(name), ": expected auto, f32, bf16 or int8"));
}

absl::StatusOr<std::unique_ptr<Model>> LoadModelWithConfig(const std::filesystem::path& checkpoint_dir,
                                                           const ModelConfig& config, const LoadOptions& options,
                                                           kernels::ThreadPool* pool) {
  auto layout = PlanRetention(
      config, {.switch_over = options.switch_over, .max_tail_tokens = options.max_tail_tokens, .chunk = options.chunk});
  if (!layout.ok()) return layout.status();
  const absl::StatusOr<DeviceChoice> device = ChooseDevice(options.device);
  if (!device.ok()) return device.status();
  if (options.on_device) options.on_device(device->why);
#ifdef STATEHOUSE_CUDA
  if (device->gpu >= 0) return LoadCudaModel(checkpoint_dir, config, *layout, options, device->gpu, pool);
#endif
  std::unique_ptr<Transformer> model =
      config.family == Family::kPowerCoder ? MakePowerCoder(config, *layout, pool) : MakeBrumby(config, *layout, pool);
  TensorTable table;
  model->DeclareTensors(table);
  absl::StatusOr<uint64_t> weights_hash;
  if (options.dummy) {
    weights_hash = FillDummyTensors(table, options, *pool);
  } else {
    const auto files = WeightFiles::Open(checkpoint_dir);
    if (!files.ok()) return files.status();
    weights_hash = LoadTensors(*files, table, options, *pool);
  }
  if (!weights_hash.ok()) return weights_hash.status();
  model->FinishLoading(table, *weights_hash);
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::filesystem::path& checkpoint_dir,
                                                 const LoadOptions& options, kernels::ThreadPool* pool) {
  const auto config = ReadConfig(checkpoint_dir);
  if (!config.ok()) return config.status();
  return LoadModelWithConfig(checkpoint_dir, config->model, options, pool);
}

}  // namespace statehouse
