// What a chat needs of the session that holds its conversation. Thread-safety: one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse::cli {

class Connection;

class ChatSession {
 public:
  struct Exchange {
    int64_t position = 0;  // of the session; 0: nothing was said yet
    int64_t turns = 0;
    int64_t begin = 0;                                          // where the last turn's input began
    std::vector<std::pair<std::string, std::string>> messages;  // role and text of that turn
  };

  virtual ~ChatSession() = default;
  virtual const std::string& name() const = 0;
  // A session that does not exist is one in which nothing was said.
  virtual absl::StatusOr<Exchange> LastExchange() = 0;
  // Forgets what lies beyond; OK if there is no such session.
  virtual absl::Status Rewind(int64_t position) = 0;
};

// A server's session. Messages are told apart as that chat template marks them.
class WireChatSession : public ChatSession {
 public:
  // `connection` must outlive this object.
  WireChatSession(const Connection* connection, std::string name, std::string chat_template);

  const std::string& name() const override { return name_; }
  absl::StatusOr<Exchange> LastExchange() override;
  absl::Status Rewind(int64_t position) override;

 private:
  const Connection* const connection_;
  const std::string name_;
  const std::string chat_template_;
};

}  // namespace statehouse::cli
