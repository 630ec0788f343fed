// Writes small checkpoint directories, good ones and broken ones, for the loaders' tests.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace statehouse::testing {

// A directory of its own, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "statehouse-XXXXXX").string();
    const char* made = mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr);
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void WriteFile(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream stream(file, std::ios::binary | std::ios::trunc);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(stream.good()) << file;
}

// A safetensors file of this header text and data, whatever they say.
inline std::string RawSafetensors(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes.append(header).append(data);
}

struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using RawTensors = std::map<std::string, RawTensor>;

inline std::string SafetensorsBytes(const RawTensors& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    header[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return RawSafetensors(header.dump(), data);
}

// Values of a small, fixed pattern around 0; `offset` tells tensors apart.
inline RawTensor PatternF32(const std::vector<int64_t>& shape, int offset) {
  int64_t size = 1;
  for (int64_t dim : shape) size *= dim;
  std::vector<float> values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = static_cast<float>((i * 37 + offset * 11) % 64 - 32) / 64.0f;
  RawTensor tensor{"F32", shape, std::string(size * sizeof(float), '\0')};
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

// Two layers, hidden 8, heads 2/1 of size 4, MLP 12, vocabulary 16.
inline nlohmann::json TinyPowerCoderConfig() {
  return {{"architectures", {"PowerCoderForCausalLM"}},
          {"model_type", "powercoder"},
          {"hidden_size", 8},
          {"intermediate_size", 12},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"vocab_size", 16},
          {"bos_token_id", 0},
          {"eos_token_id", 0}};
}
inline nlohmann::json TinyBrumbyConfig() {
  return {{"architectures", {"BrumbyForCausalLM"}},
          {"model_type", "brumby"},
          {"hidden_size", 8},
          {"head_dim", 4},
          {"intermediate_size", 12},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"vocab_size", 16},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

inline RawTensors TinyPowerCoderTensors() {
  RawTensors tensors;
  int offset = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = PatternF32(shape, offset++);
  };
  const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    add(name + ".weight", {outputs, inputs});
    add(name + ".bias", {outputs});
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {8});
    add(name + ".bias", {8});
  };
  add("model.embed_tokens.weight", {16, 8});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    norm(layer + "input_layernorm");
    norm(layer + "post_attention_layernorm");
    linear(layer + "self_attn.q_proj", 8, 8);
    linear(layer + "self_attn.k_proj", 4, 8);
    linear(layer + "self_attn.v_proj", 4, 8);
    linear(layer + "self_attn.g_proj", 1, 8);
    linear(layer + "self_attn.o_proj", 8, 8);
    linear(layer + "mlp.c_fc", 12, 8);
    linear(layer + "mlp.c_proj", 8, 12);
  }
  norm("model.norm");
  return tensors;
}

// Without a head of its own.
inline RawTensors TinyBrumbyTensors() {
  RawTensors tensors;
  int offset = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name + ".weight"] = PatternF32(shape, offset++);
  };
  add("model.embed_tokens", {16, 8});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "input_layernorm", {8});
    add(layer + "post_attention_layernorm", {8});
    add(layer + "self_attn.q_proj", {8, 8});
    add(layer + "self_attn.k_proj", {4, 8});
    add(layer + "self_attn.v_proj", {4, 8});
    add(layer + "self_attn.g_proj", {1, 8});
    add(layer + "self_attn.o_proj", {8, 8});
    add(layer + "self_attn.q_norm", {4});
    add(layer + "self_attn.k_norm", {4});
    add(layer + "mlp.gate_proj", {12, 8});
    add(layer + "mlp.up_proj", {12, 8});
    add(layer + "mlp.down_proj", {8, 12});
  }
  add("model.norm", {8});
  return tensors;
}

inline void WriteCheckpoint(const std::filesystem::path& dir, const nlohmann::json& config, const RawTensors& tensors) {
  WriteFile(dir / "config.json", config.dump());
  WriteFile(dir / "model.safetensors", SafetensorsBytes(tensors));
}

}  // namespace statehouse::testing
