// Ctrl-C as an event instead of the end of the program.
//
//   Interrupts interrupts;                                        // from here on SIGINT only leaves a mark
//   { Interrupts::Watch watch(interrupts, [&] { call.Cancel(); });  // and calls this for each, from a thread of the
//   watch
//     ... blocking call ... }
//
// Thread-safety: one Interrupts per process at a time; the rest from one thread.
#pragma once

#include <csignal>
#include <functional>
#include <thread>

namespace statehouse::cli {

class Interrupts {
 public:
  // Takes SIGINT over; blocking reads then end with EINTR.
  Interrupts();
  // Gives SIGINT back.
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Readable once a SIGINT came and was not taken: for poll(). -1 if the process has no descriptors left.
  int fd() const { return pipe_[0]; }
  // Was there a SIGINT since the last call?
  bool Take();

  // Calls `on_interrupt` at each SIGINT during its life, from a thread of its own. Takes those SIGINTs.
  class Watch {
   public:
    Watch(Interrupts& interrupts, std::function<void()> on_interrupt);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    int stop_[2] = {-1, -1};
    std::thread thread_;
  };

 private:
  int pipe_[2] = {-1, -1};
  struct sigaction previous_ = {};
};

}  // namespace statehouse::cli
