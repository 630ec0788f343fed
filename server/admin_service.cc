#include "server/admin_service.h"

#include "engine/state/host_memory.h"
#include "server/unary_call.h"
#include "statehouse/build_info.h"

namespace statehouse {
namespace {

void FillSessions(const ServedModel& model, v1::GetStatusResponse* response) {
  const SessionTotals totals = model.sessions->totals();
  v1::SessionCounts* counts = response->mutable_sessions();
  counts->set_open(totals.open);
  counts->set_busy(totals.busy);
  counts->set_damaged(totals.damaged);
  if (model.vault == nullptr) return;
  const auto tiers = model.vault->totals();
  response->mutable_memory()->set_snapshots(tiers[static_cast<size_t>(Tier::kHost)].bytes);
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kStore}) {
    const SnapshotVault::TierTotals& from = tiers[static_cast<size_t>(tier)];
    v1::SessionCounts::Tier* to = counts->add_tiers();
    to->set_name(TierName(tier));
    to->set_snapshots(from.snapshots);
    to->set_bytes(from.bytes);
    to->set_hits(from.hits);
    to->set_errors(from.errors);
    to->set_why_not(from.why_not);
  }
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                                  v1::GetStatusResponse* response) {
  // All of it is counted here: no disk and no store is asked.
  return UnaryCall(environment_, context, "GetStatus", [=, this](const CallInfo&) -> absl::Status {
    Fill(response);
    return absl::OkStatus();
  });
}

void AdminService::Fill(v1::GetStatusResponse* response) const {
  const BuildInfo& build = GetBuildInfo();
  response->mutable_build()->set_version(build.version);
  response->mutable_build()->set_commit(build.commit);
  response->mutable_build()->set_type(build.build_type);
  response->set_uptime(absl::ToDoubleSeconds(absl::Now() - start_));
  response->mutable_memory()->set_resident(ResidentBytes());
  response->set_prompt_tokens(environment_->metrics->prompt_tokens.load(std::memory_order_relaxed));
  response->set_completion_tokens(environment_->metrics->generation_tokens.load(std::memory_order_relaxed));
  const ServedModel* model = environment_->model->get();
  if (model == nullptr) return;
  response->mutable_build()->set_device(model->device);

  const EngineStatus status = model->engine->GetStatus();
  const EngineOptions& options = model->engine->options();
  response->set_serving(status.accepting && status.healthy);
  response->set_requests_running(status.requests_running);
  response->mutable_slots()->set_total(status.slots_total);
  response->mutable_slots()->set_used(status.slots_used);
  response->mutable_slots()->set_zeroing(status.slots_zeroing);
  response->mutable_slots()->set_bytes(status.slot_bytes);
  response->mutable_queue()->set_requests(status.requests_queued);
  response->mutable_queue()->set_max_requests(options.max_num_queued_reqs);
  response->mutable_queue()->set_tokens(status.tokens_queued);
  response->mutable_queue()->set_max_tokens(options.max_num_queued_tokens);
  if (model->machine.has_value()) *response->mutable_machine() = *model->machine;
  response->mutable_memory()->set_weights(status.weight_bytes);
  response->mutable_memory()->set_slots(status.state_bytes);
  response->mutable_memory()->set_workspace(status.workspace_bytes);
  if (model->sessions != nullptr) FillSessions(*model, response);
  if (model->prefix_cache == nullptr) return;
  const PrefixCache::Totals prefixes = model->prefix_cache->totals();
  response->mutable_memory()->set_prefixes(prefixes.kept.bytes);
  response->mutable_memory()->set_prefixes_taking(prefixes.taking_bytes);
  response->mutable_memory()->set_prefixes_limit(model->prefix_cache->memory_bytes());
}

}  // namespace statehouse
