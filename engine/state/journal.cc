#include "engine/state/journal.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_format.h"

namespace statehouse {
namespace {

constexpr size_t kHeadBytes = sizeof(uint32_t) + sizeof(uint64_t);

std::string Framed(std::string_view record) {
  const uint32_t size = static_cast<uint32_t>(record.size());
  std::string framed(kHeadBytes, '\0');
  framed.append(record);
  std::memcpy(framed.data() + sizeof(uint64_t), &size, sizeof(size));
  const uint64_t checksum = snapshot_format::Checksum(std::as_bytes(std::span(framed)).subspan(sizeof(uint64_t)));
  std::memcpy(framed.data(), &checksum, sizeof(checksum));
  return framed;
}

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

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(FileLayer* files, const std::string& path,
                                                       std::vector<std::string>* records) {
  records->clear();
  std::vector<std::byte> bytes;
  if (auto read = files->Read(path); read.ok()) {
    bytes = *std::move(read);
  } else if (!absl::IsNotFound(read.status())) {
    return read.status();
  }
  size_t whole = 0;
  while (const size_t next = NextRecord(std::span(bytes).subspan(whole))) {
    const char* const payload = reinterpret_cast<const char*>(bytes.data() + whole + kHeadBytes);
    records->emplace_back(payload, next - kHeadBytes);
    whole += next;
  }
  auto file = files->OpenAppend(path);
  if (!file.ok()) return file.status();
  if ((*file)->size() != static_cast<int64_t>(whole)) {
    if (absl::Status status = (*file)->Truncate(static_cast<int64_t>(whole)); !status.ok()) return status;
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
  const std::string framed = Framed(record);
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
