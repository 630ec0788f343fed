#include "server/unreadable_requests.h"

#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "grpcpp/grpcpp.h"

namespace statehouse {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

struct Target {
  std::mutex mu;
  std::vector<Log*> logs;  // guarded by mu; the last one is written to
  google::protobuf::LogHandler* before = nullptr;
};

Target& TheTarget();

void ToOurLog(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  if (level == google::protobuf::LOGLEVEL_INFO) return;
  Target& target = TheTarget();
  std::lock_guard<std::mutex> lock(target.mu);
  if (!target.logs.empty()) {
    // It names fields and never what they hold.
    target.logs.back()->Warning("libprotobuf", {{"what", message}});
  } else if (target.before != nullptr) {
    target.before(level, file, line, message);
  }
}

// Set once and left: changing it while others parse is not safe.
Target& TheTarget() {
  static Target* const target = [] {
    auto* made = new Target;  // libprotobuf may log at exit
    made->before = google::protobuf::SetLogHandler(ToOurLog);
    return made;
  }();
  return *target;
}

// "/statehouse.v1.Generation/Generate" → "Generate".
std::string ShortName(const char* method) {
  const std::string name = method == nullptr ? "" : method;
  return name.substr(name.rfind('/') + 1);
}

class Interceptor final : public grpc::experimental::Interceptor {
 public:
  Interceptor(const CallEnvironment* environment, ServerRpcInfo* info) : environment_(environment), info_(info) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      // No method of ours ends like that; one that does not exist has no interceptor.
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED && status.error_message().empty()) {
        const std::string what =
            "the request cannot be read: it is no message of this method's type; strings must be UTF-8";
        methods->ModifySendStatus(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, what));
        const std::string method = ShortName(info_->method());
        environment_->metrics->CountCall(method, "INVALID_ARGUMENT");
        environment_->log->Info("request",
                                {{"method", method}, {"status", std::string("INVALID_ARGUMENT")}, {"error", what}});
      }
    }
    methods->Proceed();
  }

 private:
  const CallEnvironment* const environment_;
  ServerRpcInfo* const info_;
};

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(const CallEnvironment* environment) : environment_(environment) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    return new Interceptor(environment_, info);  // gRPC's
  }

 private:
  const CallEnvironment* const environment_;
};

}  // namespace

ProtobufLog::ProtobufLog(Log* log) : log_(log) {
  Target& target = TheTarget();
  std::lock_guard<std::mutex> lock(target.mu);
  target.logs.push_back(log_);
}

ProtobufLog::~ProtobufLog() {
  Target& target = TheTarget();
  std::lock_guard<std::mutex> lock(target.mu);
  target.logs.erase(std::find(target.logs.begin(), target.logs.end(), log_));  // one: several may share a log
}

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> AnswerUnreadableRequests(
    const CallEnvironment* environment) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<Factory>(environment));
  return factories;
}

}  // namespace statehouse
