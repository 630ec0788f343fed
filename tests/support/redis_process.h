// A redis-server of the test's own, on a free port of this machine: started, paused, killed and started again by the
// test, and gone with it. Thread-safety: one thread.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace statehouse::testing {

// A port that nobody listened on a moment ago.
inline int FreePort() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(listener, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  close(listener);
  return ntohs(address.sin_port);
}

class RedisProcess {
 public:
  static bool IsInstalled() { return std::filesystem::exists("/usr/bin/redis-server"); }

  // `settings`: more arguments of redis-server, as {"--maxmemory", "10mb"}.
  explicit RedisProcess(const std::string& folder, std::vector<std::string> settings = {})
      : folder_(folder), settings_(std::move(settings)), port_(FreePort()) {
    std::filesystem::create_directories(folder_);
    Start();
  }
  ~RedisProcess() {
    Kill();
    std::filesystem::remove_all(folder_);
  }
  RedisProcess(const RedisProcess&) = delete;
  RedisProcess& operator=(const RedisProcess&) = delete;

  int port() const { return port_; }
  std::string url() const { return absl::StrCat("redis://127.0.0.1:", port_, "/0"); }
  // Is it there, and ready?
  bool is_ready() const { return ready_; }

  void Start() {
    std::vector<std::string> words = {
        "redis-server", "--port", absl::StrCat(port_), "--bind", "127.0.0.1",     "--dir", folder_,
        "--save",       "",       "--appendonly",      "yes",    "--appendfsync", "always"};
    words.insert(words.end(), settings_.begin(), settings_.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    process_ = fork();
    if (process_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int log = open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      dup2(log, 1);
      dup2(log, 2);
      execv("/usr/bin/redis-server", arguments.data());
      _exit(127);
    }
    ready_ = false;
    for (int attempt = 0; attempt < 500 && !ready_; ++attempt) {
      absl::SleepFor(absl::Milliseconds(20));
      ready_ = Answers();
    }
  }
  void Pause() { kill(process_, SIGSTOP); }
  void Continue() { kill(process_, SIGCONT); }
  void Kill() {
    if (process_ <= 0) return;
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    process_ = -1;
  }

 private:
  bool Answers() const {
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port_));
    bool answers = connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                   write(connection, "PING\r\n", 6) == 6;
    char answer[5] = {};
    // "-NOAUTH" counts: it is there.
    answers = answers && read(connection, answer, 5) == 5 && (std::string(answer, 5) == "+PONG" || answer[1] == 'N');
    close(connection);
    return answers;
  }

  const std::string folder_;
  const std::vector<std::string> settings_;
  const int port_;
  pid_t process_ = -1;
  bool ready_ = false;
};

}  // namespace statehouse::testing
