// What happens to a text before it is split into words: nothing, or Unicode's NFC. Thread-safety: immutable.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/tokenizer/fingerprint.h"

namespace statehouse {

class Normalizer {
 public:
  // Leaves every text as it is.
  Normalizer() = default;
  static Normalizer Nfc();
  // `node` is the field "normalizer" of a tokenizer.json: null, NFC, or a Sequence of these. UNIMPLEMENTED names
  // another type; INVALID_ARGUMENT names the field. `where` opens each message.
  static absl::StatusOr<Normalizer> FromJson(const nlohmann::json& node, const std::string& where);

  bool is_identity() const { return !nfc_; }
  // Takes O(n log n) time for any text. Bytes that are not UTF-8 stay as they are, and nothing composes across them.
  std::string Normalize(std::string_view text) const;
  void AddTo(Fingerprint* fingerprint) const { fingerprint->Add(nfc_ ? "NFC" : ""); }

 private:
  bool nfc_ = false;
};

}  // namespace statehouse
