#include "server/models_service.h"

#include "server/unary_call.h"

namespace statehouse {

grpc::ServerUnaryReactor* ModelsService::GetModel(grpc::CallbackServerContext* context,
                                                  const v1::GetModelRequest* request, v1::Model* response) {
  return UnaryCall(environment_, context, "GetModel", [=, this](const CallInfo&) -> absl::Status {
    absl::StatusOr<const ServedModel*> model = environment_->model->Find(request->name());
    if (!model.ok()) return model.status();
    *response = (*model)->card;
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelsService::ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
                                                    v1::ListModelsResponse* response) {
  return UnaryCall(environment_, context, "ListModels", [=, this](const CallInfo&) -> absl::Status {
    absl::StatusOr<const ServedModel*> model = environment_->model->Find("");
    if (!model.ok()) return model.status();
    *response->add_models() = (*model)->card;
    return absl::OkStatus();
  });
}

}  // namespace statehouse
