// The wire's Tokenizer service. Thread-safety: any thread, as gRPC calls it.
#pragma once

#include "server/call_environment.h"
#include "statehouse/v1/tokenizer.grpc.pb.h"

namespace statehouse {

class TokenizerService final : public v1::Tokenizer::CallbackService {
 public:
  // `environment` must outlive all calls.
  explicit TokenizerService(const CallEnvironment* environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  const CallEnvironment* const environment_;
};

}  // namespace statehouse
