#include "clients/cli/session_transfer.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/export_target.h"
#include "clients/cli/input_file.h"
#include "clients/cli/progress.h"
#include "clients/cli/request_text.h"
#include "clients/cli/session_view.h"
#include "clients/cli/terminal.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

// A server that restarts may take so long: about a minute.
constexpr int kMostAttempts = 40;
constexpr absl::Duration kFirstPause = absl::Milliseconds(250), kLongestPause = absl::Seconds(1);
constexpr size_t kPartBytes = 1 << 20;

uint64_t Checksum(const std::string& data) { return XXH3_64bits(data.data(), data.size()); }

// Runs `attempt` until it neither fails as UNAVAILABLE nor has been tried often enough, with growing pauses.
template <typename Attempt>
absl::Status WithRetries(const Connection& connection, const Attempt& attempt) {
  absl::Status status;
  absl::Duration pause = kFirstPause;
  for (int i = 0; i < kMostAttempts; ++i) {
    if (i > 0) absl::SleepFor(std::exchange(pause, std::min(2 * pause, kLongestPause)));
    connection.AwaitLostServer();
    status = attempt();
    if (!absl::IsUnavailable(status)) return status;
  }
  return status;
}

absl::Status ReadExport(const Connection& connection, const v1::ExportSessionRequest& wanted, ExportTarget* file,
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
      problem = file->Append(part.export_id(), part.data());
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

absl::Status SendImport(const Connection& connection, const v1::ImportSessionHeader& header,
                        const std::string& contents, Progress* progress, v1::ImportSessionResponse* response) {
  const auto stub = v1::Sessions::NewStub(connection.channel());
  v1::ImportStatusRequest question;
  question.set_import_id(header.import_id());
  v1::ImportStatusResponse arrived;
  absl::Status status = Ask(
      connection, question,
      [&](grpc::ClientContext* context) { return stub->ImportStatus(context, question, &arrived); },
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
  if (absl::Status status = CheckText(options.request); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<ExportTarget>> file = ExportTarget::Open(options.file, options.overwrite);
  if (!file.ok()) return file.status();
  ExportTarget& target = **file;
  {
    Progress progress(stderr);
    const auto read = [&] {
      return WithRetries(connection, [&] { return ReadExport(connection, options.request, &target, &progress); });
    };
    absl::Status status = read();
    // What an earlier transfer left belongs to a session that has moved on since.
    if (absl::IsFailedPrecondition(status) && !target.id().empty()) {
      if (absl::Status restarted = target.Restart(); !restarted.ok()) return restarted;
      status = read();
    }
    if (!status.ok()) return status;
  }
  if (absl::Status status = target.Finish(); !status.ok()) return status;
  Printing said = printing;
  if (target.is_stdout()) said.out = stderr;  // the other one is the session's
  Print(said, {{"file", options.file}, {"bytes", target.offset()}},
        absl::StrFormat("%s: %s\n", options.file, FormatBytes(static_cast<double>(target.offset()))));
  return absl::OkStatus();
}

absl::Status ImportSession(const Connection& connection, const ImportOptions& options, const Printing& printing) {
  if (absl::Status status = CheckText(options.header); !status.ok()) return status;
  absl::StatusOr<std::string> contents = ReadInput("FILE", options.file, kAnySize);
  if (!contents.ok()) return contents.status();
  v1::ImportSessionHeader header = options.header;
  // The same file under the same name is the same transfer.
  header.set_import_id(absl::StrFormat("%016x-%016x", Checksum(*contents), Checksum(header.as().name())));
  v1::ImportSessionResponse response;
  {
    Progress progress(stderr);
    int attempts = 0;
    absl::Status status = WithRetries(connection, [&] {
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
