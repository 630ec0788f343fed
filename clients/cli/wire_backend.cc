#include "clients/cli/wire_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"

namespace statehouse::cli {
namespace {

// Tells a proxy before several servers which session the call is on, so that it goes where its snapshots are.
void NameSession(const std::string& session, grpc::ClientContext* context) {
  if (session.empty()) return;
  // Metadata is ASCII; other names go as hexadecimal digits, which route as well.
  const bool is_plain = std::all_of(session.begin(), session.end(), [](char c) { return c > ' ' && c <= '~'; });
  context->AddMetadata("x-statehouse-session", is_plain ? session : absl::BytesToHexString(session));
}

}  // namespace

WireBackend::WireBackend(const Connection* connection, std::string request_id)
    : connection_(connection),
      request_id_(std::move(request_id)),
      stub_(v1::Generation::NewStub(connection->channel())) {}

absl::Status WireBackend::Generate(const v1::GenerateRequest& request, const OnEvent& on_event) {
  grpc::ClientContext context;
  connection_->Prepare(&context, request_id_);
  NameSession(request.session().session(), &context);
  {
    std::lock_guard lock(mu_);
    if (cancelled_) return absl::CancelledError("cancelled before it was sent");
    running_ = &context;
  }
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader = stub_->Generate(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) on_event(event);
  const grpc::Status status = reader->Finish();
  {
    std::lock_guard lock(mu_);
    running_ = nullptr;
  }
  return connection_->Explain(status);
}

void WireBackend::Cancel() {
  std::lock_guard lock(mu_);
  cancelled_ = true;
  if (running_ != nullptr) running_->TryCancel();
}

void WireBackend::ForgetCancel() {
  std::lock_guard lock(mu_);
  cancelled_ = false;
}

}  // namespace statehouse::cli
