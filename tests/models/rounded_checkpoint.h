// A checkpoint whose float32 weights are what --dtype leaves of another one's: where a model computes with rounded
// weights, its logits must be those of the float32 model of this one, whatever the rounding does to the checkpoint.
#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/parallel/thread_pool.h"
#include "models/element.h"
#include "models/model.h"
#include "models/weight_files.h"
#include "tests/models/checkpoint_builder.h"

namespace statehouse::testing {

// What a matrix is held in, by the documentation of --dtype (docs/retention.md).
inline kernels::WeightType RoundedType(const std::string& name, LoadOptions::DType dtype, kernels::SourceType stored) {
  if (dtype == LoadOptions::DType::kBF16) return kernels::WeightType::kBF16;
  if (dtype != LoadOptions::DType::kInt8) return kernels::WeightType::kF32;
  if (name == "model.embed_tokens.weight") return kernels::WeightType::kBF16;
  if (!name.ends_with(".self_attn.g_proj.weight")) return kernels::WeightType::kInt8;
  return stored == kernels::SourceType::kBF16 ? kernels::WeightType::kBF16 : kernels::WeightType::kF32;
}

inline void WriteRounded(const std::filesystem::path& from, LoadOptions::DType dtype, kernels::ThreadPool& pool,
                         const std::filesystem::path& to) {
  const auto files = WeightFiles::Open(from);
  ASSERT_TRUE(files.ok()) << files.status();
  RawTensors rounded;
  for (const auto& [name, tensor] : files->tensors()) {
    const TensorView& view = tensor.view;
    const kernels::SourceType stored = view.dtype == "F32"   ? kernels::SourceType::kF32
                                       : view.dtype == "F16" ? kernels::SourceType::kF16
                                                             : kernels::SourceType::kBF16;
    std::vector<float> values(view.num_elements());
    if (view.shape.size() == 2) {
      const auto packed = kernels::PackedMatrix::Pack({view.data, stored, view.shape[0], view.shape[1]},
                                                      RoundedType(name, dtype, stored), pool);
      ASSERT_TRUE(packed.ok()) << name << ": " << packed.status();
      for (int64_t row = 0; row < view.shape[0]; ++row) packed->UnpackRow(row, values.data() + row * view.shape[1]);
    } else {
      for (size_t i = 0; i < values.size(); ++i) values[i] = ElementAt(view.data, stored, static_cast<int64_t>(i));
    }
    RawTensor raw = {"F32", view.shape, std::string(values.size() * sizeof(float), '\0')};
    std::memcpy(raw.bytes.data(), values.data(), raw.bytes.size());
    rounded[name] = std::move(raw);
  }
  std::filesystem::copy_file(from / "config.json", to / "config.json");
  WriteFile(to / "model.safetensors", SafetensorsBytes(rounded));
}

}  // namespace statehouse::testing
