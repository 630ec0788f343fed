// A server of the wire contract without a model behind it, for tests of clients.
//
// It answers each request with the text that the test set, one delta per word, and keeps what it was asked.
// Thread-safety: every method from any thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/generation.grpc.pb.h"
#include "statehouse/v1/models.grpc.pb.h"
#include "statehouse/v1/tokenizer.grpc.pb.h"

namespace statehouse {

class FakeServer {
 public:
  // Listens on an address of its own unless one is given.
  explicit FakeServer(const std::string& address = "127.0.0.1:0");
  ~FakeServer();

  std::string address() const { return address_; }

  void set_answer(std::string answer);
  // Waits that long before each word.
  void set_pause(std::chrono::milliseconds pause) { pause_ms_ = pause.count(); }
  // After the words every call ends with this status.
  void set_status(grpc::Status status);
  // Told in the trailing metadata of every call that fails.
  void set_failed_outcome(const v1::SessionOutcome& outcome);
  void set_chat_template(std::string name);
  void set_token(std::string token);  // asked for in every call; empty: none
  void set_health(grpc::health::v1::HealthCheckResponse::ServingStatus status) { health_ = status; }

  std::vector<v1::GenerateRequest> requests();
  std::vector<std::string> request_ids();  // of x-request-id, per request
  int64_t cancelled() const { return cancelled_; }
  // Of those, the ones that Cancel named; they end with that outcome.
  int64_t cancelled_by_name() const { return cancelled_by_name_; }
  std::string cancelled_session();                          // that the metadata of the last Cancel named
  int64_t words_written() const { return words_written_; }  // of all answers
  // False if `count` calls were not cancelled within ten seconds.
  bool WaitForCancelled(int64_t count);

 private:
  class GenerationService;
  class ModelsService;
  class TokenizerService;
  class AdminService;
  class HealthService;

  grpc::Status CheckToken(const grpc::ServerContext& context);

  std::mutex mu_;
  std::condition_variable changed_;
  std::string answer_ = "Hello there .";
  std::string chat_template_ = "demo";
  std::string token_;
  grpc::Status status_;
  std::string failed_outcome_;       // serialised; empty: none is told
  std::set<std::string> running_;    // ids of calls
  std::set<std::string> to_cancel_;  // of those, named by Cancel
  std::vector<v1::GenerateRequest> requests_;
  std::vector<std::string> request_ids_;
  std::string cancelled_session_;
  std::atomic<int64_t> pause_ms_{0};
  std::atomic<int64_t> cancelled_{0};
  std::atomic<int64_t> cancelled_by_name_{0};
  std::atomic<int64_t> words_written_{0};
  std::atomic<grpc::health::v1::HealthCheckResponse::ServingStatus> health_{
      grpc::health::v1::HealthCheckResponse::SERVING};
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace statehouse
