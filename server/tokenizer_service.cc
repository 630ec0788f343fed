#include "server/tokenizer_service.h"

#include "absl/strings/str_cat.h"
#include "server/convert_request.h"
#include "server/unary_call.h"
#include "server/utf8.h"

namespace statehouse {

grpc::ServerUnaryReactor* TokenizerService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return UnaryCall(environment_, context, "Tokenize", [=, this](const CallInfo&) -> absl::Status {
    absl::StatusOr<const ServedModel*> model = environment_->model->Find(request->model());
    if (!model.ok()) return model.status();
    absl::StatusOr<std::vector<int32_t>> ids = ToTokenIds(*request, **model);
    if (!ids.ok()) return ids.status();
    response->mutable_token_ids()->Add(ids->begin(), ids->end());
    if (request->return_texts()) {
      const Tokenizer& tokenizer = *(*model)->tokenizer;
      for (const int32_t id : *ids) {
        response->add_texts(
            ReplaceInvalidUtf8(tokenizer.IsSpecial(id) ? tokenizer.TokenName(id) : tokenizer.TokenBytes(id)));
      }
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* TokenizerService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return UnaryCall(environment_, context, "Detokenize", [=, this](const CallInfo&) -> absl::Status {
    absl::StatusOr<const ServedModel*> model = environment_->model->Find(request->model());
    if (!model.ok()) return model.status();
    if ((*model)->tokenizer == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("this model has no tokenizer (", (*model)->why_no_tokenizer, "), so its ids have no text"));
    }
    if (absl::Status status = CheckTokenIds("token_ids", request->token_ids(), (*model)->vocab_size); !status.ok()) {
      return status;
    }
    const std::vector<int32_t> ids(request->token_ids().begin(), request->token_ids().end());
    response->set_text((*model)->tokenizer->Decode(ids, request->show_special_tokens()));
    return absl::OkStatus();
  });
}

}  // namespace statehouse
