// A server in the test's own process, on a socket file of its own, and clients for it. Thread-safety: the test's
// thread.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "server/log.h"
#include "server/served_model.h"
#include "server/server.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/generation.grpc.pb.h"
#include "statehouse/v1/models.grpc.pb.h"
#include "statehouse/v1/tokenizer.grpc.pb.h"
#include "tests/support/fake_tokenizer.h"

namespace statehouse::testing {

// A served model around `engine` and a FakeTokenizer, both outliving it.
inline ServedModel FakeServedModel(Engine* engine, const FakeTokenizer* tokenizer,
                                   int64_t vocab_size = FakeTokenizer::kSize) {
  ServedModel model;
  model.name = "fake";
  model.vocab_size = vocab_size;
  model.tokenizer = tokenizer;
  if (auto chat = ChatTemplate::ByName("chatml", *tokenizer); chat.ok()) model.chat_template = *chat;
  model.why_no_chat_template = "the test took it away";
  model.why_no_fim = "the fake has no such tokens";
  model.device = "cpu, 1 thread";
  model.card.set_name("fake");
  model.card.set_vocab_size(vocab_size);
  model.engine = engine;
  return model;
}

// Polls until `condition` holds; false after `seconds`.
template <typename Condition>
bool Eventually(const Condition& condition, double seconds = 10) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// A folder that goes away with the object.
class TempDir {
 public:
  TempDir() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() / absl::StrCat("statehouse-test-", getpid(), "-", ++count);
    std::filesystem::create_directories(path_);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

class TestServer {
 public:
  explicit TestServer(ServerOptions options = {}) : log_file_(std::tmpfile()), log_(Log::Format::kJson, log_file_) {
    if (options.listen.unix_socket.empty() && options.listen.port == 50051) {
      options.listen.port = -1;
      options.listen.unix_socket = dir_.File("socket");
    }
    target_ = options.listen.unix_socket.empty() ? "" : absl::StrCat("unix:", options.listen.unix_socket);
    auto server = Server::Start(options, &log_);
    status_ = server.status();
    if (server.ok()) server_ = *std::move(server);
    if (server_ != nullptr && target_.empty()) target_ = absl::StrCat("127.0.0.1:", server_->port());
  }
  ~TestServer() {
    server_.reset();
    std::fclose(log_file_);
  }

  const absl::Status& status() const { return status_; }
  Server& server() { return *server_; }
  const std::string& target() const { return target_; }
  void Stop() { server_.reset(); }

  std::shared_ptr<grpc::Channel> Channel(
      std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials()) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    return grpc::CreateCustomChannel(target_, credentials, arguments);
  }
  std::unique_ptr<v1::Generation::Stub> Generation() const { return v1::Generation::NewStub(Channel()); }

  // Everything logged so far.
  std::string Logged() const {
    std::fflush(log_file_);
    std::string text;
    std::rewind(log_file_);
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), log_file_)) > 0;) text.append(buffer, n);
    return text;
  }

 private:
  TempDir dir_;
  std::FILE* const log_file_;
  Log log_;
  std::string target_;
  absl::Status status_;
  std::unique_ptr<Server> server_;
};

}  // namespace statehouse::testing
