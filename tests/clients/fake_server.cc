#include "tests/clients/fake_server.h"

#include <thread>

namespace statehouse {

class FakeServer::GenerationService : public v1::Generation::Service {
 public:
  explicit GenerationService(FakeServer* fake) : fake_(fake) {}

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override {
    if (grpc::Status status = fake_->CheckToken(*context); !status.ok()) return status;
    std::string answer, name, outcome;
    grpc::Status status;
    {
      std::lock_guard lock(fake_->mu_);
      fake_->requests_.push_back(*request);
      const auto id = context->client_metadata().find("x-request-id");
      fake_->request_ids_.emplace_back(
          id == context->client_metadata().end() ? "" : std::string(id->second.begin(), id->second.end()));
      answer = fake_->answer_;
      status = fake_->status_;
      outcome = fake_->failed_outcome_;
      name = fake_->request_ids_.back().empty() ? "r1" : fake_->request_ids_.back();
      fake_->running_.insert(name);
    }
    const Running running(fake_, name);
    const auto tell_outcome = [&] {
      if (!outcome.empty()) context->AddTrailingMetadata("statehouse-session-outcome-bin", outcome);
    };
    const int outputs = request->has_n() ? request->n() : 1;
    v1::GenerateEvent event;
    event.mutable_started()->set_request_id(name);
    event.mutable_started()->set_model("fake");
    event.mutable_started()->set_seed(request->sampling().has_seed() ? request->sampling().seed() : 99);
    event.mutable_started()->set_prompt_tokens(5);
    *event.mutable_started()->mutable_prompt_token_ids() = request->token_ids().ids();
    writer->Write(event);
    int64_t tokens = 0;
    for (int output = 0; output < outputs; ++output) {
      if (WriteWords(context, running, *request, answer, output, writer, &tokens)) continue;
      if (running.is_named()) ++fake_->cancelled_by_name_;
      tell_outcome();
      return Cancelled();
    }
    if (!status.ok()) {
      tell_outcome();
      return status;
    }
    event.Clear();
    event.mutable_done()->mutable_usage()->set_prompt_tokens(5);
    event.mutable_done()->mutable_usage()->set_completion_tokens(tokens);
    event.mutable_done()->mutable_usage()->set_total_tokens(5 + tokens);
    event.mutable_done()->mutable_timings()->set_time_to_first_token(0.25);
    event.mutable_done()->mutable_timings()->set_decode(0.5);
    event.mutable_done()->mutable_timings()->set_total(0.75);
    writer->Write(event);
    return grpc::Status::OK;
  }

  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override {
    std::lock_guard lock(fake_->mu_);
    const auto session = context->client_metadata().find("x-statehouse-session");
    fake_->cancelled_session_ =
        session == context->client_metadata().end() ? "" : std::string(session->second.begin(), session->second.end());
    const bool runs = fake_->running_.contains(request->request_id());
    if (runs) fake_->to_cancel_.insert(request->request_id());
    response->set_cancelled(runs || request->request_id() == "r1");
    return grpc::Status::OK;
  }

 private:
  // A call, while it runs.
  class Running {
   public:
    Running(FakeServer* fake, std::string name) : fake_(fake), name_(std::move(name)) {}
    ~Running() {
      std::lock_guard lock(fake_->mu_);
      fake_->running_.erase(name_);
      fake_->to_cancel_.erase(name_);
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    bool is_named() const {
      std::lock_guard lock(fake_->mu_);
      return fake_->to_cancel_.contains(name_);
    }

   private:
    FakeServer* const fake_;
    const std::string name_;
  };

  bool WriteWords(grpc::ServerContext* context, const Running& running, const v1::GenerateRequest& request,
                  const std::string& answer, int output, grpc::ServerWriter<v1::GenerateEvent>* writer,
                  int64_t* tokens) {
    for (size_t begin = 0; begin < answer.size();) {
      const size_t end = std::min(answer.find(' ', begin + 1), answer.size());
      std::this_thread::sleep_for(std::chrono::milliseconds(fake_->pause_ms_));
      if (context->IsCancelled() || running.is_named()) return false;
      v1::GenerateEvent event;
      event.mutable_delta()->set_index(output);
      event.mutable_delta()->set_text(answer.substr(begin, end - begin));
      event.mutable_delta()->add_token_ids(static_cast<int32_t>(100 + *tokens));
      if (request.has_logprobs()) {
        v1::TokenLogprobs* logprobs = event.mutable_delta()->add_logprobs();
        logprobs->set_token_id(static_cast<int32_t>(100 + *tokens));
        logprobs->set_text(event.delta().text());
        logprobs->set_logprob(-0.5);
        logprobs->set_position(5 + *tokens);
        for (int i = 0; i < request.logprobs(); ++i) logprobs->add_top()->set_token_id(i);
      }
      if (!writer->Write(event)) return false;
      ++fake_->words_written_;
      ++*tokens;
      begin = end;
    }
    v1::GenerateEvent event;
    event.mutable_finished()->set_index(output);
    event.mutable_finished()->set_reason(v1::FINISH_REASON_STOP);
    event.mutable_finished()->set_stop_token_id(2);
    return writer->Write(event);
  }

