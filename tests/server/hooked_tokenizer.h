// A FakeTokenizer that does what a test wants before it encodes a text: wait, refuse, find no memory. Thread-safety: as
// the hook's.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/fake_tokenizer.h"

namespace statehouse::testing {

class HookedTokenizer final : public Tokenizer {
 public:
  using Hook = std::function<absl::Status(std::string_view text)>;
  explicit HookedTokenizer(Hook hook) : hook_(std::move(hook)) {}

  absl::Status Encode(std::string_view text, const EncodeOptions& options, std::vector<int32_t>* ids) const override {
    if (absl::Status status = hook_(text); !status.ok()) return status;
    return fake_.Encode(text, options, ids);
  }
  int32_t size() const override { return fake_.size(); }
  std::string_view TokenBytes(int32_t id) const override { return fake_.TokenBytes(id); }
  bool IsSpecial(int32_t id) const override { return fake_.IsSpecial(id); }
  std::string_view TokenName(int32_t id) const override { return fake_.TokenName(id); }
  std::optional<int32_t> FindSpecial(std::string_view name) const override { return fake_.FindSpecial(name); }
  std::optional<int32_t> bos_id() const override { return fake_.bos_id(); }
  std::optional<int32_t> eos_id() const override { return fake_.eos_id(); }
  std::string_view kind() const override { return fake_.kind(); }
  uint64_t fingerprint() const override { return 2; }

 private:
  const FakeTokenizer fake_;
  const Hook hook_;
};

}  // namespace statehouse::testing
