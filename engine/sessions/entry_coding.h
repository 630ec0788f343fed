// How archives of files write entries. Thread-safety: free functions.
#pragma once

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
  if (!IsSessionId(entry.id)) from->Fail();
  return entry;
}

}  // namespace statehouse
