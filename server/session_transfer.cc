#include "server/session_transfer.h"

#include <algorithm>
#include <span>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/errors.h"
#include "server/convert_session.h"
#include "server/session_file.h"

namespace statehouse {
namespace {

constexpr size_t kPartBytes = 1 << 20;
constexpr size_t kMaxIdBytes = 128;

uint64_t Checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// Names exactly these bytes: its head holds the checksum of all the rest.
std::string ExportId(const SessionFile& file) {
  const XXH128_hash_t hash = XXH3_128bits(file.bytes.bytes().data(), static_cast<size_t>(file.head_bytes));
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

StateEncoding EncodingOf(v1::SnapshotEncoding encoding) {
  return encoding == v1::SNAPSHOT_ENCODING_BF16   ? StateEncoding::kBf16
         : encoding == v1::SNAPSHOT_ENCODING_INT8 ? StateEncoding::kInt8
                                                  : StateEncoding::kF32;
}

absl::Status CheckExport(const v1::ExportSessionRequest& request) {
  constexpr int kMostCompression = 19;
  if (request.session().empty()) return InvalidField("session", "an empty string", "a session's id or name");
  if (request.offset() < 0) return InvalidField("offset", absl::StrCat(request.offset()), "at least 0");
  if (request.offset() > 0 && request.export_id().empty()) {
    return InvalidField("export_id", "none beside an offset", "the id that came with the parts before it");
  }
  if (request.compression() < 0 || request.compression() > kMostCompression) {
    return InvalidField("compression", absl::StrCat(request.compression()), "0 (none) to 19");
  }
  if (!v1::SnapshotEncoding_IsValid(request.encoding())) {
    return InvalidField("encoding", absl::StrCat(static_cast<int>(request.encoding())),
                        "one of SnapshotEncoding's values");
  }
  return absl::OkStatus();
}

// Takes parts until the last one.
absl::Status TakeParts(ImportTable::Opened* transfer, ReadingCall<v1::ImportSessionPart>* call,
                       v1::ImportSessionPart* part) {
  while (true) {
    if (part->checksum() != Checksum(part->data())) {
      return absl::DataLossError(
          absl::StrCat("the part at ", part->offset(), " arrived damaged; go on from ImportStatus"));
    }
    if (absl::Status status = transfer->Append(part->offset(), part->data()); !status.ok()) return status;
    if (part->last()) return absl::OkStatus();
    part->Clear();
    if (!call->Read(part)) {
      return absl::CancelledError("the import broke off before its last part; it can go on from ImportStatus");
    }
  }
}

}  // namespace

absl::Status CheckImportId(const std::string& id) {
  if (!id.empty() && id.size() <= kMaxIdBytes) return absl::OkStatus();
  return InvalidField("import_id", absl::StrCat("an id of ", id.size(), " bytes"),
                      absl::StrCat("1 to ", kMaxIdBytes, " bytes"));
}

absl::Status ExportSession(const ServedModel& model, const CallInfo& info, const v1::ExportSessionRequest& request,
                           WritingCall<v1::ExportSessionPart>* call) {
  if (absl::Status status = CheckExport(request); !status.ok()) return status;
  absl::StatusOr<SessionImage> image = model.sessions->Export(info.principal, request.session());
  if (!image.ok()) return image.status();
  const SnapshotFileOptions options = {.encoding = EncodingOf(request.encoding()), .zstd_level = request.compression()};
  const absl::StatusOr<SessionFile> file = WriteSessionFile(*image, model.fingerprint, options);
  if (!file.ok()) return file.status();
  *image = SessionImage();
  const std::string id = ExportId(*file);
  if (!request.export_id().empty() && request.export_id() != id) {
    return absl::FailedPreconditionError(
        "export_id: the session has changed since that export began; begin again without export_id and offset");
  }
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes.bytes().data()), file->bytes.bytes().size());
  const size_t total = bytes.size();
  if (static_cast<size_t>(request.offset()) > total) {
    return InvalidField("offset", absl::StrCat(request.offset()), absl::StrCat("0 to ", total));
  }
  size_t offset = static_cast<size_t>(request.offset());
  v1::ExportSessionPart part;
  do {
    part.set_export_id(id);
    part.set_offset(static_cast<int64_t>(offset));
    const std::string_view data = bytes.substr(offset, kPartBytes);
    part.mutable_data()->assign(data);  // in the memory of the part before
    part.set_checksum(Checksum(part.data()));
    part.set_total_bytes(static_cast<int64_t>(total));
    offset += part.data().size();
    part.set_last(offset == total);
    if (absl::Status status = call->Write(part); !status.ok()) return status;
  } while (offset < total);
  return absl::OkStatus();
}

absl::Status ImportSession(const ServedModel& model, const CallInfo& info, ImportTable* imports,
                           ReadingCall<v1::ImportSessionPart>* call, v1::ImportSessionResponse* response) {
  v1::ImportSessionPart part;
  if (!call->Read(&part)) return InvalidField("header", "no part at all", "a first part with a header");
  const v1::ImportSessionHeader header = part.header();
  if (absl::Status status = CheckImportId(header.import_id()); !status.ok()) return status;
  absl::StatusOr<SessionSpec> spec = ToSpec("header.as.", header.as(), info.principal);
  if (!spec.ok()) return spec.status();
  absl::StatusOr<std::unique_ptr<ImportTable::Opened>> transfer = imports->Open(info.principal, header.import_id());
  if (!transfer.ok()) return transfer.status();
  if (absl::Status status = TakeParts(transfer->get(), call, &part); !status.ok()) return status;
  const std::string file = (*transfer)->Take();
  absl::StatusOr<SessionImage> image =
      ReadSessionFile(std::as_bytes(std::span(file)), model.fingerprint, *model.slot_shape, model.vocab_size,
                      header.allow_other_numeric(), model.snapshot_memory.get());
  if (!image.ok()) return image.status();
  if (spec->labels.empty()) spec->labels = image->spec.labels;
  absl::StatusOr<SessionInfo> session = model.sessions->Adopt(*spec, *image);
  if (!session.ok()) return session.status();
  ToProto(*session, response->mutable_session());
  response->set_exactness(ToProto(image->exactness));
  response->set_numeric_difference(image->numeric_difference);
  return absl::OkStatus();
}

}  // namespace statehouse
