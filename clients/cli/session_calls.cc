#include "clients/cli/session_calls.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/inspect.h"
#include "clients/cli/progress.h"
#include "clients/cli/request_text.h"
#include "clients/cli/session_view.h"
#include "clients/cli/table.h"
#include "clients/cli/terminal.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

std::unique_ptr<v1::Sessions::Stub> Stub(const Connection& connection) {
  return v1::Sessions::NewStub(connection.channel());
}

std::string NameOf(const v1::Session& session) { return session.name().empty() ? session.id() : session.name(); }

std::string ReplayText(int64_t tokens) {
  return tokens == 0 ? "the next turn computes nothing again"
                     : absl::StrFormat("the next turn computes %d token%s again", tokens, tokens == 1 ? "" : "s");
}

Json TurnsJson(const v1::GetSessionResponse& response) {
  Json turns = Json::array();
  for (const v1::TurnSpan& turn : response.turns()) {
    turns.push_back({{"input_begin", turn.input_begin()},
                     {"answer_begin", turn.answer_begin()},
                     {"end", turn.end()},
                     {"seed", turn.seed()}});
  }
  return turns;
}

std::string TranscriptText(const v1::GetSessionResponse& response, const std::string& chat_template) {
  std::string text;
  for (const TranscriptMessage& message : SplitTranscript(response.text(), chat_template)) {
    absl::StrAppend(&text, message.role.empty() ? "" : absl::StrCat(message.role, ": "), message.text, "\n");
  }
  return text;
}

// Where the turn began that is `turns` before the head.
absl::StatusOr<int64_t> BeginOfTurn(const Connection& connection, const std::string& session, int64_t turns) {
  absl::StatusOr<v1::GetSessionResponse> response = GetTranscript(connection, session, 0);
  if (!response.ok()) return response.status();
  if (response->turns().empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--turns: %d is not allowed; %s has no turns yet", turns, session));
  }
  if (turns > response->turns_size()) {
    return absl::InvalidArgumentError(absl::StrFormat("--turns: %d is not allowed; expected 1 to %d, the turns of %s",
                                                      turns, response->turns_size(), session));
  }
  return response->turns(response->turns_size() - static_cast<int>(turns)).input_begin();
}

std::string DamageText(const v1::CheckSessionsResponse& response) {
  std::string text = absl::StrFormat("%d sessions, %d snapshots, %s read: %s\n", response.sessions(),
                                     response.snapshots(), FormatBytes(static_cast<double>(response.bytes())),
                                     response.damages().empty() ? "all whole" : "");
  if (response.damages().empty()) return text;
  Table table({{"SESSION"}, {"PART"}, {"POSITION", Align::kRight}, {"TIER"}, {"WHAT"}});
  for (const v1::Damage& damage : response.damages()) {
    table.Add(
        {damage.session(), damage.part(), absl::StrCat(damage.position()), TierName(damage.tier()), damage.what()});
  }
  return text + table.Text();
}

}  // namespace

absl::StatusOr<v1::Session> GetSession(const Connection& connection, const std::string& session) {
  v1::GetSessionRequest request;
  request.set_session(session);
  v1::GetSessionResponse response;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Get(context, request, &response); },
      session);
  if (!status.ok()) return status;
  return response.session();
}

absl::StatusOr<v1::GetSessionResponse> GetTranscript(const Connection& connection, const std::string& session,
                                                     int64_t from) {
  v1::GetSessionResponse all;
  const auto stub = Stub(connection);
  while (true) {
    v1::GetSessionRequest request;
    request.set_session(session);
    request.set_transcript(true);
    request.set_from(from + all.token_ids_size());
    v1::GetSessionResponse page;
    absl::Status status = Ask(
        connection, request, [&](grpc::ClientContext* context) { return stub->Get(context, request, &page); }, session);
    if (!status.ok()) return status;
    *all.mutable_session() = page.session();
    all.mutable_token_ids()->MergeFrom(page.token_ids());
    all.mutable_text()->append(page.text());
    for (const v1::TurnSpan& turn : page.turns()) {
      const bool is_known = !all.turns().empty() && all.turns().rbegin()->input_begin() >= turn.input_begin();
      if (!is_known) *all.add_turns() = turn;
    }
    if (page.token_ids().empty() || from + all.token_ids_size() >= page.session().position()) return all;
  }
}

