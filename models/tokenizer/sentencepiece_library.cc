#include "models/tokenizer/sentencepiece_library.h"

#include <sentencepiece_processor.h>

#include <exception>

namespace statehouse {
namespace {

// Runs one call of the library: its status, or what it throws, ends up in `error`.
template <typename Call>
bool Guard(std::string* error, Call call) {
  try {
    const sentencepiece::util::Status status = call();
    if (status.ok()) return true;
    *error = status.message();
  } catch (const std::exception& exception) {
    *error = exception.what();
  }
  return false;
}

}  // namespace

struct SentencePieceLibrary::Processor {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceLibrary::SentencePieceLibrary() : processor_(std::make_unique<Processor>()) {}
SentencePieceLibrary::~SentencePieceLibrary() = default;

std::unique_ptr<SentencePieceLibrary> SentencePieceLibrary::Load(std::string_view model, std::string* error) {
  std::unique_ptr<SentencePieceLibrary> library(new SentencePieceLibrary);
  const bool loaded = Guard(error, [&] { return library->processor_->processor.LoadFromSerializedProto(model); });
  return loaded ? std::move(library) : nullptr;
}

bool SentencePieceLibrary::Encode(std::string_view text, std::vector<int>* ids, std::string* error) const {
  return Guard(error, [&] { return processor_->processor.Encode(text, ids); });
}

bool SentencePieceLibrary::Decode(const std::vector<int>& ids, std::string* text, std::string* error) const {
  return Guard(error, [&] { return processor_->processor.Decode(ids, text); });
}

int SentencePieceLibrary::bos_id() const { return processor_->processor.bos_id(); }
int SentencePieceLibrary::eos_id() const { return processor_->processor.eos_id(); }

}  // namespace statehouse
