#include "server/tokenizer_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_event.h"  // TokenText
#include "server/convert_request.h"
#include "server/unary_call.h"

namespace statehouse {
namespace {

// As many strings, one per token, take a hundred megabytes.
constexpr int64_t kMostTexts = 1 << 20;

// A lower bound of the size on the wire is enough: it keeps memory in bounds, and gRPC refuses what is still too large.
absl::Status CheckAnswerSize(int64_t bytes, int64_t max_message_bytes) {
  if (bytes <= max_message_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the answer is larger than a message may be, ", max_message_bytes,
                                                   " bytes (--max-message-bytes); ask in pieces"));
}

absl::Status AddTexts(const std::vector<int32_t>& ids, const Tokenizer& tokenizer, int64_t max_message_bytes,
                      v1::TokenizeResponse* response) {
  const int64_t num_ids = static_cast<int64_t>(ids.size());
  if (num_ids > kMostTexts) {
    return InvalidField("return_texts", absl::StrCat("true for ", num_ids, " tokens"),
                        absl::StrCat("false where there are more than ", kMostTexts));
  }
  int64_t bytes = 0;
  for (const int32_t id : ids) {
    std::string text = TokenText(tokenizer, id);
    bytes += static_cast<int64_t>(text.size());
    if (absl::Status status = CheckAnswerSize(bytes, max_message_bytes); !status.ok()) return status;
    response->add_texts(std::move(text));
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* TokenizerService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return QueuedCall(environment_, context, "Tokenize", static_cast<int64_t>(request->ByteSizeLong()),
                    [=, this](const CallInfo&) -> absl::Status {
                      absl::StatusOr<const ServedModel*> model = environment_->model->Find(request->model());
                      if (!model.ok()) return model.status();
                      absl::StatusOr<std::vector<int32_t>> ids = ToTokenIds(*request, **model);
                      if (!ids.ok()) return ids.status();
                      response->mutable_token_ids()->Add(ids->begin(), ids->end());
                      if (!request->return_texts()) return absl::OkStatus();
                      return AddTexts(*ids, *(*model)->tokenizer, environment_->max_message_bytes, response);
                    });
}

grpc::ServerUnaryReactor* TokenizerService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return QueuedCall(environment_, context, "Detokenize", static_cast<int64_t>(request->ByteSizeLong()),
                    [=, this](const CallInfo&) -> absl::Status {
                      absl::StatusOr<const ServedModel*> model = environment_->model->Find(request->model());
                      if (!model.ok()) return model.status();
                      if ((*model)->tokenizer == nullptr) {
                        return absl::FailedPreconditionError(absl::StrCat(
                            "this model has no tokenizer (", (*model)->why_no_tokenizer, "), so its ids have no text"));
                      }
                      if (absl::Status status = CheckTokenIds("token_ids", request->token_ids(), (*model)->vocab_size);
                          !status.ok()) {
                        return status;
                      }
                      const Tokenizer& tokenizer = *(*model)->tokenizer;
                      int64_t bytes = 0;
                      for (const int32_t id : request->token_ids())
                        bytes += static_cast<int64_t>(tokenizer.TokenBytes(id).size());
                      if (absl::Status status = CheckAnswerSize(bytes, environment_->max_message_bytes); !status.ok())
                        return status;
                      const std::vector<int32_t> ids(request->token_ids().begin(), request->token_ids().end());
                      response->set_text(tokenizer.Decode(ids, request->show_special_tokens()));
                      return absl::OkStatus();
                    });
}

}  // namespace statehouse
