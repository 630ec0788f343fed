#include "server/metrics_server.h"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/listen_error.h"

namespace statehouse {
namespace {

constexpr int kThreads = 8;
constexpr int kReadTimeoutSeconds = 1;

class HttplibMetricsServer final : public MetricsServer {
 public:
  ~HttplibMetricsServer() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  int port() const override { return port_; }

  absl::Status Listen(const std::string& host, int port, std::function<std::string()> metrics,
                      std::function<bool()> healthy) {
    // A probe must not wait for connections on which nobody asks anything: each request has its own, and is read soon.
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };  // owned by httplib
    server_.set_keep_alive_max_count(1);
    // The default shares a port between processes; a port that is taken must be an error.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.set_read_timeout(kReadTimeoutSeconds);
    server_.set_write_timeout(5);
    server_.set_payload_max_length(1024);
    server_.Get("/metrics", [metrics = std::move(metrics)](const httplib::Request&, httplib::Response& response) {
      response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
    });
    server_.Get("/health", [healthy = std::move(healthy)](const httplib::Request&, httplib::Response& response) {
      const bool ok = healthy();
      response.status = ok ? 200 : 503;
      response.set_content(ok ? "serving\n" : "not serving\n", "text/plain");
    });
    port_ = port == 0 ? server_.bind_to_any_port(host) : server_.bind_to_port(host, port) ? port : -1;
    if (port_ <= 0) {
      const std::string why = WhyNotListening(host, port);
      return absl::UnavailableError(absl::StrCat("--metrics-port: cannot listen on ", TcpAddress(host, port),
                                                 why.empty() ? "" : ": ", why, "; choose another port, or 0 for none"));
    }
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    // stop() before the loop has begun would be lost.
    while (!server_.is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!ended_) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("--metrics-port: cannot serve on ", TcpAddress(host, port_)));
  }

 private:
  httplib::Server server_;
  int port_ = 0;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& host, int port,
                                                                    std::function<std::string()> metrics,
                                                                    std::function<bool()> healthy) {
  if (host.empty()) {
    return absl::InvalidArgumentError("--metrics-host: it is empty; expected an address, as 127.0.0.1 or 0.0.0.0");
  }
  auto server = std::make_unique<HttplibMetricsServer>();
  if (absl::Status status = server->Listen(host, port, std::move(metrics), std::move(healthy)); !status.ok())
    return status;
  return std::unique_ptr<MetricsServer>(std::move(server));
}

}  // namespace statehouse
