// Text to token ids and back, for the tokenizer files of a checkpoint directory.
//
// Load() takes the first that is there: `tokenizer.json` (byte-level BPE), `tokenizer.model` (SentencePiece), or
// `vocab.json` + `merges.txt` (byte-level BPE); special tokens come from those files, `special_tokens_map.json`,
// `tokenizer_config.json` and `added_tokens.json`. Thread-safety: const methods may be called from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

struct EncodeOptions {
  // Put the tokens around the text that the tokenizer's own files ask for (BOS, mostly).
  bool add_special_tokens = true;
  // Read "<|end|>" and the like in the text as the token. Off for anything a user typed: on, text can forge messages.
  bool parse_special_tokens = false;
};

class Tokenizer : public Vocabulary {
 public:
  // NOT_FOUND if the directory has no tokenizer; UNIMPLEMENTED names an option that is not supported; INVALID_ARGUMENT
  // names file and field of a malformed one.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& checkpoint_dir);

  // Appends the ids of `text` (UTF-8; invalid bytes are encoded as bytes where the model can, else refused).
  virtual absl::Status Encode(std::string_view text, const EncodeOptions& options, std::vector<int32_t>* ids) const = 0;
  // The whole text of `ids`; special tokens are left out unless show_special.
  std::string Decode(std::span<const int32_t> ids, bool show_special = false) const;
  // The id of a special or added token by its spelling.
  virtual std::optional<int32_t> FindSpecial(std::string_view name) const = 0;
  // Ids that the tokenizer's own files name, if any.
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
  // "sentencepiece" or "byte-level BPE".
  virtual std::string_view kind() const = 0;
  // xxh3 or the like over everything that changes an encoding: part of a model's identity.
  virtual uint64_t fingerprint() const = 0;
};

}  // namespace statehouse
