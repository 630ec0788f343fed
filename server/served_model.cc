#include "server/served_model.h"

#include "absl/strings/str_cat.h"

namespace statehouse {

absl::StatusOr<const ServedModel*> ModelHandle::Find(std::string_view name) const {
  const ServedModel* model = get();
  if (model == nullptr)
    return absl::UnavailableError("the model is still loading; watch grpc.health.v1.Health, or try again");
  if (!name.empty() && name != model->name) {
    return absl::NotFoundError(absl::StrCat("model: there is no model \"", std::string(name),
                                            "\"; this server serves \"", model->name,
                                            "\" (an empty name means that one)"));
  }
  return model;
}

}  // namespace statehouse
