// LoadModelWithConfig() for --device cuda. Private to models/.
#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/parallel/thread_pool.h"
#include "models/config.h"
#include "models/model.h"

namespace statehouse {

class WeightFiles;

// What --dtype means for these files (null: dummy weights): bf16, or float32 if false.
bool ComputesInBf16(const LoadOptions& options, const WeightFiles* files);

// On GPU number `gpu`. --dtype auto computes in bf16 if every matrix of the checkpoint is bf16, else in float32; int8
// is UNIMPLEMENTED. RESOURCE_EXHAUSTED says how many bytes the weights need and how many are free.
absl::StatusOr<std::unique_ptr<Model>> LoadCudaModel(const std::filesystem::path& checkpoint_dir,
                                                     const ModelConfig& config, const kernels::RetentionLayout& layout,
                                                     const LoadOptions& options, int gpu, kernels::ThreadPool* pool);

}  // namespace statehouse
