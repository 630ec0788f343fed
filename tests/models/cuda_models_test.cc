// The golden models on a GPU, and what must hold of every model there: bits in deterministic mode, slots that move
// between devices, one identity.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "tests/models/checkpoint_builder.h"
#include "tests/models/golden_cases.h"
#include "tests/support/golden.h"
#include "tests/support/gpu.h"

namespace statehouse {
namespace {

using testing::FindGoldenCases;
using testing::GoldenCase;
using testing::GoldenKind;
using testing::kLongestExhaustive;
using testing::kLongPiece;
using testing::Load;
using testing::ReadCases;
using testing::RunCase;
using testing::SameBits;
using testing::SequenceRunner;
using testing::Tolerance;

double Distance(const std::vector<float>& out, const std::vector<float>& want) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    difference += (double{out[i]} - want[i]) * (double{out[i]} - want[i]);
    reference += double{want[i]} * want[i];
  }
  return std::sqrt(difference / reference);
}

class CudaModels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::HasGpu()) return;
    auto dirs = FindGoldenCases(GoldenKind::kModel);
    ASSERT_TRUE(dirs.ok()) << dirs.status();
    for (const auto& dir : *dirs) {
      const auto config = ReadConfig(dir);
      ASSERT_TRUE(config.ok()) << config.status();
      // Degree 4 has kernels for the tail alone, which these cases do not ask for.
      if (config->model.degree == 2) models_[dir] = ReadCases(dir);
    }
    ASSERT_FALSE(models_.empty()) << "no golden model of degree 2";
  }

  kernels::ThreadPool pool_{4};
  std::map<std::filesystem::path, std::vector<GoldenCase>> models_;
};

LoadOptions OnGpu(LoadOptions::DType dtype, bool deterministic) {
  LoadOptions options;
  options.device = "cuda";
  options.dtype = dtype;
  options.deterministic = deterministic;
  return options;
}

TEST_F(CudaModels, Float32_MatchesTheReferenceForEverySwitchOverAndCut) {
  for (const auto& [dir, cases] : models_) {
    for (const bool deterministic : {false, true}) {
      for (const int64_t chunk : {16, 64}) {
        for (const int64_t switch_over : {int64_t{0}, chunk, kernels::kSwitchOverAuto}) {
          LoadOptions options = OnGpu(LoadOptions::DType::kF32, deterministic);
          options.chunk = chunk;
          options.switch_over = switch_over;
          const auto model = Load(dir, options, pool_, kLongestExhaustive);
          ASSERT_NE(model, nullptr);
          for (const GoldenCase& golden : cases) {
            if (static_cast<int64_t>(golden.prompt.size()) > kLongestExhaustive) continue;
            SCOPED_TRACE(golden.label + ", C " + std::to_string(chunk) + ", switch-over " +
                         std::to_string(switch_over) + (deterministic ? ", deterministic" : ""));
            const std::vector<float> whole = RunCase(*model, golden, kLongestExhaustive, Tolerance{});
            const std::vector<float> pieces = RunCase(*model, golden, 7, Tolerance{});
            if (!deterministic) continue;
            EXPECT_TRUE(SameBits(whole, pieces)) << "pieces of 7 differ";
            EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 1, Tolerance{}))) << "token by token differs";
          }
        }
      }
    }
  }
}

TEST_F(CudaModels, Bf16_StaysWithinItsTolerance) {
  for (const auto& [dir, cases] : models_) {
    for (const bool deterministic : {false, true}) {
      const auto model = Load(dir, OnGpu(LoadOptions::DType::kBF16, deterministic), pool_, kLongestExhaustive);
      ASSERT_NE(model, nullptr);
      for (const GoldenCase& golden : cases) {
        if (static_cast<int64_t>(golden.prompt.size()) > kLongestExhaustive) continue;
        SCOPED_TRACE(golden.label + (deterministic ? ", deterministic" : ""));
        const Tolerance tolerance = {.logits = 3e-2, .nll = 3e-2, .greedy = false};
        const std::vector<float> whole = RunCase(*model, golden, kLongestExhaustive, tolerance);
        if (!deterministic) continue;
        EXPECT_TRUE(SameBits(whole, RunCase(*model, golden, 1, tolerance))) << "token by token differs";
      }
    }
  }
}

TEST_F(CudaModels, LongCases_AcrossTheirSwitchOver_MatchTheReference) {
  int num_run = 0;
  for (const auto& [dir, cases] : models_) {
    const auto config = ReadConfig(dir);
    ASSERT_TRUE(config.ok());
    for (const GoldenCase& golden : cases) {
      if (static_cast<int64_t>(golden.prompt.size()) <= kLongestExhaustive) continue;
      SCOPED_TRACE(golden.label);
      LoadOptions options = OnGpu(LoadOptions::DType::kF32, false);
      if (config->model.switch_over_bound) {
        options.switch_over = *config->model.switch_over_bound / config->model.chunk * config->model.chunk;
      }
      const auto model = Load(dir, options, pool_, kLongPiece);
      ASSERT_NE(model, nullptr);
      RunCase(*model, golden, kLongPiece, Tolerance{});
      ++num_run;
    }
  }
  EXPECT_GT(num_run, 0) << "no golden case is longer than " << kLongestExhaustive << " tokens";
}

