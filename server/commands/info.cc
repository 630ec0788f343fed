#include "server/commands/info.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/retention_plan.h"
#include "models/sizing.h"
#include "server/commands/figures.h"

namespace statehouse {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFloatBytes = 4;

void AddRow(std::string* text, const char* name, const std::string& value) {
  absl::StrAppend(text, absl::StrFormat("%-18s %s\n", name, value));
}

std::string Bytes(int64_t bytes) { return WithPrefix(static_cast<double>(bytes), "B"); }

CheckpointInfo::Fit FitOf(const ModelConfig& config, kernels::WeightType type, int64_t memory_bytes,
                          int64_t slot_bytes) {
  CheckpointInfo::Fit fit;
  fit.dtype = kernels::WeightTypeName(type);
  fit.weight_bytes = WeightBytes(config, type);
  const int64_t room = memory_bytes - fit.weight_bytes;
  fit.sequences = room < 0 ? -1 : SequencesThatFit(room, slot_bytes);
  fit.kv_tokens = std::max<int64_t>(0, room) / KvCacheBytesPerToken(config);
  return fit;
}

void AddStateRows(const CheckpointInfo& info, std::string* text) {
  if (info.switch_over < 0) {
    AddRow(text, "state",
           absl::StrFormat("none: this shape keeps its rows, at most %s tokens of them", Tokens(info.max_tail_tokens)));
    AddRow(text, "per sequence", Bytes(info.slot_bytes));
    return;
  }
  AddRow(text, "state",
         absl::StrFormat("%s per sequence in float32, %s in bf16, however long it is", Bytes(info.state_f32_bytes),
                         Bytes(info.state_bf16_bytes)));
  AddRow(text, "per sequence here",
         absl::StrFormat("%s: float32 state and a tail of %s", Bytes(info.slot_bytes), Bytes(info.tail_bytes)));
  AddRow(text, "switch-over", absl::StrFormat("at %s tokens rows become a state", Tokens(info.switch_over)));
  AddRow(text, "KV cache",
         absl::StrFormat("attention of this shape: %s per token, %s at 128 k tokens, %s at 1 M (bf16)",
                         Bytes(info.kv_bytes_per_token), Bytes(info.kv_bytes_per_token * 131'072),
                         Bytes(info.kv_bytes_per_token * 1'000'000)));
  AddRow(text, "break-even",
         absl::StrFormat("from %s tokens on the float32 state is smaller than that (bf16: %s)",
                         Tokens(info.break_even_f32), Tokens(info.break_even_bf16)));
}

}  // namespace

int64_t MachineMemoryBytes() { return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE); }

