// What is decided about a GPU model before a GPU is needed: the type it computes in and retention's mode.
#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/cuda/cuda_loader.h"
#include "models/cuda/cuda_transformer.h"
#include "models/weight_files.h"
#include "tests/models/checkpoint_builder.h"

namespace statehouse {
namespace {

using kernels::RetentionLayout;
using kernels::SlotRetentionMode;
using testing::RawTensors;
using testing::TempDir;
using testing::TinyPowerCoderConfig;
using testing::TinyPowerCoderTensors;
using testing::WriteCheckpoint;

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kProjection[] = "model.layers.1.mlp.c_fc.weight";

// The tiny checkpoint, its matrices declared as bf16 (values do not matter here) but for `kept`.
RawTensors MatricesInBf16(const std::vector<std::string>& kept) {
  RawTensors tensors = TinyPowerCoderTensors();
  for (auto& [name, tensor] : tensors) {
    if (tensor.shape.size() != 2 || std::find(kept.begin(), kept.end(), name) != kept.end()) continue;
    tensor.dtype = "BF16";
    tensor.bytes.resize(tensor.bytes.size() / 2);
  }
  return tensors;
}

bool AutoIsBf16(const RawTensors& tensors, std::string* said) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), TinyPowerCoderConfig(), tensors);
  const auto files = WeightFiles::Open(dir.path());
  EXPECT_TRUE(files.ok()) << files.status();
  LoadOptions options;
  options.on_warning = [said](const std::string& warning) { *said += warning; };
  return files.ok() && ComputesInBf16(options, &*files);
}

TEST(CudaDType, Auto_IsBf16OnlyIfEveryMatrixIs) {
  std::string said;
  EXPECT_TRUE(AutoIsBf16(MatricesInBf16({}), &said)) << "vectors in float32 are no reason";
  EXPECT_EQ(said, "");
  EXPECT_FALSE(AutoIsBf16(MatricesInBf16({kProjection}), &said)) << "one matrix would lose bits";
  EXPECT_NE(said.find(kProjection), std::string::npos) << said;
  EXPECT_FALSE(AutoIsBf16(MatricesInBf16({kEmbedding}), &said));
  EXPECT_FALSE(AutoIsBf16(TinyPowerCoderTensors(), &said));
}

TEST(CudaDType, Named_IsWhatWasNamed) {
  LoadOptions options;
  EXPECT_TRUE(ComputesInBf16(options, nullptr)) << "dummy weights are bf16";
  options.dtype = LoadOptions::DType::kF32;
  EXPECT_FALSE(ComputesInBf16(options, nullptr));
  options.dtype = LoadOptions::DType::kBF16;
  EXPECT_TRUE(ComputesInBf16(options, nullptr));
}

SlotRetentionMode ModeOn(int max_shared_bytes, int head_dim, bool is_bf16 = true, bool deterministic = false) {
  const auto layout = RetentionLayout::Make({.heads_q = 4, .heads_kv = 2, .head_dim = head_dim});
  EXPECT_TRUE(layout.ok()) << layout.status();
  CudaModelOptions options;
  options.device.max_shared_bytes_per_block = max_shared_bytes;
  options.is_bf16 = is_bf16;
  options.deterministic = deterministic;
  return options.retention_mode(*layout);
}

TEST(CudaRetentionMode, TensorCores_OnlyWhereABlockGetsTheirSharedMemory) {
  constexpr int kHopper = 232448, kA100 = 166912, kCapability86 = 101376;
  for (const int head_dim : {64, 128}) {
    EXPECT_EQ(ModeOn(kHopper, head_dim), SlotRetentionMode::kFastBf16);
    EXPECT_EQ(ModeOn(kA100, head_dim), SlotRetentionMode::kFastBf16);
  }
  EXPECT_EQ(ModeOn(kCapability86, 64), SlotRetentionMode::kFastBf16);
  EXPECT_EQ(ModeOn(kCapability86, 128), SlotRetentionMode::kFast);
  EXPECT_EQ(ModeOn(kHopper, 128, /*is_bf16=*/false), SlotRetentionMode::kFast);
  EXPECT_EQ(ModeOn(kCapability86, 128, true, /*deterministic=*/true), SlotRetentionMode::kDeterministic);
}

}  // namespace
}  // namespace statehouse
