#include "clients/cli/session_transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/progress.h"
#include "clients/cli/session_view.h"
#include "clients/cli/terminal.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

// A server that restarts may take so long.
constexpr int kMostAttempts = 8;
constexpr absl::Duration kFirstPause = absl::Milliseconds(250);
constexpr size_t kPartBytes = 1 << 20;

uint64_t Checksum(const std::string& data) { return XXH3_64bits(data.data(), data.size()); }

absl::Status FileError(const std::string& file, const char* what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(file, ": cannot ", what));
}

// Runs `attempt` until it neither fails as UNAVAILABLE nor has been tried often enough, with growing pauses.
template <typename Attempt>
absl::Status WithRetries(const Attempt& attempt) {
  absl::Status status;
  absl::Duration pause = kFirstPause;
  for (int i = 0; i < kMostAttempts; ++i, pause *= 2) {
    if (i > 0) absl::SleepFor(pause);
    status = attempt();
    if (!absl::IsUnavailable(status)) return status;
  }
  return status;
}

class ExportFile {
 public:
  explicit ExportFile(const std::string& file) : file_(file), part_(file + ".part"), id_file_(part_ + ".id") {}
  ~ExportFile() {
    if (fd_ >= 0) close(fd_);
  }
  ExportFile(const ExportFile&) = delete;
  ExportFile& operator=(const ExportFile&) = delete;

  // Opens what an earlier transfer left, if it is known of which.
  absl::Status Open() {
    std::ifstream(id_file_) >> id_;
    fd_ = open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) return FileError(part_, "write");
    offset_ = id_.empty() ? 0 : lseek(fd_, 0, SEEK_END);
    return offset_ == 0 ? Restart() : absl::OkStatus();
  }
  absl::Status Restart() {
    id_.clear();
    offset_ = 0;
    return ftruncate(fd_, 0) == 0 ? absl::OkStatus() : FileError(part_, "write");
  }
  absl::Status Append(const v1::ExportSessionPart& part) {
    if (id_ != part.export_id()) {
      id_ = part.export_id();
      std::ofstream id_out(id_file_, std::ios::trunc);
      if (!(id_out << id_ << "\n").flush()) return FileError(id_file_, "write");
    }
    for (size_t written = 0; written < part.data().size();) {
      const ssize_t n = pwrite(fd_, part.data().data() + written, part.data().size() - written, offset_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError(part_, "write");
      written += static_cast<size_t>(n);
      offset_ += n;
    }
    return absl::OkStatus();
  }
  absl::Status Finish() {
    if (fsync(fd_) != 0) return FileError(part_, "sync");
    if (rename(part_.c_str(), file_.c_str()) != 0) return FileError(file_, "write");
    unlink(id_file_.c_str());
    return absl::OkStatus();
  }
  int64_t offset() const { return offset_; }
  const std::string& id() const { return id_; }

 private:
  const std::string file_, part_, id_file_;
  std::string id_;  // of the export that the bytes belong to
  int64_t offset_ = 0;
  int fd_ = -1;
};

absl::Status ReadExport(const Connection& connection, const v1::ExportSessionRequest& wanted, ExportFile* file,
                        Progress* progress) {
  v1::ExportSessionRequest request = wanted;
  request.set_offset(file->offset());
  request.set_export_id(file->id());
  const auto stub = v1::Sessions::NewStub(connection.channel());
  grpc::ClientContext context;
  connection.Prepare(&context);
  NameSession(request.session(), &context);
  const auto reader = stub->Export(&context, request);
  v1::ExportSessionPart part;
  absl::Status problem;
  bool is_whole = false;
  while (problem.ok() && reader->Read(&part)) {
    if (part.offset() != file->offset() || part.checksum() != Checksum(part.data())) {
      problem = absl::UnavailableError("a part arrived damaged");
    } else {
      problem = file->Append(part);
      is_whole = part.last();
      progress->Show("bytes", file->offset(), part.total_bytes());
    }
  }
  if (!problem.ok()) context.TryCancel();
  absl::Status status = connection.Explain(reader->Finish());
  if (!problem.ok()) return problem;
  if (status.ok() && !is_whole) return absl::UnavailableError("the export ended before its last part");
  return status;
}

absl::StatusOr<std::string> ReadFile(const std::string& name) {
  std::ifstream stream(name, std::ios::binary);
  std::ostringstream contents;
  if (stream) contents << stream.rdbuf();
  if (!stream) return absl::NotFoundError(absl::StrFormat("cannot read %s: %s", name, std::strerror(errno)));
  return contents.str();
}

