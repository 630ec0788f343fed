// A tokenizer whose ids are bytes, with a few special tokens behind them. Thread-safety: immutable.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace statehouse::testing {

class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kImStart = 256;
  static constexpr int32_t kImEnd = 257;
  static constexpr int32_t kBos = 258;
  static constexpr int32_t kEos = 259;
  static constexpr int32_t kSize = 260;

  FakeTokenizer() {
    for (int i = 0; i < 256; ++i) bytes_[i] = std::string(1, static_cast<char>(i));
  }

  int32_t size() const override { return kSize; }
  std::string_view TokenBytes(int32_t id) const override {
    return id >= 0 && id < 256 ? std::string_view(bytes_[id]) : std::string_view();
  }
  bool IsSpecial(int32_t id) const override { return id >= 256 && id < kSize; }
  std::string_view TokenName(int32_t id) const override { return IsSpecial(id) ? kNames[id - 256] : TokenBytes(id); }
  absl::Status Encode(std::string_view text, const EncodeOptions& options, std::vector<int32_t>* ids) const override {
    if (options.add_special_tokens) ids->push_back(kBos);
    while (!text.empty()) {
      const auto special = options.parse_special_tokens ? SpecialAt(text) : std::nullopt;
      ids->push_back(special.value_or(static_cast<unsigned char>(text[0])));
      text.remove_prefix(special.has_value() ? kNames[*special - 256].size() : 1);
    }
    return absl::OkStatus();
  }
  std::optional<int32_t> FindSpecial(std::string_view name) const override {
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (kNames[i] == name) return 256 + static_cast<int32_t>(i);
    }
    return std::nullopt;
  }
  std::optional<int32_t> bos_id() const override { return kBos; }
  std::optional<int32_t> eos_id() const override { return kEos; }
  std::string_view kind() const override { return "byte-level BPE"; }
  uint64_t fingerprint() const override { return 1; }

 private:
  static constexpr std::array<std::string_view, 4> kNames = {"<|im_start|>", "<|im_end|>", "<bos>", "<eos>"};
  static std::optional<int32_t> SpecialAt(std::string_view text) {
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (text.starts_with(kNames[i])) return 256 + static_cast<int32_t>(i);
    }
    return std::nullopt;
  }
  std::array<std::string, 256> bytes_;
};

}  // namespace statehouse::testing
