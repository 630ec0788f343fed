// grpc.health.v1.Health: NOT_SERVING from the start, SERVING once told so, for "" and each service alike.
//
// Asks for no token: probes have none. Thread-safety: any thread.
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"

namespace statehouse {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Knows "", its own name and `services` (full names).
  explicit HealthService(std::vector<std::string> services);
  ~HealthService() override;

  void SetServing(bool serving);
  bool serving() const;
  // Ends all watches (UNAVAILABLE) and refuses new ones: a server with an open watch would not stop.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context, const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;
  // The status of that name now: SERVICE_UNKNOWN if there is none.
  grpc::health::v1::HealthCheckResponse::ServingStatus StatusOf(const std::string& service) const;

  const std::set<std::string> names_;
  mutable std::mutex mu_;
  bool serving_ = false;  // guarded by mu_, as all below
  bool ended_ = false;
  std::set<std::shared_ptr<Watcher>> watchers_;
};

}  // namespace statehouse
