#include "models/config.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/config_reader.h"
#include "models/json.h"
#include "models/token_ids.h"

namespace statehouse {
namespace {

using nlohmann::json;

// Bounds far above any real model, low enough that products of two of them stay within int64.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxVocab = 1 << 27;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 256;
constexpr int64_t kMaxChunk = 65536;
constexpr int64_t kMaxTokens = int64_t{1} << 48;
constexpr int64_t kDefaultChunk = 128;

void ReadFamily(ConfigReader& reader, ModelConfig* config) {
  constexpr std::pair<const char*, Family> kTypes[] = {{"powercoder", Family::kPowerCoder},
                                                       {"brumby", Family::kBrumby}};
  constexpr std::pair<const char*, Family> kArchitectures[] = {{"PowerCoderForCausalLM", Family::kPowerCoder},
                                                               {"BrumbyForCausalLM", Family::kBrumby}};
  std::optional<Family> by_type;
  const std::string type = reader.String("model_type", "");
  for (const auto& [name, family] : kTypes) {
    if (type == name) by_type = family;
  }
  std::optional<Family> by_architecture;
  if (reader.Has("architectures")) {
    const json& names = reader.Value("architectures");
    for (const auto& [name, family] : kArchitectures) {
      if (names.is_array() && names.size() == 1 && names[0] == name) by_architecture = family;
    }
    if (!by_architecture) {
      reader.Unsupported("architectures", ShownValue(names), "[\"PowerCoderForCausalLM\"] or [\"BrumbyForCausalLM\"]");
    }
  }
  if (!by_type && (!type.empty() || !by_architecture)) {
    reader.Unsupported("model_type", type.empty() ? "missing" : QuotedName(type), "\"powercoder\" or \"brumby\"");
  }
  if (by_type && by_architecture && by_type != by_architecture) {
    reader.Invalid("architectures", ShownValue(reader.Value("architectures")),
                   absl::StrCat("the architecture of model_type ", QuotedName(type)));
  }
  config->family = by_type ? *by_type : by_architecture.value_or(Family::kPowerCoder);
}

void ReadSizes(ConfigReader& reader, ModelConfig* config) {
  config->hidden_size = reader.RequiredInt("hidden_size", 1, kMaxWidth);
  config->intermediate_size = reader.RequiredInt("intermediate_size", 1, kMaxWidth);
  config->num_layers = reader.RequiredInt("num_hidden_layers", 1, kMaxLayers);
  config->vocab_size = reader.RequiredInt("vocab_size", 1, kMaxVocab);
  config->heads_q = static_cast<int>(reader.RequiredInt("num_attention_heads", 1, kMaxHeads));
  config->heads_kv = static_cast<int>(reader.Int("num_key_value_heads", config->heads_q, 1, kMaxHeads));
  if (config->heads_q % config->heads_kv != 0) {
    reader.Invalid("num_key_value_heads", absl::StrCat(config->heads_kv),
                   absl::StrCat("a divisor of num_attention_heads, ", config->heads_q));
  }
  if (!reader.Has("head_dim") && config->hidden_size % config->heads_q != 0) {
    reader.Invalid("hidden_size", absl::StrCat(config->hidden_size),
                   absl::StrCat("a multiple of num_attention_heads, ", config->heads_q, ", or a head_dim"));
  }
  config->head_dim = static_cast<int>(reader.Int("head_dim", config->hidden_size / config->heads_q, 1, kMaxHeadDim));
  if (config->head_dim % 2 != 0 || config->head_dim < 2 || config->head_dim > kMaxHeadDim) {
    reader.Invalid("head_dim", absl::StrCat(config->head_dim), absl::StrCat("an even number from 2 to ", kMaxHeadDim));
  }
  config->max_position_embeddings = reader.Int("max_position_embeddings", 0, 0, kMaxTokens);
}

void ReadRetention(ConfigReader& reader, ModelConfig* config) {
  config->degree = static_cast<int>(reader.Int("p", 2, 1, 64));
  if (config->degree != 2 && config->degree != 4) reader.Unsupported("p", absl::StrCat(config->degree), "2 or 4");
  config->chunk = reader.Int("chunk_size", kDefaultChunk, 1, kMaxChunk);
  if (reader.Has("switch_over_seq_len"))
    config->switch_over_bound = reader.Int("switch_over_seq_len", 0, 0, kMaxTokens);
}

// rope_scaling, or rope_parameters as newer exports name it: nothing but a plain rotation over the whole head is
// supported.
void ReadRope(ConfigReader& reader, ModelConfig* config) {
  config->rope_theta = reader.Double("rope_theta", 0, 1e15, /*open_low=*/true).value_or(1e4);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.Has(key)) continue;
    const json& rope = reader.Value(key);
    if (!rope.is_object()) {
      reader.Invalid(key, ShownValue(rope), "null or an object");
      return;
    }
    ConfigReader fields(absl::StrCat(reader.file(), ": ", key), rope);
    const std::string type = fields.String("rope_type", fields.String("type", "default"));
    if (!fields.status().ok() || type != "default") {
      reader.Unsupported(key, ShownValue(rope), "null or the rope_type \"default\"");
      return;
    }
    if (const auto theta = fields.Double("rope_theta", 0, 1e15, /*open_low=*/true)) config->rope_theta = *theta;
    if (!fields.status().ok()) reader.Invalid(key, ShownValue(rope), "rope_theta above 0 and at most 1e15");
  }
  const auto partial = reader.Double("partial_rotary_factor", 0, 1);
  if (partial && *partial != 1) reader.Unsupported("partial_rotary_factor", absl::StrCat(*partial), "1");
}

