#include "server/sessions_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_session.h"
#include "server/session_rebuild.h"
#include "server/session_transfer.h"
#include "server/unary_call.h"

namespace statehouse {
namespace {

constexpr int64_t kMostTranscript = 65536;  // tokens of one answer
constexpr int kDefaultPage = 100;
constexpr int kMostPage = 1000;
constexpr absl::Duration kCollectRetryAfter = absl::Seconds(10);

absl::StatusOr<const ServedModel*> ModelWithSessions(const CallEnvironment& environment) {
  absl::StatusOr<const ServedModel*> model = environment.model->Find("");
  if (!model.ok()) return model.status();
  if ((*model)->sessions == nullptr) return absl::FailedPreconditionError("this server keeps no sessions");
  return model;
}

// Every method names its session in the field `session`.
absl::Status CheckReference(const std::string& session) {
  if (!session.empty()) return absl::OkStatus();
  return InvalidField("session", "an empty string", "a session's id or name");
}

absl::Status AddTranscript(const ServedModel& model, const CallInfo& info, const v1::GetSessionRequest& request,
                           v1::GetSessionResponse* response) {
  const int64_t position = response->session().position();
  if (request.from() < 0 || request.from() > position) {
    return InvalidField("from", absl::StrCat(request.from()),
                        absl::StrCat("0 to ", position, ", the session's position"));
  }
  if (request.max_tokens() < 0 || request.max_tokens() > kMostTranscript) {
    return InvalidField("max_tokens", absl::StrCat(request.max_tokens()), absl::StrCat("0 to ", kMostTranscript));
  }
  const int64_t max = request.max_tokens() == 0 ? kMostTranscript : request.max_tokens();
  absl::StatusOr<SessionTranscript> transcript =
      model.sessions->Transcript(info.principal, request.session(), request.from(), max);
  if (!transcript.ok()) return transcript.status();
  response->mutable_token_ids()->Add(transcript->tokens.begin(), transcript->tokens.end());
  if (model.tokenizer != nullptr) {
    response->set_text(model.tokenizer->Decode(transcript->tokens, /*show_special=*/true));
  }
  for (const TurnSpan& turn : transcript->turns) {
    v1::TurnSpan* to = response->add_turns();
    to->set_input_begin(turn.input_begin);
    to->set_answer_begin(turn.answer_begin);
    to->set_end(turn.end);
    to->set_seed(turn.seed);
  }
  return absl::OkStatus();
}

absl::Status Fill(const absl::StatusOr<SessionInfo>& info, v1::Session* response) {
  if (!info.ok()) return info.status();
  ToProto(*info, response);
  return absl::OkStatus();
}

}  // namespace

template <typename Answer>
grpc::ServerUnaryReactor* SessionsService::Ask(grpc::CallbackServerContext* context, const char* method, int64_t bytes,
                                               Answer answer, Lasts lasts) {
  return QueuedCall(
      environment_, context, method, bytes,
      [this, answer = std::move(answer)](const CallInfo& info) -> absl::Status {
        absl::StatusOr<const ServedModel*> model = ModelWithSessions(*environment_);
        return model.ok() ? answer(**model, info) : model.status();
      },
      lasts == Lasts::kLong ? environment_->transfers : environment_->session_work);
}

grpc::ServerUnaryReactor* SessionsService::Create(grpc::CallbackServerContext* context,
                                                  const v1::CreateSessionRequest* request, v1::Session* response) {
  return Ask(context, "CreateSession", static_cast<int64_t>(request->ByteSizeLong()),
             [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
               absl::StatusOr<SessionSpec> spec = ToSpec("", *request, info.principal);
               return spec.ok() ? Fill(model.sessions->Create(*spec), response) : spec.status();
             });
}

grpc::ServerUnaryReactor* SessionsService::Get(grpc::CallbackServerContext* context,
                                               const v1::GetSessionRequest* request, v1::GetSessionResponse* response) {
  return Ask(context, "GetSession", 0, [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
    absl::Status status = Fill(model.sessions->Get(info.principal, request->session()), response->mutable_session());
    if (!status.ok() || !request->transcript()) return status;
    return AddTranscript(model, info, *request, response);
  });
}

grpc::ServerUnaryReactor* SessionsService::List(grpc::CallbackServerContext* context,
                                                const v1::ListSessionsRequest* request,
                                                v1::ListSessionsResponse* response) {
  return Ask(context, "ListSessions", 0, [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (request->page_size() < 0 || request->page_size() > kMostPage) {
      return InvalidField("page_size", absl::StrCat(request->page_size()), absl::StrCat("1 to ", kMostPage));
    }
    const int size = request->page_size() == 0 ? kDefaultPage : request->page_size();
    const Labels labels(request->labels().begin(), request->labels().end());
    absl::StatusOr<SessionPage> page = model.sessions->List(info.principal, labels, request->page_token(), size);
    if (!page.ok()) return page.status();
    for (const SessionInfo& session : page->sessions) ToProto(session, response->add_sessions());
    response->set_next_page_token(page->next);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SessionsService::Delete(grpc::CallbackServerContext* context,
                                                  const v1::DeleteSessionRequest* request,
                                                  v1::DeleteSessionResponse* response) {
  return Ask(context, "DeleteSession", 0, [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
    absl::StatusOr<SnapshotVault::Removed> removed = model.sessions->Delete(info.principal, request->session());
    if (!removed.ok()) return removed.status();
    ToProto(*removed, response->mutable_removed());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SessionsService::Fork(grpc::CallbackServerContext* context,
                                                const v1::ForkSessionRequest* request,
                                                v1::ForkSessionResponse* response) {
  return Ask(context, "ForkSession", static_cast<int64_t>(request->ByteSizeLong()),
             [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
               if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
               absl::StatusOr<SessionSpec> spec = ToSpec("as.", request->as(), info.principal);
               if (!spec.ok()) return spec.status();
               const std::optional<int64_t> position =
                   request->has_position() ? std::optional<int64_t>(request->position()) : std::nullopt;
               absl::StatusOr<SessionInfo> fork =
                   model.sessions->Fork(info.principal, request->session(), position, *spec);
               if (absl::Status status = Fill(fork, response->mutable_session()); !status.ok()) return status;
               const int64_t nearest = fork->checkpoints.empty() ? 0 : fork->checkpoints.back().position;
               response->set_tokens_to_replay(fork->num_tokens - nearest);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* SessionsService::Rewind(grpc::CallbackServerContext* context,
                                                  const v1::RewindSessionRequest* request,
                                                  v1::RewindSessionResponse* response) {
  return Ask(context, "RewindSession", 0, [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
    absl::StatusOr<RewindCost> cost =
        model.sessions->Rewind(info.principal, request->session(), request->position(), request->dry_run());
    if (!cost.ok()) return cost.status();
    response->set_position(cost->position);
    response->set_checkpoint(cost->snapshot_position);
    response->set_tokens_to_replay(cost->tokens_to_compute);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::RebuildSessionProgress>* SessionsService::Rebuild(
    grpc::CallbackServerContext* context, const v1::RebuildSessionRequest* request) {
  using Call = WritingCall<v1::RebuildSessionProgress>;
  return Call::Start(
      environment_, context, "RebuildSession", [=, this](const CallInfo& info, Call* call) -> absl::Status {
        if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
        absl::StatusOr<const ServedModel*> model = ModelWithSessions(*environment_);
        if (!model.ok()) return model.status();
        v1::RebuildSessionProgress progress;
        RebuildCallbacks callbacks;
        callbacks.cancelled = [call] { return call->cancelled(); };
        callbacks.progress = [&](int64_t done, int64_t total) -> absl::Status {
          progress.set_tokens_done(done);
          progress.set_tokens_total(total);
          return done < total ? call->Write(progress) : absl::OkStatus();  // the last message comes after the commit
        };
        absl::Status status = RebuildSession(**model, info, request->session(), callbacks);
        if (!status.ok()) return status;
        status = Fill((*model)->sessions->Get(info.principal, request->session()), progress.mutable_session());
        return status.ok() ? call->Write(progress) : status;
      });
}

grpc::ServerWriteReactor<v1::ExportSessionPart>* SessionsService::Export(grpc::CallbackServerContext* context,
                                                                         const v1::ExportSessionRequest* request) {
  using Call = WritingCall<v1::ExportSessionPart>;
  return Call::Start(environment_, context, "ExportSession",
                     [=, this](const CallInfo& info, Call* call) -> absl::Status {
                       absl::StatusOr<const ServedModel*> model = ModelWithSessions(*environment_);
                       return model.ok() ? ExportSession(**model, info, *request, call) : model.status();
                     });
}

grpc::ServerReadReactor<v1::ImportSessionPart>* SessionsService::Import(grpc::CallbackServerContext* context,
                                                                        v1::ImportSessionResponse* response) {
  using Call = ReadingCall<v1::ImportSessionPart>;
  return Call::Start(
      environment_, context, "ImportSession", [=, this](const CallInfo& info, Call* call) -> absl::Status {
        absl::StatusOr<const ServedModel*> model = ModelWithSessions(*environment_);
        return model.ok() ? ImportSession(**model, info, environment_->imports, call, response) : model.status();
      });
}

grpc::ServerUnaryReactor* SessionsService::ImportStatus(grpc::CallbackServerContext* context,
                                                        const v1::ImportStatusRequest* request,
                                                        v1::ImportStatusResponse* response) {
  return UnaryCall(environment_, context, "ImportStatus", [=, this](const CallInfo& info) -> absl::Status {
    if (absl::Status status = CheckImportId(request->import_id()); !status.ok()) return status;
    response->set_offset(environment_->imports->Offset(info.principal, request->import_id()));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SessionsService::Update(grpc::CallbackServerContext* context,
                                                  const v1::UpdateSessionRequest* request, v1::Session* response) {
  return Ask(context, "UpdateSession", static_cast<int64_t>(request->ByteSizeLong()),
             [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
               if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
               absl::StatusOr<SessionChange> change = ToChange(*request);
               if (!change.ok()) return change.status();
               return Fill(model.sessions->Update(info.principal, request->session(), *change), response);
             });
}

grpc::ServerUnaryReactor* SessionsService::BreakLease(grpc::CallbackServerContext* context,
                                                      const v1::BreakLeaseRequest* request,
                                                      v1::BreakLeaseResponse* response) {
  return Ask(context, "BreakLease", 0, [=, this](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (absl::Status status = CheckReference(request->session()); !status.ok()) return status;
    absl::StatusOr<std::string> owner =
        model.sessions->BreakLease(info.principal, request->session(), /*of_anyone=*/IsOperator(info));
    if (!owner.ok()) return owner.status();
    response->set_owner(*owner);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SessionsService::Check(grpc::CallbackServerContext* context,
                                                 const v1::CheckSessionsRequest* request,
                                                 v1::CheckSessionsResponse* response) {
  const auto check = [=](const ServedModel& model, const CallInfo& info) -> absl::Status {
    absl::StatusOr<SessionReport> report = model.sessions->Check(info.principal, request->session());
    if (!report.ok()) return report.status();
    response->set_sessions(report->sessions);
    response->set_snapshots(report->snapshots);
    response->set_bytes(report->bytes);
    for (const SessionDamage& damage : report->damages) {
      v1::Damage* to = response->add_damages();
      to->set_session(damage.session);
      to->set_part(damage.part);
      to->set_position(damage.position);
      to->set_tier(ToProto(damage.tier));
      to->set_what(damage.what);
    }
    return absl::OkStatus();
  };
  return Ask(context, "CheckSessions", 0, check, Lasts::kLong);
}

grpc::ServerUnaryReactor* SessionsService::CollectGarbage(grpc::CallbackServerContext* context,
                                                          const v1::CollectGarbageRequest*,
                                                          v1::CollectGarbageResponse* response) {
  const auto collect = [=, this](const ServedModel& model, const CallInfo& info) -> absl::Status {
    if (!IsOperator(info)) {
      return absl::PermissionDeniedError(absl::StrCat("collecting garbage concerns everybody's sessions, and \"",
                                                      info.principal,
                                                      "\" is no operator of this server (serve --operators)"));
    }
    if (collecting_.exchange(true)) return Busy("another call collects garbage", kCollectRetryAfter);
    const absl::Cleanup over = [this] { collecting_ = false; };
    absl::StatusOr<GarbageReport> report = model.sessions->CollectGarbage();
    if (!report.ok()) return report.status();
    response->set_expired_sessions(report->expired_sessions);
    ToProto(report->removed, response->mutable_removed());
    ToProto(report->too_young, response->mutable_too_young());
    return absl::OkStatus();
  };
  return Ask(context, "CollectGarbage", 0, collect, Lasts::kLong);
}

}  // namespace statehouse
