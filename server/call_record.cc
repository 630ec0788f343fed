#include "server/call_record.h"

#include <string>

#include "server/status.h"

namespace statehouse {

grpc::Status CallRecord::Conclude(const absl::Status& status) const {
  environment->metrics->CountCall(method, absl::StatusCodeToString(status.code()));
  Log::Fields fields = {{"id", info.request_id},
                        {"principal", info.principal},
                        {"method", std::string(method)},
                        {"status", absl::StatusCodeToString(status.code())},
                        {"total_ms", absl::ToDoubleMilliseconds(absl::Now() - start)}};
  AddError(status, environment->log_prompts, &fields);
  environment->log->Info("request", fields);
  return ToGrpcStatus(status);
}

}  // namespace statehouse