TEST_F(CudaModels, ASequenceOfTheCpu_GoesOnOnTheGpuAndBack) {
  for (const auto& [dir, cases] : models_) {
    LoadOptions on_cpu;
    on_cpu.dtype = LoadOptions::DType::kF32;
    on_cpu.chunk = 16;
    on_cpu.switch_over = 32;
    LoadOptions on_gpu = OnGpu(LoadOptions::DType::kF32, false);
    on_gpu.chunk = 16;
    on_gpu.switch_over = 32;
    const auto cpu = Load(dir, on_cpu, pool_, 200);
    const auto gpu = Load(dir, on_gpu, pool_, 200);
    ASSERT_TRUE(cpu != nullptr && gpu != nullptr);
    EXPECT_EQ(cpu->fingerprint(), gpu->fingerprint());
    EXPECT_NE(cpu->device(), gpu->device());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 150; ++i) tokens.push_back(static_cast<int32_t>((i * 37 + 11) % cpu->config().vocab_size));
    SequenceRunner whole(cpu.get());
    const std::vector<float> want = whole.Append(tokens, 200);
    for (const int64_t cut : {20, 32, 75}) {
      SCOPED_TRACE(dir.string() + " cut at " + std::to_string(cut));
      SequenceRunner first(cpu.get()), second(gpu.get()), third(cpu.get());
      first.Append({tokens.data(), static_cast<size_t>(cut)}, 200);
      std::vector<float> memory(cpu->slot_floats());
      first.slots().Read(first.memory(), memory.data(), cpu->slot_floats());
      second.slots().Write(memory.data(), second.memory(), cpu->slot_floats());
      second.Continue(cut, first.switched());
      std::vector<float> logits = second.Append({tokens.data() + cut, 40}, 9);
      second.slots().Read(second.memory(), memory.data(), cpu->slot_floats());
      third.slots().Write(memory.data(), third.memory(), cpu->slot_floats());
      third.Continue(cut + 40, second.switched());
      const std::vector<float> rest = third.Append({tokens.data() + cut + 40, tokens.size() - cut - 40}, 200);
      logits.insert(logits.end(), rest.begin(), rest.end());
      const std::vector<float> wanted(want.begin() + cut * cpu->config().vocab_size, want.end());
      EXPECT_LE(Distance(logits, wanted), 1e-4);
    }
  }
}

TEST_F(CudaModels, AWeightThatBf16CannotHold_IsRefusedByName) {
  // One layer of a head size that there are kernels for.
  const nlohmann::json config = {{"model_type", "powercoder"}, {"hidden_size", 32},        {"intermediate_size", 16},
                                 {"num_hidden_layers", 1},     {"num_attention_heads", 2}, {"num_key_value_heads", 1},
                                 {"vocab_size", 16},           {"eos_token_id", 0}};
  testing::RawTensors tensors;
  const auto add = [&tensors](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = testing::PatternF32(shape, 1);
  };
  const auto linear = [&add](const std::string& name, int64_t outputs, int64_t inputs) {
    add("model.layers.0." + name + ".weight", {outputs, inputs});
    add("model.layers.0." + name + ".bias", {outputs});
  };
  for (const std::string name :
       {"model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"}) {
    add(name + ".weight", {32});
    add(name + ".bias", {32});
  }
  add("model.embed_tokens.weight", {16, 32});
  linear("self_attn.q_proj", 32, 32);
  linear("self_attn.k_proj", 16, 32);
  linear("self_attn.v_proj", 16, 32);
  linear("self_attn.g_proj", 1, 32);
  linear("self_attn.o_proj", 32, 32);
  linear("mlp.c_fc", 16, 32);
  linear("mlp.c_proj", 32, 16);
  const float largest = std::numeric_limits<float>::max();
  std::memcpy(tensors["model.layers.0.mlp.c_fc.weight"].bytes.data() + (3 * 32 + 5) * 4, &largest, 4);
  const testing::TempDir dir;
  testing::WriteCheckpoint(dir.path(), config, tensors);
  const absl::Status status = LoadModel(dir.path(), OnGpu(LoadOptions::DType::kBF16, true), &pool_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const char* part : {"model.layers.0.mlp.c_fc.weight", "row 3 holds", "too large for bf16"}) {
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos) << status;
  }
  EXPECT_TRUE(LoadModel(dir.path(), OnGpu(LoadOptions::DType::kF32, true), &pool_).ok());
}

TEST(CudaModelsWithoutAGpu, SayWhatIsMissing) {
  if (kernels::CountDevices() > 0) GTEST_SKIP() << "there is a GPU";
  kernels::ThreadPool pool(1);
  const std::filesystem::path dir = testing::SourceDir() / "tests/golden/models/powercoder-tiny";
  const absl::Status status = LoadModel(dir, OnGpu(LoadOptions::DType::kAuto, false), &pool).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_NE(std::string(status.message()).find("--device cpu runs on the CPU"), std::string::npos) << status;
  LoadOptions options = OnGpu(LoadOptions::DType::kAuto, false);
  options.device = "auto";
  std::string why;
  options.on_device = [&why](const std::string& said) { why = said; };
  ASSERT_TRUE(LoadModel(dir, options, &pool).ok());
  EXPECT_NE(why.find("--device auto: the CPU, because "), std::string::npos) << why;
}

}  // namespace
}  // namespace statehouse
