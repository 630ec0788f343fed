// How LocalArchive writes entries, in its catalog and at the head of a session's file. Private to LocalArchive.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/sessions/byte_coding.h"
#include "engine/sessions/session_archive.h"

namespace statehouse {

inline void WriteEntry(const SessionEntry& entry, ByteWriter* to) {
  to->Text(entry.id);
  to->Text(entry.principal);
  to->Text(entry.name);
  to->Text(entry.meta);
}

// Fails the reader if the id could not be one.
inline SessionEntry ReadEntry(ByteReader* from) {
  SessionEntry entry;
  entry.id = from->Text();
  entry.principal = from->Text();
  entry.name = from->Text();
  entry.meta = from->Text();
  if (entry.id.size() != 32 || entry.id.find_first_not_of("0123456789abcdef") != std::string::npos) from->Fail();
  return entry;
}

// The first payload of a session's file: its entry as of then, and which records were written whole with it.
bool ParseHead(std::string_view payload, SessionEntry* entry, int64_t* first, int64_t* last);

}  // namespace statehouse
