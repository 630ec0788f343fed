#include "server/admin_service.h"

#include "engine/state/host_memory.h"
#include "server/unary_call.h"
#include "statehouse/build_info.h"

namespace statehouse {

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                                  v1::GetStatusResponse* response) {
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
  response->mutable_build()->set_device(device_);
  response->set_uptime(absl::ToDoubleSeconds(absl::Now() - start_));
  response->mutable_memory()->set_resident(ResidentBytes());
  response->set_prompt_tokens(environment_->metrics->prompt_tokens.load(std::memory_order_relaxed));
  response->set_completion_tokens(environment_->metrics->generation_tokens.load(std::memory_order_relaxed));
  const ServedModel* model = environment_->model->get();
  if (model == nullptr) return;
  if (!model->device.empty()) response->mutable_build()->set_device(model->device);

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
  response->mutable_memory()->set_weights(status.weight_bytes);
  response->mutable_memory()->set_slots(status.state_bytes);
  response->mutable_memory()->set_workspace(status.workspace_bytes);
}

}  // namespace statehouse
