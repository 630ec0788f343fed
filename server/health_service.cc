#include "server/health_service.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/utf8.h"

namespace statehouse {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

namespace {

// As much of it as tells which it was.
std::string Quoted(const std::string& text) {
  constexpr size_t kMost = 128;
  std::string head = text.substr(0, kMost);
  head.resize(ValidUtf8Prefix(head));  // not half a character
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(head), head.size() < text.size() ? "…" : "", "\"");
}

}  // namespace

// One Watch call: writes the latest status whenever it differs from the last one written. Deleted in OnDone() at the
// earliest.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* service, std::string name) : service_(service), name_(std::move(name)) {}

  const std::string& name() const { return name_; }

  void Update(HealthCheckResponse::ServingStatus status) {
    std::lock_guard<std::mutex> lock(mu_);
    wanted_ = status;
    WriteLocked();
  }
  void End(const grpc::Status& status) {
    std::lock_guard<std::mutex> lock(mu_);
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

 private:
  void WriteLocked() {
    if (writing_ || finished_ || wanted_ == written_) return;
    writing_ = true;
    written_ = wanted_;
    response_.set_status(written_);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard<std::mutex> lock(mu_);
      writing_ = false;
      if (ok) return WriteLocked();
    }
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the watcher went away"));
  }
  void OnCancel() override { End(grpc::Status(grpc::StatusCode::CANCELLED, "the watcher went away")); }
  void OnDone() override {
    std::shared_ptr<Watcher> last;
    std::lock_guard<std::mutex> lock(service_->mu_);
    for (auto it = service_->watchers_.begin(); it != service_->watchers_.end(); ++it) {
      if (it->get() != this) continue;
      last = *it;
      service_->watchers_.erase(it);
      break;
    }
  }

  HealthService* const service_;
  const std::string name_;
  std::mutex mu_;
  HealthCheckResponse response_;  // guarded by mu_, as all below
  HealthCheckResponse::ServingStatus wanted_ = HealthCheckResponse::UNKNOWN;
  HealthCheckResponse::ServingStatus written_ = HealthCheckResponse::UNKNOWN;
  bool writing_ = false;
  bool finished_ = false;
};

HealthService::HealthService(std::vector<std::string> services)
    : names_([&] {
        std::set<std::string> names(services.begin(), services.end());
        names.insert("");
        names.insert("grpc.health.v1.Health");
        return names;
      }()) {}

HealthService::~HealthService() = default;

HealthCheckResponse::ServingStatus HealthService::StatusOf(const std::string& service) const {
  if (!names_.contains(service)) return HealthCheckResponse::SERVICE_UNKNOWN;
  return serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void HealthService::SetServing(bool serving) {
  std::lock_guard<std::mutex> lock(mu_);
  serving_ = serving;
  for (const auto& watcher : watchers_) watcher->Update(StatusOf(watcher->name()));
}

bool HealthService::serving() const {
  std::lock_guard<std::mutex> lock(mu_);
  return serving_;
}

void HealthService::EndWatches() {
  std::lock_guard<std::mutex> lock(mu_);
  ended_ = true;
  for (const auto& watcher : watchers_)
    watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping"));
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  std::lock_guard<std::mutex> lock(mu_);
  const auto status = StatusOf(request->service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(
        grpc::StatusCode::NOT_FOUND,
        absl::StrCat("service: ", Quoted(request->service()), ": no service of that name; list them by reflection")));
  } else {
    response->set_status(status);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(grpc::CallbackServerContext*,
                                                                    const HealthCheckRequest* request) {
  auto watcher = std::make_shared<Watcher>(this, request->service());
  std::lock_guard<std::mutex> lock(mu_);
  watchers_.insert(watcher);
  if (ended_) {
    watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping"));
  } else {
    watcher->Update(StatusOf(request->service()));
  }
  return watcher.get();
}

}  // namespace statehouse
