#include "server/session_turn.h"

#include <algorithm>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/admission.h"
#include "engine/errors.h"
#include "engine/output_text.h"
#include "server/convert_session.h"
#include "server/session_input.h"

namespace statehouse {
namespace {

// How long a call waits for the one of the same key that it takes over from.
constexpr absl::Duration kTakeOver = absl::Seconds(10);
constexpr int kMostTries = 3;
constexpr absl::Duration kRetryAfter = absl::Milliseconds(500);

uint64_t DrawSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// How an answer ended, for the record of its turn; the text follows from tokens and stop strings.
std::string DetailOf(const Answer& answer) {
  v1::Finished finished;
  finished.set_reason(ToProto(answer.reason));
  if (!answer.stop_string.empty()) finished.set_stop_string(answer.stop_string);
  if (answer.stop_token >= 0) finished.set_stop_token_id(answer.stop_token);
  finished.set_completion_tokens(static_cast<int64_t>(answer.tokens.size()));
  return finished.SerializeAsString();
}

// The snapshot, taken back to the tokens that stay; null where that is not exact.
std::shared_ptr<const Snapshot> Within(std::shared_ptr<const Snapshot> snapshot, int64_t num_tokens) {
  if (snapshot->position() <= num_tokens) return snapshot;
  return num_tokens >= std::max<int64_t>(1, snapshot->exact_from()) ? snapshot->TakenBackTo(num_tokens) : nullptr;
}

absl::StatusOr<std::unique_ptr<Turn>> BeginOrTakeOver(SessionStore* store, const TurnRequest& request,
                                                      TurnTable* table) {
  absl::StatusOr<std::unique_ptr<Turn>> turn = store->BeginTurn(request);
  const absl::Time until = std::min(request.deadline, absl::Now() + kTakeOver);
  for (int i = 0; i < kMostTries && absl::IsAborted(turn.status()) && !request.idempotency_key.empty(); ++i) {
    const auto session = store->Get(request.principal, request.ref);
    if (!session.ok() || !table->Supersede(session->id, request.idempotency_key, until)) break;
    turn = store->BeginTurn(request);
  }
  return turn;
}

// What went wrong first is what the caller asks about, and that nothing is kept belongs to it.
absl::Status AndNotKept(const absl::Status& ended, const absl::Status& committed) {
  absl::Status status(ended.code(), absl::StrCat(std::string(ended.message()), "; the session keeps nothing of it: ",
                                                 std::string(committed.message())));
  ended.ForEachPayload([&](auto type, const absl::Cord& payload) { status.SetPayload(type, payload); });
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionTurn>> SessionTurn::Begin(const v1::GenerateRequest& wire,
                                                                const ServedModel& model, const CallInfo& info,
                                                                TurnTable* table, Request* request) {
  if (model.sessions == nullptr) return absl::FailedPreconditionError("session: this server keeps no sessions");
  if (absl::Status status = CheckSessionUse(wire); !status.ok()) return status;
  const v1::SessionUse& use = wire.session();
  TurnRequest turn_request;
  turn_request.principal = info.principal;
  turn_request.ref = use.session();
  turn_request.make_input = [&](std::span<const int32_t> held) { return SessionInput(wire, model, held); };
  turn_request.idempotency_key = use.idempotency_key();
  turn_request.digest = RequestDigest(wire);
  turn_request.seed = request->sampling.seed.value_or(DrawSeed());
  turn_request.sampling = wire.sampling().SerializeAsString();
  turn_request.create_if_missing = use.create_if_missing();
  turn_request.allow_other_numeric = use.allow_other_numeric();
  turn_request.deadline = info.deadline;
  absl::StatusOr<std::unique_ptr<Turn>> begun = BeginOrTakeOver(model.sessions, turn_request, table);
  if (!begun.ok()) return begun.status();
  std::unique_ptr<SessionTurn> turn(new SessionTurn(use, *std::move(begun)));
  if (turn->is_repeated()) return turn;
  if (!use.idempotency_key().empty()) turn->ticket_ = table->Enter(turn->session_id_, use.idempotency_key());
  request->prompt = turn->turn_->prompt();
  request->from = turn->turn_->from();
  request->sampling.seed = turn->turn_->seed();
  if (absl::Status status = turn->OrderSnapshots(model, request); !status.ok()) {
    turn->Refuse();
    return status;
  }
  return turn;
}

SessionTurn::SessionTurn(const v1::SessionUse& use, std::unique_ptr<Turn> turn)
    : use_(use),
      turn_(std::move(turn)),
      session_id_(turn_->session_id()),
      input_(turn_->input().begin(), turn_->input().end()),
      position_before_(turn_->position_before()),
      repeated_(turn_->repeated()) {
  Describe();
}

SessionTurn::~SessionTurn() = default;

void SessionTurn::Describe() {
  outcome_.set_session_id(session_id_);
  outcome_.set_position_before(position_before_);
  outcome_.set_position(repeated_.has_value() ? repeated_->num_tokens : position_before_);
  outcome_.set_repeated(repeated_.has_value());
  outcome_.set_committed(repeated_.has_value());
  outcome_.set_exactness(ToProto(turn_->exactness()));
  outcome_.set_numeric_difference(turn_->numeric_difference());
  if (repeated_.has_value()) {
    cache_.set_explanation("the first outcome of this idempotency key; nothing was computed");
    return;
  }
  outcome_.set_replayed_tokens(turn_->num_replayed());
  const int64_t restored = turn_->from() == nullptr ? 0 : turn_->from()->position();
  cache_.set_cached_tokens(restored);
  cache_.set_tier(ToProto(turn_->from_tier()));
  cache_.set_matched_tokens(position_before_);
  cache_.set_miss(turn_->num_replayed() == 0        ? v1::CACHE_MISS_NONE
                  : turn_->why_not_nearer().empty() ? v1::CACHE_MISS_NO_SNAPSHOT
                                                    : v1::CACHE_MISS_TIER);
  std::string text = absl::StrCat("restored ", restored, " of the session's ", position_before_, " tokens");
  if (restored > 0) absl::StrAppend(&text, " from ", TierName(turn_->from_tier()));
  if (!turn_->why_not_nearer().empty()) absl::StrAppend(&text, "; ", turn_->why_not_nearer());
  cache_.set_explanation(text);
}

absl::Status SessionTurn::OrderSnapshots(const ServedModel& model, Request* request) {
  std::vector<int64_t> positions = turn_->SnapshotPositions();
  positions.push_back(SnapshotOrder::kAtEnd);
  const int64_t end = static_cast<int64_t>(request->prompt.size()) + ExpectedAnswer(*request);
  for (const int64_t position : positions) {
    auto draft = SnapshotDraft::Reserve(*model.slot_shape, model.vocab_size, model.snapshot_memory.get(),
                                        position == SnapshotOrder::kAtEnd ? end : position);
    if (!draft.ok()) return draft.status();
    request->snapshots.push_back({position, *draft});
    drafts_.push_back(*std::move(draft));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<EventStream>> SessionTurn::Replay(const Request& request,
                                                                 const ServedModel& model) const {
  v1::Finished finished;
  if (!finished.ParseFromString(repeated_->detail)) {
    return absl::DataLossError(absl::StrCat("how the first answer of this idempotency key ended cannot be read: ",
                                            repeated_->detail.size(), " bytes on record"));
  }
  const auto num_tokens = static_cast<size_t>(
      std::clamp<int64_t>(finished.completion_tokens(), 0, static_cast<int64_t>(repeated_->tokens.size())));
  const std::span<const int32_t> tokens = std::span(repeated_->tokens).first(num_tokens);
  auto stream = std::make_shared<EventStream>(request.id, 1, static_cast<int64_t>(num_tokens) + 1);
  Event event;
  event.kind = Event::Kind::kStarted;
  event.seed = repeated_->seed;
  stream->Push(event);
  // How much of the text is final after each token follows from the stop strings, as it did the first time.
  const StopPatterns patterns(request.stop.stop);
  OutputText text(model.tokenizer, request.show_special_tokens, &patterns);
  std::string scratch;
  Event end;
  end.kind = Event::Kind::kOutputFinished;
  end.reason = FromProto(finished.reason());
  end.stop_token = finished.has_stop_token_id() ? finished.stop_token_id() : -1;
  std::optional<StopMatcher::Match> match;
  for (size_t i = 0; i < tokens.size() && !match.has_value(); ++i) {
    match = text.Append(tokens[i], static_cast<int64_t>(i) + 1 >= request.stop.min_tokens, &scratch);
    event = Event();
    event.token = tokens[i];
    event.position = repeated_->answer_begin + static_cast<int64_t>(i);
    if (match.has_value()) {
      end.stop_index = match->pattern;
      end.text_bytes = request.stop.include_stop ? match->end : match->begin;
    }
    event.text_bytes = match.has_value() ? end.text_bytes : text.final_bytes();
    stream->Push(event);
  }
  if (!match.has_value()) end.text_bytes = text.Finish(&scratch);
  stream->Push(end);
  Usage usage;
  usage.prompt_tokens = repeated_->answer_begin;
  usage.completion_tokens = static_cast<int64_t>(num_tokens);
  stream->Finish(absl::OkStatus(), usage, Timings());
  return stream;
}

void SessionTurn::Refuse() {
  turn_->Refuse();
  turn_.reset();
  ticket_.reset();
}

void SessionTurn::Running(const std::shared_ptr<EventStream>& stream) {
  if (ticket_ != nullptr) ticket_->SetStream(stream);
}

void SessionTurn::FillStarted(v1::Started* started) const {
  started->set_session_id(session_id_);
  started->set_session_position(position_before_);
  *started->mutable_cache() = cache_;
}

absl::Status SessionTurn::Settle(const absl::Status& ended, const Answer& answer, int64_t num_delivered,
                                 bool may_come_back) {
  if (is_repeated()) {
    turn_.reset();
    return ended;
  }
  const bool superseded = is_superseded();
  const bool keeps = use_.on_failure() == v1::ON_FAILURE_KEEP_DELIVERED && !superseded && !may_come_back;
  absl::Status status = ended;
  if (ended.ok() || keeps) {
    std::vector<int32_t> all_tokens = turn_->prompt();
    all_tokens.insert(all_tokens.end(), answer.tokens.begin(), answer.tokens.end());
    if (answer.stop_token >= 0) all_tokens.push_back(answer.stop_token);
    Answer kept = answer;
    if (!ended.ok()) {
      kept.tokens.resize(std::min(kept.tokens.size(), static_cast<size_t>(num_delivered)));
      kept.stop_token = -1;
    }
    TurnOutcome outcome;
    outcome.tokens = kept.tokens;
    if (kept.stop_token >= 0) outcome.tokens.push_back(kept.stop_token);
    outcome.seed = turn_->seed();
    outcome.detail = DetailOf(kept);
    const absl::Status committed = Commit(std::move(outcome), all_tokens);
    if (!committed.ok()) status = ended.ok() ? committed : AndNotKept(ended, committed);
  } else if (superseded) {
    status = Busy("a later call with the same idempotency key has taken over", kRetryAfter);
  }
  turn_.reset();  // before the ticket: who waits for it begins a turn at once
  ticket_.reset();
  return status;
}

absl::Status SessionTurn::Commit(TurnOutcome outcome, const std::vector<int32_t>& all_tokens) {
  const int64_t num_kept = static_cast<int64_t>(turn_->prompt().size() + outcome.tokens.size());
  std::vector<std::shared_ptr<const Snapshot>> snapshots;
  for (const std::shared_ptr<SnapshotDraft>& draft : drafts_) {
    if (!draft->filled()) continue;
    if (auto snapshot = Within(draft->Seal(all_tokens), num_kept); snapshot != nullptr) snapshots.push_back(snapshot);
  }
  drafts_.clear();
  absl::StatusOr<TurnOutcome> committed = turn_->Commit(std::move(outcome), snapshots);
  if (!committed.ok()) return committed.status();
  outcome_.set_position(committed->num_tokens);
  outcome_.set_committed(true);
  return absl::OkStatus();
}

}  // namespace statehouse
