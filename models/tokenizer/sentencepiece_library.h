// The SentencePiece library behind std types alone. Its header declares absl::string_view anew, which Debian's abseil
// has too, so only sentencepiece_library.cc may include it, and that file may include no abseil. Thread-safety: const
// methods may be called from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace statehouse {

class SentencePieceLibrary {
 public:
  // Null if the library refuses the model; `error` then says why. REQUIRES: ReadSentencePieceModel() accepts it.
  static std::unique_ptr<SentencePieceLibrary> Load(std::string_view model, std::string* error);
  ~SentencePieceLibrary();

  // Replaces `ids`. False if the library fails; `error` then says why. REQUIRES: `text` is UTF-8.
  bool Encode(std::string_view text, std::vector<int>* ids, std::string* error) const;
  // Replaces `text`. REQUIRES: the ids are in the vocabulary.
  bool Decode(const std::vector<int>& ids, std::string* text, std::string* error) const;
  // -1 where the model has none.
  int bos_id() const;
  int eos_id() const;

 private:
  struct Processor;
  SentencePieceLibrary();

  std::unique_ptr<Processor> processor_;
};

}  // namespace statehouse
