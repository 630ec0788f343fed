#include "server/generation_service.h"

#include "engine/errors.h"
#include "server/generate_call.h"
#include "server/generate_once_call.h"
#include "server/unary_call.h"

namespace statehouse {

grpc::ServerWriteReactor<v1::GenerateEvent>* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                                         const v1::GenerateRequest* request) {
  return GenerateCall::Start(environment_, context, request);
}

grpc::ServerUnaryReactor* GenerationService::GenerateOnce(grpc::CallbackServerContext* context,
                                                          const v1::GenerateRequest* request,
                                                          v1::GenerateResponse* response) {
  return GenerateOnceCall::Start(environment_, context, request, response);
}

grpc::ServerUnaryReactor* GenerationService::Cancel(grpc::CallbackServerContext* context,
                                                    const v1::CancelRequest* request, v1::CancelResponse* response) {
  return UnaryCall(environment_, context, "Cancel", [=, this](const CallInfo& info) -> absl::Status {
    if (request->request_id().empty()) return InvalidField("request_id", "an empty string", "the id of a request");
    absl::StatusOr<const ServedModel*> model = environment_->model->Find("");
    if (!model.ok()) return model.status();
    // In this order: the engine knows a request before the table forgets it.
    const bool waits = environment_->calls->Cancel(info.principal, request->request_id());
    const bool runs = (*model)->engine->Cancel(request->request_id(), info.principal);
    response->set_cancelled(waits || runs);
    return absl::OkStatus();
  });
}

}  // namespace statehouse
