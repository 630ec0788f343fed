// Generation by a server, over gRPC. Thread-safety: one Generate() at a time; Cancel() from any thread.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "clients/cli/connection.h"
#include "clients/cli/generate_backend.h"
#include "statehouse/v1/generation.grpc.pb.h"

namespace statehouse::cli {

class WireBackend : public GenerateBackend {
 public:
  // `connection` must outlive this object. A `request_id` that is not empty is sent with every call.
  explicit WireBackend(const Connection* connection, std::string request_id = "");

  absl::Status Generate(const v1::GenerateRequest& request, const OnEvent& on_event) override;
  std::optional<v1::SessionOutcome> FailedOutcome() const override { return failed_outcome_; }
  // Tells the server to stop a turn of a session, which keeps of it what SessionUse.on_failure says, and waits for its
  // word (at most two seconds); a stream that just breaks off looks like a lost client's. Other requests are dropped.
  void Cancel() override;
  void ForgetCancel() override;

 private:
  // False: the server does not know the request, or does not answer.
  bool AskToCancel(const std::string& request_id, const std::string& session) const;

  const Connection* connection_;
  const std::string request_id_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  std::optional<v1::SessionOutcome> failed_outcome_;
  std::mutex mu_;
  grpc::ClientContext* running_ = nullptr;  // guarded by mu_, as below
  std::string running_id_;                  // of a session's turn; empty: there is none
  std::string running_session_;             // whose turn it is
  bool cancelled_ = false;
};

}  // namespace statehouse::cli
