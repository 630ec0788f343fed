// Generation by a server, over gRPC. Thread-safety: one Generate() at a time; Cancel() from any thread.
#pragma once

#include <memory>
#include <mutex>
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
  void Cancel() override;
  void ForgetCancel() override;

 private:
  const Connection* connection_;
  const std::string request_id_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  std::mutex mu_;
  grpc::ClientContext* running_ = nullptr;  // guarded by mu_, as below
  bool cancelled_ = false;
};

}  // namespace statehouse::cli
