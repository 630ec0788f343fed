#include "clients/cli/interrupts.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

namespace statehouse::cli {
namespace {

// The writing end of the pipe that the handler marks; a handler can reach nothing but a global.
std::atomic<int> g_mark_fd{-1};

void MarkInterrupt(int) {
  const int saved_errno = errno;
  const int fd = g_mark_fd.load(std::memory_order_relaxed);
  if (fd >= 0) {
    const ssize_t ignored = write(fd, "!", 1);  // a full pipe holds marks enough
    (void)ignored;
  }
  errno = saved_errno;
}

void CloseBoth(int (&fds)[2]) {
  for (int& fd : fds) {
    if (fd >= 0) close(fd);
    fd = -1;
  }
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) != 0) pipe_[0] = pipe_[1] = -1;
  g_mark_fd.store(pipe_[1]);
  struct sigaction action = {};
  action.sa_handler = MarkInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &previous_, nullptr);
  g_mark_fd.store(-1);
  CloseBoth(pipe_);
}

bool Interrupts::Take() {
  bool any = false;
  char marks[64];
  while (pipe_[0] >= 0 && read(pipe_[0], marks, sizeof marks) > 0) any = true;
  return any;
}

Interrupts::Watch::Watch(Interrupts& interrupts, std::function<void()> on_interrupt) {
  interrupts.Take();
  if (interrupts.fd() < 0 || pipe2(stop_, O_CLOEXEC) != 0) return;
  thread_ = std::thread([&interrupts, stop = stop_[0], on_interrupt = std::move(on_interrupt)] {
    // Signals belong to the main thread, whose blocking calls they must wake.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    pollfd waits[2] = {{interrupts.fd(), POLLIN, 0}, {stop, POLLIN, 0}};
    while (true) {
      if (poll(waits, 2, -1) < 0) {
        if (errno == EINTR) continue;
        return;
      }
      if ((waits[0].revents & POLLIN) != 0 && interrupts.Take()) on_interrupt();
      if (waits[1].revents != 0) return;
    }
  });
}

Interrupts::Watch::~Watch() {
  if (stop_[1] >= 0) {
    const ssize_t ignored = write(stop_[1], "!", 1);
    (void)ignored;
  }
  if (thread_.joinable()) thread_.join();
  CloseBoth(stop_);
}

}  // namespace statehouse::cli