  grpc::Status Cancelled() {
    ++fake_->cancelled_;
    fake_->changed_.notify_all();
    return grpc::Status::CANCELLED;
  }

  FakeServer* fake_;
};

class FakeServer::ModelsService : public v1::Models::Service {
 public:
  explicit ModelsService(FakeServer* fake) : fake_(fake) {}

  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request, v1::Model* model) override {
    if (grpc::Status status = fake_->CheckToken(*context); !status.ok()) return status;
    if (!request->name().empty() && request->name() != "fake") {
      return {grpc::StatusCode::NOT_FOUND,
              "model: \"" + request->name() + "\" is not served; this server has \"fake\""};
    }
    Fill(model);
    return grpc::Status::OK;
  }
  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    Fill(response->add_models());
    return grpc::Status::OK;
  }

 private:
  void Fill(v1::Model* model) {
    std::lock_guard lock(fake_->mu_);
    model->set_name("fake");
    model->set_family("powercoder");
    model->set_parameters(1'800'000);
    model->set_num_layers(4);
    model->set_vocab_size(1000);
    model->set_heads_kv(2);
    model->set_head_dim(32);
    model->set_dtype("f32");
    model->set_state_bytes_per_sequence(2'097'152);
    model->set_chat_template(fake_->chat_template_);
    model->mutable_step_cost()->set_weight_bytes(7'000'000);
    model->mutable_step_cost()->set_linear_flops(3'000'000);
  }
  FakeServer* fake_;
};

class FakeServer::TokenizerService : public v1::Tokenizer::Service {
 public:
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    if (request->add_special_tokens()) response->add_token_ids(1);
    for (char c : request->text()) {
      response->add_token_ids(static_cast<unsigned char>(c));
      if (request->return_texts()) response->add_texts(std::string(1, c));
    }
    return grpc::Status::OK;
  }
  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override {
    for (int32_t id : request->token_ids()) response->mutable_text()->push_back(static_cast<char>(id));
    return grpc::Status::OK;
  }
};

class FakeServer::AdminService : public v1::Admin::Service {
 public:
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) override {
    response->set_serving(true);
    response->mutable_build()->set_version("9.9.9");
    response->mutable_slots()->set_total(16);
    response->mutable_slots()->set_used(3);
    response->mutable_machine()->set_flops_per_second(1e11);
    response->mutable_machine()->add_read()->set_bytes(1 << 20);
    response->mutable_machine()->mutable_read(0)->set_bytes_per_second(7e9);
    return grpc::Status::OK;
  }
};

class FakeServer::HealthService : public grpc::health::v1::Health::Service {
 public:
  explicit HealthService(FakeServer* fake) : fake_(fake) {}
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                     grpc::health::v1::HealthCheckResponse* response) override {
    response->set_status(fake_->health_);
    return grpc::Status::OK;
  }

 private:
  FakeServer* fake_;
};

FakeServer::FakeServer(const std::string& address) {
  services_.push_back(std::make_unique<GenerationService>(this));
  services_.push_back(std::make_unique<ModelsService>(this));
  services_.push_back(std::make_unique<TokenizerService>());
  services_.push_back(std::make_unique<AdminService>());
  services_.push_back(std::make_unique<HealthService>(this));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  for (const auto& service : services_) builder.RegisterService(service.get());
  server_ = builder.BuildAndStart();
  address_ = address.rfind("unix:", 0) == 0 ? address : "127.0.0.1:" + std::to_string(port);
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

grpc::Status FakeServer::CheckToken(const grpc::ServerContext& context) {
  std::lock_guard lock(mu_);
  const auto found = context.client_metadata().find("authorization");
  const std::string sent =
      found == context.client_metadata().end() ? "" : std::string(found->second.begin(), found->second.end());
  if (token_.empty() || sent == "Bearer " + token_) return grpc::Status::OK;
  return {grpc::StatusCode::UNAUTHENTICATED, "no valid token"};
}

void FakeServer::set_answer(std::string answer) {
  std::lock_guard lock(mu_);
  answer_ = std::move(answer);
}

void FakeServer::set_status(grpc::Status status) {
  std::lock_guard lock(mu_);
  status_ = std::move(status);
}

void FakeServer::set_failed_outcome(const v1::SessionOutcome& outcome) {
  std::lock_guard lock(mu_);
  failed_outcome_ = outcome.SerializeAsString();
}

void FakeServer::set_chat_template(std::string name) {
  std::lock_guard lock(mu_);
  chat_template_ = std::move(name);
}

void FakeServer::set_token(std::string token) {
  std::lock_guard lock(mu_);
  token_ = std::move(token);
}

std::vector<v1::GenerateRequest> FakeServer::requests() {
  std::lock_guard lock(mu_);
  return requests_;
}

std::vector<std::string> FakeServer::request_ids() {
  std::lock_guard lock(mu_);
  return request_ids_;
}

std::string FakeServer::cancelled_session() {
  std::lock_guard lock(mu_);
  return cancelled_session_;
}

bool FakeServer::WaitForCancelled(int64_t count) {
  std::unique_lock lock(mu_);
  return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return cancelled_ >= count; });
}

}  // namespace statehouse
