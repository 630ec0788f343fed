#include "models/tokenizer/token_table.h"

namespace statehouse {

void TokenTable::Set(int32_t id, const Token& token) {
  if (id >= size()) entries_.resize(static_cast<size_t>(id) + 1);
  Entry& entry = entries_[static_cast<size_t>(id)];
  if (!entry.present) {
    entry.present = true;
    entry.name_offset = static_cast<uint32_t>(text_.size());
    entry.name_size = static_cast<uint32_t>(token.name.size());
    text_ += token.name;
    if (token.bytes == token.name) {
      entry.bytes_offset = entry.name_offset;
    } else {
      entry.bytes_offset = static_cast<uint32_t>(text_.size());
      text_ += token.bytes;
    }
    entry.bytes_size = static_cast<uint32_t>(token.bytes.size());
  }
  entry.special = token.special;
  entry.drops_first = token.drops_first;
}

void TokenTable::MarkSpecial(int32_t id) { entries_[static_cast<size_t>(id)].special = true; }

std::string_view TokenTable::Name(int32_t id) const {
  if (!Has(id)) return {};
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return View(entry.name_offset, entry.name_size);
}

std::string_view TokenTable::Bytes(int32_t id) const {
  if (!Has(id) || IsSpecial(id)) return {};
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return View(entry.bytes_offset, entry.bytes_size);
}

std::string_view TokenTable::FirstBytes(int32_t id) const {
  std::string_view bytes = Bytes(id);
  if (!bytes.empty() && entries_[static_cast<size_t>(id)].drops_first) bytes.remove_prefix(1);
  return bytes;
}

void TokenTable::AddTo(Fingerprint* fingerprint) const {
  fingerprint->Add(size());
  for (int32_t id = 0; id < size(); ++id) {
    const Entry& entry = entries_[static_cast<size_t>(id)];
    fingerprint->Add((entry.present ? 1 : 0) | (entry.special ? 2 : 0) | (entry.drops_first ? 4 : 0));
    fingerprint->Add(View(entry.name_offset, entry.name_size));
    fingerprint->Add(View(entry.bytes_offset, entry.bytes_size));
  }
}

}  // namespace statehouse
