// The HTTP port for operators: GET /metrics (Prometheus) and /health (200 while serving, else 503).
// Thread-safety: one thread owns it; the functions it was given are called from its own threads.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace statehouse {

class MetricsServer {
 public:
  // Listens on host:port (port 0: any free one). UNAVAILABLE names the address if it cannot.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& host, int port,
                                                              std::function<std::string()> metrics,
                                                              std::function<bool()> healthy);
  virtual ~MetricsServer() = default;  // stops and joins
  virtual int port() const = 0;
};

}  // namespace statehouse