// Options that change the maths and that nothing here computes: refused, never ignored.
void RefuseOptions(ConfigReader& reader, const ModelConfig& config) {
  const auto refuse_unless = [&](const char* key, std::initializer_list<const char*> allowed) {
    if (!reader.Has(key)) return;
    const json& value = reader.Value(key);
    for (const char* name : allowed) {
      if (value == name) return;
    }
    reader.Unsupported(key, ShownValue(value), absl::StrCat("\"", absl::StrJoin(allowed, "\" or \""), "\""));
  };
  refuse_unless("hybrid_exp", {"none"});
  if (reader.Bool("use_exp", false)) reader.Unsupported("use_exp", "true", "false");
  if (reader.Has("quantization_config"))
    reader.Unsupported("quantization_config", "an object", "F32, F16 or BF16 weights");

  // StarCoder2 configs turn windows on by naming one; Qwen3 ones need use_sliding_window as well.
  const bool powercoder = config.family == Family::kPowerCoder;
  const bool windows = reader.Bool("use_sliding_window", powercoder && reader.Has("sliding_window"));
  if (windows && reader.Has("sliding_window")) {
    reader.Unsupported("sliding_window", ShownValue(reader.Value("sliding_window")), "null");
  } else if (windows) {
    reader.Unsupported("use_sliding_window", "true", "false");
  }
  if (reader.Has("layer_types")) {
    const json& types = reader.Value("layer_types");
    const json list = types.is_array() ? types : json::array({types});
    for (const json& type : list) {
      if (type != "full_attention" && type != "power_retention") {
        reader.Unsupported("layer_types", ShownValue(type),
                           "\"full_attention\" or \"power_retention\" for every layer");
      }
    }
  }
  if (powercoder) {
    refuse_unless("hidden_act", {"gelu_pytorch_tanh", "gelu_new"});
    refuse_unless("norm_type", {"layer_norm"});
    refuse_unless("mlp_type", {"default"});
  } else {
    refuse_unless("hidden_act", {"silu", "swish"});
    if (reader.Bool("attention_bias", false)) reader.Unsupported("attention_bias", "true", "false");
  }
}