absl::Status CreateSession(const Connection& connection, const v1::CreateSessionRequest& request,
                           const Printing& printing) {
  v1::Session session;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Create(context, request, &session); },
      request.name());
  if (!status.ok()) return status;
  Print(printing, SessionJson(session), session.id() + "\n");
  return absl::OkStatus();
}

absl::Status ListSessions(const Connection& connection, const std::map<std::string, std::string>& labels, int64_t limit,
                          const Printing& printing) {
  const auto stub = Stub(connection);
  v1::ListSessionsRequest request;
  request.mutable_labels()->insert(labels.begin(), labels.end());
  request.set_page_size(1000);
  std::vector<v1::Session> sessions;
  bool has_more = false;
  do {
    v1::ListSessionsResponse page;
    absl::Status status =
        Ask(connection, request, [&](grpc::ClientContext* context) { return stub->List(context, request, &page); });
    if (!status.ok()) return status;
    for (const v1::Session& session : page.sessions()) {
      has_more = limit > 0 && static_cast<int64_t>(sessions.size()) >= limit;
      if (!has_more) sessions.push_back(session);
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && !has_more);
  Json list = Json::array();
  for (const v1::Session& session : sessions) list.push_back(SessionJson(session));
  Print(printing, {{"sessions", list}},
        sessions.empty() ? "no sessions\n"
                         : absl::StrCat(SessionTable(sessions, Now()), has_more ? "… there are more\n" : ""));
  return absl::OkStatus();
}

absl::Status ShowSession(const Connection& connection, const std::string& session, const ShowOptions& options,
                         const Printing& printing) {
  if (!options.transcript) {
    absl::StatusOr<v1::Session> found = GetSession(connection, session);
    if (!found.ok()) return found.status();
    Print(printing, SessionJson(*found), SessionText(*found, Now()));
    return absl::OkStatus();
  }
  absl::StatusOr<v1::GetSessionResponse> response = GetTranscript(connection, session, options.from);
  if (!response.ok()) return response.status();
  absl::StatusOr<v1::Model> model = GetModel(connection, "");
  Json json = SessionJson(response->session());
  json["token_ids"] = std::vector<int32_t>(response->token_ids().begin(), response->token_ids().end());
  json["text"] = response->text();
  json["turn_spans"] = TurnsJson(*response);
  Print(printing, json,
        absl::StrCat(SessionText(response->session(), Now()), "\n",
                     TranscriptText(*response, model.ok() ? model->chat_template() : "")));
  return absl::OkStatus();
}

absl::Status ForkSession(const Connection& connection, const v1::ForkSessionRequest& request,
                         const Printing& printing) {
  v1::ForkSessionResponse response;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Fork(context, request, &response); },
      request.session());
  if (!status.ok()) return status;
  Json json = SessionJson(response.session());
  json["tokens_to_replay"] = response.tokens_to_replay();
  Print(printing, json,
        absl::StrFormat("%s holds the first %d tokens; %s\n", NameOf(response.session()), response.session().position(),
                        ReplayText(response.tokens_to_replay())));
  return absl::OkStatus();
}

absl::Status RewindSession(const Connection& connection, const std::string& session, const RewindTarget& target,
                           const Printing& printing) {
  v1::RewindSessionRequest request;
  request.set_session(session);
  request.set_dry_run(target.dry_run);
  if (target.position.has_value()) {
    request.set_position(*target.position);
  } else {
    absl::StatusOr<int64_t> begin = BeginOfTurn(connection, session, target.turns);
    if (!begin.ok()) return begin.status();
    request.set_position(*begin);
  }
  v1::RewindSessionResponse response;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Rewind(context, request, &response); },
      session);
  if (!status.ok()) return status;
  Print(printing,
        {{"position", response.position()},
         {"checkpoint", response.checkpoint()},
         {"tokens_to_replay", response.tokens_to_replay()},
         {"dry_run", target.dry_run}},
        absl::StrFormat("%s %d tokens; %s\n", target.dry_run ? "would hold" : "holds", response.position(),
                        ReplayText(response.tokens_to_replay())));
  return absl::OkStatus();
}