absl::Status SendImport(const Connection& connection, const v1::ImportSessionHeader& header,
                        const std::string& contents, Progress* progress, v1::ImportSessionResponse* response) {
  const auto stub = v1::Sessions::NewStub(connection.channel());
  v1::ImportStatusRequest question;
  question.set_import_id(header.import_id());
  v1::ImportStatusResponse arrived;
  absl::Status status = Ask(
      connection, [&](grpc::ClientContext* context) { return stub->ImportStatus(context, question, &arrived); },
      header.import_id());
  if (!status.ok()) return status;
  grpc::ClientContext context;
  connection.Prepare(&context);
  NameSession(header.import_id(), &context);
  const auto writer = stub->Import(&context, response);
  size_t offset = std::min(static_cast<size_t>(std::max<int64_t>(0, arrived.offset())), contents.size());
  bool is_first = true, is_last = false;
  while (!is_last) {
    v1::ImportSessionPart part;
    if (std::exchange(is_first, false)) *part.mutable_header() = header;
    part.set_offset(static_cast<int64_t>(offset));
    part.set_data(contents.substr(offset, kPartBytes));
    part.set_checksum(Checksum(part.data()));
    offset += part.data().size();
    is_last = offset == contents.size();
    part.set_last(is_last);
    if (!writer->Write(part)) break;  // Finish() says why
    progress->Show("bytes", static_cast<int64_t>(offset), static_cast<int64_t>(contents.size()));
  }
  writer->WritesDone();
  return connection.Explain(writer->Finish());
}

}  // namespace

absl::Status ExportSession(const Connection& connection, const ExportOptions& options, const Printing& printing) {
  std::error_code error;
  if (!options.overwrite && std::filesystem::exists(options.file, error)) {
    return absl::AlreadyExistsError(absl::StrCat(options.file, " exists; --overwrite replaces it"));
  }
  ExportFile file(options.file);
  if (absl::Status status = file.Open(); !status.ok()) return status;
  {
    Progress progress(stderr);
    const auto read = [&] {
      return WithRetries([&] { return ReadExport(connection, options.request, &file, &progress); });
    };
    absl::Status status = read();
    // What an earlier transfer left belongs to a session that has moved on since.
    if (absl::IsFailedPrecondition(status) && !file.id().empty()) {
      if (absl::Status restarted = file.Restart(); !restarted.ok()) return restarted;
      status = read();
    }
    if (!status.ok()) return status;
  }
  if (absl::Status status = file.Finish(); !status.ok()) return status;
  Print(printing, {{"file", options.file}, {"bytes", file.offset()}},
        absl::StrFormat("%s: %s\n", options.file, FormatBytes(static_cast<double>(file.offset()))));
  return absl::OkStatus();
}

absl::Status ImportSession(const Connection& connection, const ImportOptions& options, const Printing& printing) {
  absl::StatusOr<std::string> contents = ReadFile(options.file);
  if (!contents.ok()) return contents.status();
  v1::ImportSessionHeader header = options.header;
  // The same file under the same name is the same transfer.
  header.set_import_id(absl::StrFormat("%016x-%016x", Checksum(*contents), Checksum(header.as().name())));
  v1::ImportSessionResponse response;
  {
    Progress progress(stderr);
    int attempts = 0;
    absl::Status status = WithRetries([&] {
      ++attempts;
      return SendImport(connection, header, *contents, &progress, &response);
    });
    if (attempts > 1 && absl::IsAlreadyExists(status)) {
      return absl::AlreadyExistsError(
          absl::StrCat(std::string(status.message()),
                       "; an attempt before, whose answer was lost, may have made it: look at it with "
                       "`statehouse sessions show`"));
    }
    if (!status.ok()) return status;
  }
  Json json = SessionJson(response.session());
  json["exactness"] = ExactnessName(response.exactness());
  if (!response.numeric_difference().empty()) json["numeric_difference"] = response.numeric_difference();
  const std::string note =
      response.exactness() == v1::EXACTNESS_CONTINUED
          ? absl::StrCat("; it goes on, but not with the same bits: ", response.numeric_difference())
          : "";
  Print(printing, json,
        absl::StrFormat("%s holds %d tokens%s\n",
                        response.session().name().empty() ? response.session().id() : response.session().name(),
                        response.session().position(), note));
  return absl::OkStatus();
}

}  // namespace statehouse::cli
