// A checkpoint directory for the time of a test, and tokenizer files to put in it.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/byte_alphabet.h"

namespace statehouse {

class CheckpointDir {
 public:
  CheckpointDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tokenizer-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~CheckpointDir() { std::filesystem::remove_all(path_); }
  CheckpointDir(const CheckpointDir&) = delete;
  CheckpointDir& operator=(const CheckpointDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void Write(const std::string& name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  void Write(const std::string& name, const nlohmann::json& content) const {
    Write(name, std::string_view(content.dump()));
  }

 private:
  std::filesystem::path path_;
};

// The text of a byte-level vocabulary: spaces as "Ġ" and so on.
inline std::string InAlphabet(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += ByteLevelCharacter(static_cast<unsigned char>(byte));
  return text;
}

// 256 byte tokens (ids 0 to 255 = the byte), then what `merges` make, in order.
inline nlohmann::json ByteVocab(const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[ByteLevelCharacter(static_cast<unsigned char>(byte))] = byte;
  for (const auto& [left, right] : merges) {
    const std::string token = InAlphabet(left + right);
    if (!vocab.contains(token)) vocab[token] = vocab.size();
  }
  return vocab;
}

// A tokenizer.json over ByteVocab(merges), split as GPT-2 splits, with the special token "<|end|>" and the added
// "<think>".
inline nlohmann::json TokenizerJson(const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json root = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"normalizer", nullptr}};
  root["pre_tokenizer"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  root["decoder"] = {{"type", "ByteLevel"}};
  root["post_processor"] = nullptr;
  const nlohmann::json vocab = ByteVocab(merges);
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [left, right] : merges) list.push_back({InAlphabet(left), InAlphabet(right)});
  root["model"] = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", list}};
  const auto added = [](size_t id, const char* content, bool special) -> nlohmann::json {
    return {{"id", id},        {"content", content}, {"special", special}, {"single_word", false},
            {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
  };
  root["added_tokens"] = {added(vocab.size(), "<|end|>", true), added(vocab.size() + 1, "<think>", false)};
  return root;
}

// Writes SentencePiece model files, field by field.
class SentencePieceWriter {
 public:
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6 };

  SentencePieceWriter& Piece(std::string_view text, float score, int type) {
    std::string piece = Bytes(1, text);
    piece += '\x15';  // field 2, 32 bits
    piece.append(reinterpret_cast<const char*>(&score), sizeof(score));
    piece += Varint(3, static_cast<uint64_t>(type));
    pieces_ += Bytes(1, piece);
    return *this;
  }
  // <unk>, <s>, </s> and the 256 bytes: ids 0 to 258.
  SentencePieceWriter& Usual() {
    Piece("<unk>", 0, kUnknown).Piece("<s>", 0, kControl).Piece("</s>", 0, kControl);
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof(name), "<0x%02X>", byte);
      Piece(name, 0, kByte);
    }
    return *this;
  }
  SentencePieceWriter& DummyPrefix(bool on) { return dummy_prefix_ = on, *this; }
  SentencePieceWriter& RemoveExtraSpaces(bool on) { return remove_extra_ = on, *this; }
  SentencePieceWriter& CharsMap(std::string_view map) { return chars_map_ = map, *this; }
  SentencePieceWriter& ModelType(int type) { return model_type_ = type, *this; }

  std::string Model() const {
    std::string normalizer = Bytes(1, "identity");
    if (!chars_map_.empty()) normalizer += Bytes(2, chars_map_);
    normalizer += Varint(3, dummy_prefix_) + Varint(4, remove_extra_) + Varint(5, 1);
    const std::string trainer = Varint(3, static_cast<uint64_t>(model_type_)) + Varint(35, 1);  // byte_fallback
    return pieces_ + Bytes(2, trainer) + Bytes(3, normalizer);
  }

  static std::string Varint(int field, uint64_t value) {
    return Number(static_cast<uint64_t>(field) << 3) + Number(value);
  }
  static std::string Bytes(int field, std::string_view bytes) {
    return Number(static_cast<uint64_t>(field) << 3 | 2) + Number(bytes.size()) + std::string(bytes);
  }

 private:
  static std::string Number(uint64_t value) {
    std::string out;
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    return out += static_cast<char>(value);
  }

  std::string pieces_;
  std::string chars_map_;
  bool dummy_prefix_ = false;
  bool remove_extra_ = false;
  int model_type_ = 2;  // BPE
};

}  // namespace statehouse