absl::Status RebuildSession(const Connection& connection, const std::string& session, const Printing& printing) {
  v1::RebuildSessionRequest request;
  request.set_session(session);
  if (absl::Status status = CheckText(request); !status.ok()) return status;
  const auto stub = Stub(connection);
  grpc::ClientContext context;
  connection.Prepare(&context);
  NameSession(session, &context);
  const auto reader = stub->Rebuild(&context, request);
  v1::RebuildSessionProgress event, last;
  {
    Progress progress(stderr);
    while (reader->Read(&event)) {
      progress.Show("tokens", event.tokens_done(), event.tokens_total());
      last = event;
    }
  }
  absl::Status status = connection.Explain(reader->Finish());
  if (!status.ok()) return status;
  Print(printing, SessionJson(last.session()),
        absl::StrFormat("%s: the state of %d tokens was computed anew\n", NameOf(last.session()), last.tokens_total()));
  return absl::OkStatus();
}

absl::Status DeleteSessions(const Connection& connection, const std::vector<std::string>& sessions,
                            const Printing& printing) {
  const auto stub = Stub(connection);
  Json list = Json::array();
  std::string text;
  absl::Status first_error;
  for (const std::string& session : sessions) {
    v1::DeleteSessionRequest request;
    request.set_session(session);
    v1::DeleteSessionResponse response;
    absl::Status status = Ask(
        connection, request, [&](grpc::ClientContext* context) { return stub->Delete(context, request, &response); },
        session);
    if (!status.ok()) {
      first_error.Update(absl::Status(status.code(), absl::StrCat(session, ": ", std::string(status.message()))));
      continue;
    }
    list.push_back({{"session", session}, {"removed", RemovedJson(response.removed())}});
    absl::StrAppend(&text, "removed ", session, "\n", RemovedText(response.removed()));
  }
  Print(printing, {{"deleted", list}}, text);
  return first_error;
}

absl::Status UpdateSession(const Connection& connection, const v1::UpdateSessionRequest& request,
                           const Printing& printing) {
  v1::Session session;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Update(context, request, &session); },
      request.session());
  if (!status.ok()) return status;
  Print(printing, SessionJson(session), SessionText(session, Now()));
  return absl::OkStatus();
}

absl::Status BreakLease(const Connection& connection, const std::string& session, const Printing& printing) {
  v1::BreakLeaseRequest request;
  request.set_session(session);
  v1::BreakLeaseResponse response;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->BreakLease(context, request, &response); },
      session);
  if (!status.ok()) return status;
  Print(printing, {{"owner", response.owner().empty() ? Json(nullptr) : Json(response.owner())}},
        response.owner().empty() ? "nobody held a lease\n" : absl::StrCat(response.owner(), " can no longer append\n"));
  return absl::OkStatus();
}

absl::Status CheckSessions(const Connection& connection, const std::string& session, const Printing& printing) {
  v1::CheckSessionsRequest request;
  request.set_session(session);
  v1::CheckSessionsResponse response;
  const auto stub = Stub(connection);
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Check(context, request, &response); },
      session);
  if (!status.ok()) return status;
  Json damages = Json::array();
  for (const v1::Damage& damage : response.damages()) {
    damages.push_back({{"session", damage.session()},
                       {"part", damage.part()},
                       {"position", damage.position()},
                       {"tier", TierName(damage.tier())},
                       {"what", damage.what()}});
  }
  Print(printing,
        {{"sessions", response.sessions()},
         {"snapshots", response.snapshots()},
         {"bytes", response.bytes()},
         {"damages", damages}},
        DamageText(response));
  if (response.damages().empty()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("%d damaged part%s", response.damages_size(), response.damages_size() == 1 ? "" : "s"));
}

absl::Status CollectGarbage(const Connection& connection, const Printing& printing) {
  v1::CollectGarbageResponse response;
  const auto stub = Stub(connection);
  absl::Status status =
      Ask(connection, [&](grpc::ClientContext* context) { return stub->CollectGarbage(context, {}, &response); });
  if (!status.ok()) return status;
  int64_t num_young = 0;
  for (const v1::TierCount& count : response.too_young()) num_young += count.snapshots();
  Print(
      printing,
      {{"expired_sessions", response.expired_sessions()},
       {"removed", RemovedJson(response.removed())},
       {"too_young", RemovedJson(response.too_young())}},
      absl::StrCat(response.expired_sessions(), " sessions had outlived their time\n", RemovedText(response.removed()),
                   num_young == 0 ? ""
                                  : absl::StrCat(num_young, " more that nothing refers to are younger than an hour: ",
                                                 "a record may be about to name them\n")));
  return absl::OkStatus();
}

}  // namespace statehouse::cli
