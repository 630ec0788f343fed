#include "clients/cli/wire_backend.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/random_name.h"
#include "clients/cli/request_text.h"

namespace statehouse::cli {
namespace {

constexpr std::chrono::seconds kCancelTime{2};
// Where the server tells what became of a session whose turn failed.
constexpr char kOutcomeKey[] = "statehouse-session-outcome-bin";

std::optional<v1::SessionOutcome> OutcomeOf(const grpc::ClientContext& context) {
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(kOutcomeKey);
  v1::SessionOutcome outcome;
  if (found == metadata.end()) return std::nullopt;
  if (!outcome.ParseFromArray(found->second.data(), static_cast<int>(found->second.size()))) return std::nullopt;
  return outcome;
}

}  // namespace

WireBackend::WireBackend(const Connection* connection, std::string request_id)
    : connection_(connection),
      request_id_(std::move(request_id)),
      stub_(v1::Generation::NewStub(connection->channel())) {}

absl::Status WireBackend::Generate(const v1::GenerateRequest& request, const OnEvent& on_event) {
  failed_outcome_.reset();  // of the call before, however this one ends
  if (!IsMetadata(request_id_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--request-id: \"", request_id_, "\" is not allowed; expected printable ASCII"));
  }
  if (absl::Status status = CheckText(request); !status.ok()) return status;
  connection_->AwaitLostServer();
  grpc::ClientContext context;
  // A turn needs a name that Cancel() knows before the server tells one.
  const bool is_turn = request.has_session();
  const std::string request_id = is_turn && request_id_.empty() ? absl::StrCat("turn-", RandomName()) : request_id_;
  connection_->Prepare(&context, request_id);
  NameSession(request.session().session(), &context);
  {
    std::lock_guard lock(mu_);
    if (cancelled_) return absl::CancelledError("cancelled before it was sent");
    running_ = &context;
    running_id_ = is_turn ? request_id : "";
    running_session_ = request.session().session();
  }
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader = stub_->Generate(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) on_event(event);
  const grpc::Status status = reader->Finish();
  {
    std::lock_guard lock(mu_);
    running_ = nullptr;
  }
  if (!status.ok()) failed_outcome_ = OutcomeOf(context);
  return connection_->Explain(status);
}

void WireBackend::Cancel() {
  std::string id, session;
  {
    std::lock_guard lock(mu_);
    cancelled_ = true;
    if (running_ == nullptr) return;
    if (running_id_.empty()) return running_->TryCancel();
    id = running_id_;
    session = running_session_;
  }
  if (AskToCancel(id, session)) return;
  std::lock_guard lock(mu_);
  if (running_ != nullptr && running_id_ == id) running_->TryCancel();
}

bool WireBackend::AskToCancel(const std::string& request_id, const std::string& session) const {
  grpc::ClientContext context;
  connection_->Prepare(&context);
  NameSession(session, &context);  // only the server that runs the turn knows it
  context.set_deadline(std::chrono::system_clock::now() + kCancelTime);
  v1::CancelRequest request;
  request.set_request_id(request_id);
  v1::CancelResponse response;
  return stub_->Cancel(&context, request, &response).ok() && response.cancelled();
}

void WireBackend::ForgetCancel() {
  std::lock_guard lock(mu_);
  cancelled_ = false;
}

}  // namespace statehouse::cli
