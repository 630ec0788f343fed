#include "engine/state/journal.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_format.h"

namespace statehouse {
namespace {

constexpr size_t kHeadBytes = sizeof(uint32_t) + sizeof(uint64_t);

// Bytes of the next record, head included; 0 if it is not whole or not right.
size_t NextRecord(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeadBytes) return 0;
  uint64_t checksum = 0;
  uint32_t size = 0;
  std::memcpy(&checksum, bytes.data(), sizeof(checksum));
  std::memcpy(&size, bytes.data() + sizeof(checksum), sizeof(size));
  if (size > Journal::kMaxRecordBytes || size > bytes.size() - kHeadBytes) return 0;
  const auto checked = bytes.subspan(sizeof(checksum), sizeof(size) + size);
  return snapshot_format::Checksum(checked) == checksum ? kHeadBytes + size : 0;
}

}  // namespace

std::string Journal::Frame(std::string_view record) {
  const uint32_t size = static_cast<uint32_t>(record.size());
  std::string framed(kHeadBytes, '\0');
  framed.append(record);
  std::memcpy(framed.data() + sizeof(uint64_t), &size, sizeof(size));
  const uint64_t checksum = snapshot_format::Checksum(std::as_bytes(std::span(framed)).subspan(sizeof(uint64_t)));
  std::memcpy(framed.data(), &checksum, sizeof(checksum));
  return framed;
}

absl::StatusOr<JournalContents> Journal::Read(FileLayer* files, const std::string& path) {
  JournalContents contents;
  const auto bytes = files->Read(path);
  if (absl::IsNotFound(bytes.status())) return contents;
  if (!bytes.ok()) return bytes.status();
  const auto payload = [](std::span<const std::byte> record) {
    return std::string(reinterpret_cast<const char*>(record.data()) + kHeadBytes, record.size() - kHeadBytes);
  };
  std::span<const std::byte> rest(*bytes);
  while (const size_t next = NextRecord(rest)) {
    contents.records.push_back(payload(rest.first(next)));
    rest = rest.subspan(next);
  }
  contents.torn_bytes = static_cast<int64_t>(rest.size());
  contents.whole_bytes = static_cast<int64_t>(bytes->size() - rest.size());
  while (!rest.empty()) {
    const size_t next = NextRecord(rest);
    if (next > 0) contents.beyond.push_back(payload(rest.first(next)));
    rest = rest.subspan(std::max<size_t>(next, 1));
  }
  return contents;
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::OpenAt(FileLayer* files, const std::string& path,
                                                         int64_t whole_bytes) {
  auto file = files->OpenAppend(path);
  if (!file.ok()) return file.status();
  if ((*file)->size() != whole_bytes) {
    if (absl::Status status = (*file)->Truncate(whole_bytes); !status.ok()) return status;
    if (absl::Status status = (*file)->Sync(); !status.ok()) return status;
  }
  return std::unique_ptr<Journal>(new Journal(path, *std::move(file)));
}

absl::Status Journal::Append(std::string_view record, bool sync) {
  if (!broken_.ok()) return broken_;
  if (static_cast<int64_t>(record.size()) > kMaxRecordBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, ": a record of ", record.size(), " bytes; at most ", kMaxRecordBytes, " fit"));
  }
  const int64_t before = file_->size();
  const std::string framed = Frame(record);
  const absl::Status status = file_->Append(std::as_bytes(std::span(framed)));
  if (!status.ok()) {
    // Half a record must not stand before the next one.
    if (absl::Status cut = file_->Truncate(before); !cut.ok()) return Break(cut);
    return absl::IsResourceExhausted(status) ? status : Break(status);
  }
  return sync ? Sync() : absl::OkStatus();
}

absl::Status Journal::Sync() {
  if (!broken_.ok()) return broken_;
  // After a failed sync the system may have dropped what was written: nothing may be promised on top of it.
  const absl::Status status = file_->Sync();
  return status.ok() ? status : Break(status);
}

absl::Status Journal::Break(const absl::Status& status) {
  broken_ = absl::InternalError(
      absl::StrCat(std::string(status.message()), "; the journal takes no more records until ", "it is opened again"));
  return broken_;
}

}  // namespace statehouse
