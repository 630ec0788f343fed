// From loading to draining: health, reflection, status, metrics port, shutdown.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/support/fake_engine.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::grpc::health::v1::Health;
using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;
using testing::Eventually;
using ::testing::HasSubstr;

class Lifecycle : public ::testing::Test {
 protected:
  Lifecycle() : server_(Options()) { EXPECT_TRUE(server_.status().ok()) << server_.status(); }
  ~Lifecycle() override { server_.Stop(); }
  static ServerOptions Options() {
    ServerOptions options;
    options.metrics_port = -1;
    return options;
  }

  grpc::Status Check(const std::string& service, HealthCheckResponse* response) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    return Health::NewStub(server_.Channel())->Check(&context, request, response);
  }
  grpc::Status Once() {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.set_text("x");
    v1::GenerateResponse response;
    return server_.Generation()->GenerateOnce(&context, request, &response);
  }
  int Connect() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_.server().metrics_port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  // A bare HTTP/1.0 request to the metrics port.
  std::string Get(const std::string& path) {
    const int fd = Connect();
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    std::string answer;
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
    close(fd);
    return answer;
  }

  testing::FakeTokenizer tokenizer_;
  testing::FakeEngine engine_;
  ServedModel model_ = testing::FakeServedModel(&engine_, &tokenizer_);
  testing::TestServer server_;
};

TEST_F(Lifecycle, HealthOfAnUnknownService_NamesIt) {
  HealthCheckResponse response;
  const grpc::Status status = Check("foo", &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("service: \"foo\""));
}

// A message of a method whose bytes are the test's.
grpc::Status SendBytes(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                       const std::string& bytes) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

TEST_F(Lifecycle, RequestThatCannotBeRead_IsInvalidCountedAndNotWrittenRawToStandardError) {
  server_.server().Serve(&model_);
  // The field `model` of a byte that is no UTF-8; bytes that are no message at all.
  for (const char* method : {"/statehouse.v1.Generation/GenerateOnce", "/statehouse.v1.Generation/Generate"}) {
    for (const std::string& bytes : {std::string("\x0a\x01\xff"), std::string("\xff\xff\xff")}) {
      ::testing::internal::CaptureStderr();
      const grpc::Status status = SendBytes(server_.Channel(), method, bytes);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
      EXPECT_THAT(status.error_message(), HasSubstr("UTF-8"));
      EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    }
  }
  EXPECT_THAT(Get("/metrics"), HasSubstr("statehouse_calls_total{method=\"Generate\",status=\"INVALID_ARGUMENT\"} 2"));
  EXPECT_THAT(server_.Logged(), HasSubstr("invalid UTF-8"));
  HealthCheckResponse response;
  EXPECT_TRUE(Check("", &response).ok()) << "others are read";
}

TEST_F(Lifecycle, BeforeTheModelIsLoaded_HealthSaysSoAndCallsAreUnavailable) {
  HealthCheckResponse response;
  for (const char* name :
       {"", "statehouse.v1.Generation", "statehouse.v1.Tokenizer", "statehouse.v1.Models", "statehouse.v1.Admin"}) {
    ASSERT_TRUE(Check(name, &response).ok()) << name;
    EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING) << name;
  }
  EXPECT_EQ(Once().error_code(), grpc::StatusCode::UNAVAILABLE);
  grpc::ClientContext context;
  v1::GetStatusResponse status;
  ASSERT_TRUE(v1::Admin::NewStub(server_.Channel())->GetStatus(&context, v1::GetStatusRequest(), &status).ok());
  EXPECT_FALSE(status.serving());
  EXPECT_THAT(Get("/health"), HasSubstr(" 503 "));
}

