#include "server/server.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "server/metrics_text.h"

namespace statehouse {
namespace {

// After the engine has finished its requests: time at least for their last messages to reach the clients.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

}  // namespace

// Looks after the engine, and gives back what nobody asks for any more.
class Server::EngineWatch final : public EventPump::Client {
 public:
  explicit EngineWatch(Server* server) : server_(server) {}
  // After this returns the server is not looked at any more.
  void Detach() {
    std::lock_guard<std::mutex> lock(mu_);
    server_ = nullptr;
  }
  void OnReady() override {}
  void OnTick() override {
    std::lock_guard<std::mutex> lock(mu_);
    if (server_ != nullptr) server_->imports_.ForgetOld();
    if (server_ == nullptr || !server_->serving() || server_->model_.get()->engine->GetStatus().healthy) return;
    server_->log_->Error("a step has failed: health turns to NOT_SERVING; restart this server");
    server_->grpc_->SetServing(false);
    if (server_->on_failed_) server_->on_failed_();
  }

 private:
  std::mutex mu_;
  Server* server_;  // guarded by mu_
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Log* log) {
  std::unique_ptr<Server> server(new Server(log));
  server->on_failed_ = options.on_failed;
  if (!options.auth_tokens_file.empty()) {
    if (absl::Status status = Authenticator::Load(options.auth_tokens_file, &server->auth_); !status.ok())
      return status;
  }
  CallEnvironment& environment = server->environment_;
  environment.model = &server->model_;
  environment.auth = &server->auth_;
  environment.pump = &server->pump_;
  environment.work = &server->work_;
  environment.session_work = &server->session_work_;
  environment.settling = &server->settling_;
  environment.transfers = &server->transfers_;
  environment.turns = &server->turns_;
  environment.imports = &server->imports_;
  environment.calls = &server->calls_;
  environment.metrics = &server->metrics_;
  environment.log = log;
  environment.log_prompts = options.log_prompts;
  environment.operators.insert(options.operators.begin(), options.operators.end());
  // Where nobody is named, whoever calls a server that asks for no token and no certificate: there a caller has no
  // name. Nor has one at a socket file beside a port that asks for certificates, whose callers it must not rule.
  if (options.operators.empty() && options.listen.tls_client_ca.empty()) environment.operators.insert("");
  environment.max_message_bytes = options.listen.max_message_bytes;
  // The engine ends a slow reader's sequences first; a write that is stuck for longer than that has no reader at all.
  environment.stuck_write_timeout = 2 * options.slow_reader_timeout;
  auto grpc_server = GrpcServer::Start(options.listen, &environment);
  if (!grpc_server.ok()) return grpc_server.status();
  server->grpc_ = *std::move(grpc_server);
  if (options.metrics_port != 0) {
    Server* const self = server.get();
    auto http = MetricsServer::Start(
        options.metrics_host, options.metrics_port < 0 ? 0 : options.metrics_port,
        [self] { return MetricsText(self->metrics_, self->model_.get()); }, [self] { return self->serving(); });
    if (!http.ok()) return http.status();
    server->http_ = *std::move(http);
  }
  return server;
}

Server::~Server() {
  if (grpc_ != nullptr) Drain(absl::ZeroDuration());
}

void Server::Serve(const ServedModel* model) {
  model_.Set(model);
  grpc_->SetServing(true);
  watch_ = std::make_shared<EngineWatch>(this);
  pump_.Add(watch_);
}

int64_t Server::Drain(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  grpc_->SetServing(false);
  int64_t cancelled = 0;
  if (const ServedModel* model = model_.get()) {
    // The port stays open meanwhile: probes see NOT_SERVING, late requests UNAVAILABLE.
    model->engine->StopAdmission();
    if (!model->engine->WaitIdle(deadline)) {
      const EngineStatus status = model->engine->GetStatus();
      cancelled = status.requests_running + status.requests_queued;
      environment_.shut_down.store(true, std::memory_order_release);
      model->engine->CancelAll();
    }
  }
  if (watch_ != nullptr) {
    pump_.Remove(watch_.get());
    watch_->Detach();
  }
  grpc_->Stop(std::max(deadline, absl::Now() + kFlushTime));
  http_.reset();
  return cancelled;
}

void Server::Reload() {
  if (!auth_.required()) return;
  if (absl::Status status = auth_.Reload(); status.ok()) {
    log_->Info("tokens read again");
  } else {
    log_->Error("tokens not read again; the earlier ones stay", {{"error", std::string(status.message())}});
  }
}

}  // namespace statehouse