absl::StatusOr<CheckpointInfo> DescribeCheckpoint(const std::filesystem::path& checkpoint_dir, int64_t memory_bytes,
                                                  int64_t max_tail_tokens) {
  absl::StatusOr<CheckpointConfig> checkpoint = ReadConfig(checkpoint_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  CheckpointInfo info;
  info.config = checkpoint->model;
  absl::StatusOr<kernels::RetentionLayout> layout = PlanRetention(info.config, {.max_tail_tokens = max_tail_tokens});
  if (!layout.ok()) return layout.status();
  info.parameters = NumParameters(info.config);
  info.state_f32_bytes = StateBytes(info.config, StateType::kF32);
  info.state_bf16_bytes = StateBytes(info.config, StateType::kBF16);
  info.tail_bytes = TailBytes(info.config);
  info.slot_bytes = info.config.num_layers * layout->layer_floats() * kFloatBytes;
  info.switch_over = layout->has_state() ? layout->shape().switch_over : -1;
  info.max_tail_tokens = layout->has_state() ? 0 : layout->shape().max_tail_tokens;
  info.kv_bytes_per_token = KvCacheBytesPerToken(info.config);
  info.break_even_f32 = BreakEvenTokens(info.config, StateType::kF32);
  info.break_even_bf16 = BreakEvenTokens(info.config, StateType::kBF16);
  info.linear_flops = LinearFlopsPerToken(info.config);
  info.retention_flops = RetentionFlopsPerToken(info.config);
  info.head_flops = HeadFlopsPerRow(info.config);
  info.memory_bytes = memory_bytes;
  constexpr std::array kTypes = {kernels::WeightType::kF32, kernels::WeightType::kBF16, kernels::WeightType::kInt8};
  for (size_t i = 0; i < kTypes.size(); ++i)
    info.fits[i] = FitOf(info.config, kTypes[i], memory_bytes, info.slot_bytes);
  return info;
}

std::string InfoText(const CheckpointInfo& info) {
  const ModelConfig& config = info.config;
  std::string text;
  AddRow(&text, "family", FamilyName(config.family));
  AddRow(&text, "parameters",
         absl::StrFormat("%s in %d layers of %d, vocabulary %d", WithPrefix(static_cast<double>(info.parameters), ""),
                         config.num_layers, config.hidden_size, config.vocab_size));
  AddRow(&text, "retention",
         absl::StrFormat("%d query and %d key/value heads of %d, degree %d, chunks of %d", config.heads_q,
                         config.heads_kv, config.head_dim, config.degree, config.chunk));
  AddStateRows(info, &text);
  AddRow(&text, "work per token",
         absl::StrFormat("%s in matrices, %s in retention, %s for logits", WithPrefix(info.linear_flops, "FLOP"),
                         WithPrefix(info.retention_flops, "FLOP"), WithPrefix(info.head_flops, "FLOP")));
  absl::StrAppend(&text, "\nIn ", Bytes(info.memory_bytes), " of memory:\n");
  absl::StrAppend(&text, absl::StrFormat("%-10s %12s %22s %26s\n", "weights", "bytes", "sequences of any length",
                                         "or tokens of KV cache"));
  for (const CheckpointInfo::Fit& fit : info.fits) {
    const std::string sequences = fit.sequences < 0 ? "does not fit" : absl::StrCat(fit.sequences);
    absl::StrAppend(&text, absl::StrFormat("%-10s %12s %22s %26s\n", fit.dtype, Bytes(fit.weight_bytes), sequences,
                                           Tokens(fit.kv_tokens)));
  }
  for (const std::string& warning : config.warnings) absl::StrAppend(&text, "\nnote: ", warning, "\n");
  return text;
}

std::string InfoJson(const CheckpointInfo& info) {
  const ModelConfig& config = info.config;
  const bool has_state = info.switch_over >= 0;
  Json fits = Json::array();
  for (const CheckpointInfo::Fit& fit : info.fits) {
    fits.push_back({{"dtype", fit.dtype},
                    {"weight_bytes", fit.weight_bytes},
                    {"sequences", std::max<int64_t>(0, fit.sequences)},
                    {"weights_fit", fit.sequences >= 0},
                    {"kv_cache_tokens", fit.kv_tokens}});
  }
  const Json json = {{"family", FamilyName(config.family)},
                     {"parameters", info.parameters},
                     {"hidden_size", config.hidden_size},
                     {"intermediate_size", config.intermediate_size},
                     {"num_layers", config.num_layers},
                     {"vocab_size", config.vocab_size},
                     {"heads_q", config.heads_q},
                     {"heads_kv", config.heads_kv},
                     {"head_dim", config.head_dim},
                     {"degree", config.degree},
                     {"chunk", config.chunk},
                     {"state_bytes", {{"f32", info.state_f32_bytes}, {"bf16", info.state_bf16_bytes}}},
                     {"tail_bytes", info.tail_bytes},
                     {"slot_bytes", info.slot_bytes},
                     {"switch_over", has_state ? Json(info.switch_over) : Json(nullptr)},
                     {"max_tail_tokens", has_state ? Json(nullptr) : Json(info.max_tail_tokens)},
                     {"kv_cache_bytes_per_token", info.kv_bytes_per_token},
                     {"break_even_tokens", {{"f32", info.break_even_f32}, {"bf16", info.break_even_bf16}}},
                     {"flops_per_token",
                      {{"linear", info.linear_flops}, {"retention", info.retention_flops}, {"head", info.head_flops}}},
                     {"memory_bytes", info.memory_bytes},
                     {"fits", std::move(fits)},
                     {"warnings", config.warnings}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace statehouse