TEST_F(Lifecycle, OnceServing_EveryNameIsServingAndOthersAreNotFound) {
  server_.server().Serve(&model_);
  HealthCheckResponse response;
  ASSERT_TRUE(Check("statehouse.v1.Generation", &response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("no.such.Service", &response).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Get("/health"), HasSubstr(" 200 "));
  EXPECT_THAT(Get("/metrics"), HasSubstr("vllm:num_requests_running{model_name=\"fake\",engine=\"0\"} 0"));
  EXPECT_THAT(Get("/elsewhere"), HasSubstr(" 404 "));
}

TEST_F(Lifecycle, AWatch_SeesServingAndDraining) {
  auto stub = Health::NewStub(server_.Channel());
  grpc::ClientContext context, unknown_context;
  auto watch = stub->Watch(&context, HealthCheckRequest());
  HealthCheckRequest unknown;
  unknown.set_service("no.such.Service");
  auto unknown_watch = stub->Watch(&unknown_context, unknown);
  HealthCheckResponse response;
  ASSERT_TRUE(unknown_watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  server_.server().Serve(&model_);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  engine_.set_idle(false);
  std::thread drain([this] { server_.server().Drain(absl::Seconds(10)); });
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  engine_.set_idle(true);
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  drain.join();
  while (unknown_watch->Read(&response)) {
  }
  unknown_watch->Finish();
}

TEST_F(Lifecycle, AFailedEngine_TurnsHealth) {
  server_.server().Serve(&model_);
  engine_.set_healthy(false);
  EXPECT_TRUE(Eventually([this] { return !server_.server().serving(); }));
  EXPECT_THAT(server_.Logged(), HasSubstr("NOT_SERVING"));
}

TEST_F(Lifecycle, AWatcherThatGoesAway_IsForgotten) {
  auto stub = Health::NewStub(server_.Channel());
  {
    grpc::ClientContext context;
    auto watch = stub->Watch(&context, HealthCheckRequest());
    HealthCheckResponse response;
    ASSERT_TRUE(watch->Read(&response));
    context.TryCancel();
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  server_.server().Serve(&model_);  // must not touch it
  HealthCheckResponse response;
  EXPECT_TRUE(Check("", &response).ok());
}

TEST_F(Lifecycle, Draining_FinishesWhatRunsAndRefusesWhatComes) {
  server_.server().Serve(&model_);
  auto stub = server_.Generation();
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("x");
  auto reader = stub->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  engine_.set_idle(false);
  std::thread drain([this] { EXPECT_EQ(server_.server().Drain(absl::Seconds(20)), 0); });
  EXPECT_TRUE(Eventually([&] { return !server_.server().serving(); }));
  EXPECT_EQ(Once().error_code(), grpc::StatusCode::UNAVAILABLE);
  Event event;
  event.token = 'z';
  event.text_bytes = 1;
  submitted.stream->Push(event);
  Event finished;
  finished.kind = Event::Kind::kOutputFinished;
  finished.reason = FinishReason::kLength;
  finished.text_bytes = 1;
  submitted.stream->Push(finished);
  submitted.stream->Finish(absl::OkStatus(), Usage(), Timings());
  submitted.stream->NotifyListener();
  engine_.set_idle(true);
  std::string text;
  v1::GenerateEvent read;
  while (reader->Read(&read)) text += read.delta().text();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "z");
  drain.join();
}

TEST_F(Lifecycle, DrainingPastItsTimeout_CancelsTheRestAsUnavailable) {
  server_.server().Serve(&model_);
  auto stub = server_.Generation();
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("x");
  auto reader = stub->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  engine_.set_idle(false);
  std::thread engine([&] {
    EXPECT_TRUE(Eventually([&] { return submitted.stream->cancelled(); }));
    submitted.stream->Finish(absl::CancelledError("cancelled"), Usage(), Timings());
    submitted.stream->NotifyListener();
  });
  server_.server().Drain(absl::Milliseconds(100));
  engine.join();
  v1::GenerateEvent read;
  while (reader->Read(&read)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << "another server may take it: a client should retry";
  EXPECT_THAT(status.error_message(), HasSubstr("the server is stopping"));
}

TEST_F(Lifecycle, Draining_LeavesReadersTheWholeTimeout) {
  server_.server().Serve(&model_);
  auto stub = server_.Generation();
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("x");
  request.set_logprobs(20);
  auto reader = stub->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  // More than the connection takes in before anybody reads.
  int64_t pushed = 0;
  Event event;
  event.num_top = kMaxLogprobs;
  for (absl::Time last_push = absl::Now(); absl::Now() - last_push < absl::Milliseconds(500);) {
    if (submitted.stream->room() == 0) continue;
    submitted.stream->Push(event);
    submitted.stream->NotifyListener();
    ++pushed;
    last_push = absl::Now();
  }
  Event finished;
  finished.kind = Event::Kind::kOutputFinished;
  finished.reason = FinishReason::kLength;
  submitted.stream->Push(finished);
  submitted.stream->Finish(absl::OkStatus(), Usage(), Timings());
  submitted.stream->NotifyListener();
  std::thread drain([this] { server_.server().Drain(absl::Seconds(20)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(2600));
  int64_t read_tokens = 0;
  v1::GenerateEvent read;
  while (reader->Read(&read)) read_tokens += read.delta().logprobs_size();
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(read_tokens, pushed);
  drain.join();
}

TEST_F(Lifecycle, ConnectionsThatAskNothing_DoNotHoldUpAProbe) {
  std::vector<int> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(Connect());
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // until they have been accepted
  const absl::Time start = absl::Now();
  EXPECT_THAT(Get("/health"), HasSubstr(" 503 "));
  EXPECT_LT(absl::Now() - start, absl::Seconds(3)) << "a probe's own time limit";
  for (const int fd : idle) close(fd);
}

TEST_F(Lifecycle, Texts_AreBoundedByTheLargestMessage) {
  server_.server().Serve(&model_);
  auto stub = v1::Tokenizer::NewStub(server_.Channel());
  v1::TokenizeRequest request;
  request.set_text(std::string((1 << 20) + 1, 'x'));
  request.set_return_texts(true);
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub->Tokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("return_texts"));
}

TEST_F(Lifecycle, Tokenizer_GoesBothWays) {
  server_.server().Serve(&model_);
  auto stub = v1::Tokenizer::NewStub(server_.Channel());
  v1::TokenizeRequest request;
  request.set_text("hé");
  request.set_return_texts(true);
  v1::TokenizeResponse response;
  grpc::ClientContext first;
  ASSERT_TRUE(stub->Tokenize(&first, request, &response).ok());
  EXPECT_THAT(response.token_ids(), ::testing::ElementsAre(testing::FakeTokenizer::kBos, 'h', 0xC3, 0xA9));
  EXPECT_THAT(response.texts(), ::testing::ElementsAre("<bos>", "h", "\xEF\xBF\xBD", "\xEF\xBF\xBD"));
  v1::DetokenizeRequest back;
  *back.mutable_token_ids() = response.token_ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(stub->Detokenize(&second, back, &text).ok());
  EXPECT_EQ(text.text(), "hé");
  back.add_token_ids(100000);
  grpc::ClientContext third;
  EXPECT_EQ(stub->Detokenize(&third, back, &text).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(Lifecycle, ModelsAndStatus_TellWhatIsServed) {
  server_.server().Serve(&model_);
  auto models = v1::Models::NewStub(server_.Channel());
  v1::ListModelsResponse list;
  grpc::ClientContext first;
  ASSERT_TRUE(models->ListModels(&first, v1::ListModelsRequest(), &list).ok());
  ASSERT_EQ(list.models_size(), 1);
  EXPECT_EQ(list.models(0).name(), "fake");
  v1::GetModelRequest other;
  other.set_name("other");
  v1::Model model;
  grpc::ClientContext second;
  EXPECT_EQ(models->GetModel(&second, other, &model).error_code(), grpc::StatusCode::NOT_FOUND);
  v1::GetStatusResponse status;
  grpc::ClientContext third;
  ASSERT_TRUE(v1::Admin::NewStub(server_.Channel())->GetStatus(&third, v1::GetStatusRequest(), &status).ok());
  EXPECT_TRUE(status.serving());
  EXPECT_EQ(status.slots().total(), 4);
  EXPECT_EQ(status.memory().slots(), 4096);
  EXPECT_GT(status.memory().resident(), 0);
  EXPECT_FALSE(status.build().version().empty());
}

}  // namespace
}  // namespace statehouse
