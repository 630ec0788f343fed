#include "clients/cli/chat_session.h"

#include <algorithm>

#include "clients/cli/connection.h"
#include "clients/cli/session_calls.h"
#include "clients/cli/session_view.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse::cli {
namespace {

// The end of a transcript that surely holds the last turn's beginning, unless the answer is longer: then it is looked
// for farther back.
constexpr int64_t kFirstLook = 1024;

}  // namespace

WireChatSession::WireChatSession(const Connection* connection, std::string name, std::string chat_template)
    : connection_(connection), name_(std::move(name)), chat_template_(std::move(chat_template)) {}

absl::StatusOr<ChatSession::Exchange> WireChatSession::LastExchange() {
  absl::StatusOr<v1::Session> session = GetSession(*connection_, name_);
  if (absl::IsNotFound(session.status())) return Exchange{};
  if (!session.ok()) return session.status();
  Exchange exchange;
  exchange.position = session->position();
  exchange.turns = session->turns();
  for (int64_t look = kFirstLook;; look *= 8) {
    const int64_t from = std::max<int64_t>(0, session->position() - look);
    absl::StatusOr<v1::GetSessionResponse> tail = GetTranscript(*connection_, name_, from);
    if (!tail.ok()) return tail.status();
    const bool has_turn = !tail->turns().empty() && tail->turns().rbegin()->input_begin() >= from;
    if (!has_turn && from > 0) continue;
    exchange.begin = has_turn ? tail->turns().rbegin()->input_begin() : 0;
    if (exchange.begin > from) tail = GetTranscript(*connection_, name_, exchange.begin);
    if (!tail.ok()) return tail.status();
    for (const TranscriptMessage& message : SplitTranscript(tail->text(), chat_template_)) {
      if (!message.role.empty()) exchange.messages.emplace_back(message.role, message.text);
    }
    return exchange;
  }
}

absl::Status WireChatSession::Rewind(int64_t position) {
  v1::RewindSessionRequest request;
  request.set_session(name_);
  request.set_position(position);
  v1::RewindSessionResponse response;
  const auto stub = v1::Sessions::NewStub(connection_->channel());
  const absl::Status status = Ask(
      *connection_, request, [&](grpc::ClientContext* context) { return stub->Rewind(context, request, &response); },
      name_);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace statehouse::cli