void ReadNorms(ConfigReader& reader, ModelConfig* config) {
  const bool powercoder = config->family == Family::kPowerCoder;
  const char* key = powercoder ? "norm_epsilon" : "rms_norm_eps";
  config->norm_epsilon =
      static_cast<float>(reader.Double(key, 0, 1, /*open_low=*/true).value_or(powercoder ? 1e-5 : 1e-6));
  config->use_bias = powercoder && reader.Bool("use_bias", true);
  config->tie_embeddings = reader.Bool("tie_word_embeddings", powercoder);
}

void ReadGenerationDefaults(ConfigReader& reader, GenerationDefaults* defaults) {
  defaults->temperature = reader.Double("temperature", 0, 100);
  defaults->top_p = reader.Double("top_p", 0, 1, /*open_low=*/true);
  defaults->min_p = reader.Double("min_p", 0, 1);
  defaults->typical_p = reader.Double("typical_p", 0, 1, /*open_low=*/true);
  defaults->repetition_penalty = reader.Double("repetition_penalty", 0, 10, /*open_low=*/true);
  if (reader.Has("top_k")) {
    // -1 is how some files say "off"; here that is 0.
    const int64_t top_k = reader.Int("top_k", 0, -1, kMaxVocab);
    defaults->top_k = top_k < 0 ? 0 : top_k;
  }
  defaults->greedy = !reader.Bool("do_sample", true);
}

absl::StatusOr<json> ReadOptionalObject(const std::filesystem::path& file) {
  auto document = ReadJsonFile(file);
  if (absl::IsNotFound(document.status())) return json::object();
  return document;
}

}  // namespace

const char* FamilyName(Family family) { return family == Family::kPowerCoder ? "powercoder" : "brumby"; }

absl::StatusOr<CheckpointConfig> ReadConfig(const std::filesystem::path& checkpoint_dir, const TokenIdSource& ids) {
  const std::filesystem::path config_file = checkpoint_dir / "config.json";
  const auto config_json = ReadJsonFile(config_file);
  if (absl::IsNotFound(config_json.status())) {
    return absl::NotFoundError(absl::StrCat(
        config_file.string(), ": no such file; expected a Hugging Face checkpoint directory with config.json"));
  }
  if (!config_json.ok()) return config_json.status();
  const std::filesystem::path generation_file = checkpoint_dir / "generation_config.json";
  const auto generation_json = ReadOptionalObject(generation_file);
  if (!generation_json.ok()) return generation_json.status();

  CheckpointConfig result;
  ModelConfig& model = result.model;
  ConfigReader reader(config_file.string(), *config_json);
  ReadFamily(reader, &model);
  ReadSizes(reader, &model);
  ReadRetention(reader, &model);
  ReadRope(reader, &model);
  ReadNorms(reader, &model);
  RefuseOptions(reader, model);

  ConfigReader generation(generation_file.string(), *generation_json);
  ReadGenerationDefaults(generation, &result.generation);
  // generation_config.json is the later word where both name usable ids.
  for (ConfigReader* source : {&generation, &reader}) {
    if (model.bos_ids.empty()) model.bos_ids = ReadTokenIds(*source, "bos_token_id", model.vocab_size, &model.warnings);
    if (model.bos_ids.size() > 1) source->Invalid("bos_token_id", "a list of several", "one id");
    if (model.eos_ids.empty()) model.eos_ids = ReadTokenIds(*source, "eos_token_id", model.vocab_size, &model.warnings);
  }
  if (!reader.status().ok()) return reader.status();
  if (!generation.status().ok()) return generation.status();

  if (model.eos_ids.empty()) {
    const auto eos = FallbackEos(checkpoint_dir, model.vocab_size, ids, &model.warnings);
    if (eos) model.eos_ids.push_back(*eos);
  }
  return result;
}

}  // namespace statehouse
