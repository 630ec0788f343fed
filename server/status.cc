#include "server/status.h"

#include <string>

#include "absl/time/time.h"
#include "engine/errors.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/utf8.h"

namespace statehouse {
namespace {

// A message may quote what a client sent: cut it, and keep it valid UTF-8 (protobuf refuses anything else).
std::string Printable(std::string_view message) {
  if (message.size() <= kMaxErrorMessageBytes) return ReplaceInvalidUtf8(message);
  std::string head = ReplaceInvalidUtf8(message.substr(0, kMaxErrorMessageBytes - 3));
  while (head.size() > kMaxErrorMessageBytes - 3) head.pop_back();
  return ReplaceInvalidUtf8(head) + "...";
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const absl::string_view absl_message = status.message();
  const std::string message = Printable(std::string_view(absl_message.data(), absl_message.size()));
  const auto code = static_cast<grpc::StatusCode>(status.code());

  google::rpc::Status rich;
  rich.set_code(static_cast<int>(code));
  rich.set_message(message);
  if (const auto field = FieldOf(status)) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(ReplaceInvalidUtf8(std::string_view(*field).substr(0, 200)));
    violation->set_description(message);
    rich.add_details()->PackFrom(bad_request);
  }
  if (const auto retry_after = RetryAfterOf(status)) {
    google::rpc::RetryInfo retry_info;
    const int64_t nanos = absl::ToInt64Nanoseconds(*retry_after);
    retry_info.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry_info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    rich.add_details()->PackFrom(retry_info);
  }
  if (rich.details().empty()) return grpc::Status(code, message);
  return grpc::Status(code, message, rich.SerializeAsString());
}

}  // namespace statehouse
