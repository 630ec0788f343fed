#include "server/session_rebuild.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/errors.h"
#include "engine/event_stream.h"
#include "engine/request.h"

namespace statehouse {
namespace {

// A piece is what one request computes: progress is told and a cancellation seen between them.
constexpr int64_t kPiece = 4096;
constexpr absl::Duration kLook = absl::Milliseconds(200);

// Waits for the end; cancels where the caller has gone.
absl::Status WaitForEnd(EventStream* stream, const std::function<bool()>& cancelled) {
  Event event;
  while (true) {
    if (!stream->Next(&event, absl::Now() + kLook)) {
      if (cancelled()) stream->Cancel();
      continue;
    }
    if (event.kind == Event::Kind::kDone) return stream->status();
  }
}

class Rebuild {
 public:
  Rebuild(const ServedModel& model, const CallInfo& info, std::vector<int32_t> tokens, std::vector<int64_t> positions)
      : model_(model), info_(info), tokens_(std::move(tokens)), positions_(std::move(positions)) {}

  // Computes the tokens up to `end`, from where the last piece ended.
  absl::Status RunPiece(int64_t end, const std::function<bool()>& cancelled) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat(info_.request_id, "/rebuild/", end);
    request->principal = info_.principal;
    request->deadline = info_.deadline;
    request->prompt.assign(tokens_.begin(), tokens_.begin() + end);
    request->from = last_;
    request->sampling.temperature = 0;
    request->stop.max_tokens = 1;  // which is thrown away
    const int64_t begin = last_ == nullptr ? 0 : last_->position();
    std::vector<int64_t> wanted;
    for (const int64_t position : positions_) {
      if (position > begin && position < end) wanted.push_back(position);
    }
    // The next piece starts from what lies at the end, and a checkpoint may be wanted just there.
    const bool keeps_end =
        end == num_tokens() || std::find(positions_.begin(), positions_.end(), end) != positions_.end();
    wanted.push_back(SnapshotOrder::kAtEnd);
    std::vector<std::shared_ptr<SnapshotDraft>> drafts;
    for (const int64_t position : wanted) {
      auto draft = SnapshotDraft::Reserve(*model_.slot_shape, model_.vocab_size, model_.snapshot_memory.get(),
                                          position == SnapshotOrder::kAtEnd ? end : position);
      if (!draft.ok()) return draft.status();
      drafts.push_back(*draft);
      request->snapshots.push_back({position, *std::move(draft)});
    }
    absl::StatusOr<std::shared_ptr<EventStream>> stream = model_.engine->Submit(std::move(request));
    if (!stream.ok()) return stream.status();
    if (absl::Status status = WaitForEnd(stream->get(), cancelled); !status.ok()) return status;
    for (const auto& draft : drafts) {
      if (!draft->filled()) return absl::InternalError("a piece of the rebuild left no snapshot");
      last_ = draft->Seal({tokens_.begin(), tokens_.begin() + end});
      if (draft != drafts.back() || keeps_end) snapshots_.push_back(last_);
    }
    return absl::OkStatus();
  }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  const std::vector<std::shared_ptr<const Snapshot>>& snapshots() const { return snapshots_; }

 private:
  const ServedModel& model_;
  const CallInfo& info_;
  const std::vector<int32_t> tokens_;
  const std::vector<int64_t> positions_;
  std::shared_ptr<const Snapshot> last_;
  std::vector<std::shared_ptr<const Snapshot>> snapshots_;
};

}  // namespace

absl::Status RebuildSession(const ServedModel& model, const CallInfo& info, const std::string& session,
                            const RebuildCallbacks& callbacks) {
  absl::StatusOr<std::unique_ptr<Turn>> turn = model.sessions->BeginRebuild(info.principal, session, info.deadline);
  if (!turn.ok()) return turn.status();
  Rebuild rebuild(model, info, (*turn)->prompt(), (*turn)->SnapshotPositions());
  for (int64_t done = 0; done < rebuild.num_tokens();) {
    done = std::min(done + kPiece, rebuild.num_tokens());
    if (absl::Status status = rebuild.RunPiece(done, callbacks.cancelled); !status.ok()) return status;
    if (absl::Status status = callbacks.progress(done, rebuild.num_tokens()); !status.ok()) return status;
  }
  return (*turn)->Commit(TurnOutcome(), rebuild.snapshots()).status();
}

}  // namespace statehouse
