// Generation over a real connection, on an engine that does what the test says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/server/hooked_tokenizer.h"
#include "tests/support/fake_engine.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;

class Generation : public ::testing::Test {
 protected:
  Generation() : server_(Options()) {
    EXPECT_TRUE(server_.status().ok()) << server_.status();
    server_.server().Serve(&model_);
    stub_ = server_.Generation();
  }
  // The server, its calls included, must be gone before the engine is.
  ~Generation() override { server_.Stop(); }
  static ServerOptions Options() {
    ServerOptions options;
    options.slow_reader_timeout = absl::Seconds(1);
    return options;
  }

  static v1::GenerateRequest Text(const std::string& text = "secret words") {
    v1::GenerateRequest request;
    request.set_text(text);
    return request;
  }
  static void PushToken(EventStream* stream, int32_t token, int64_t text_bytes) {
    Event event;
    event.token = token;
    event.text_bytes = text_bytes;
    stream->Push(event);
    stream->NotifyListener();
  }
  static void PushStart(EventStream* stream) {
    Event event;
    event.kind = Event::Kind::kStarted;
    event.seed = 5;
    stream->Push(event);
    stream->NotifyListener();
  }
  static void PushEnd(EventStream* stream, int64_t text_bytes, absl::Status status = absl::OkStatus()) {
    Event event;
    event.kind = Event::Kind::kOutputFinished;
    event.reason = status.ok() ? FinishReason::kStop : FinishReason::kCancelled;
    event.text_bytes = text_bytes;
    stream->Push(event);
    Usage usage;
    usage.prompt_tokens = 3;
    usage.completion_tokens = text_bytes;
    stream->Finish(std::move(status), usage, Timings());
    stream->NotifyListener();
  }
  // Answers the `index`-th request with "hi".
  void AnswerHi(size_t index) {
    auto submitted = engine_.WaitFor(index);
    ASSERT_NE(submitted.stream, nullptr);
    PushStart(submitted.stream.get());
    PushToken(submitted.stream.get(), 'h', 1);
    PushToken(submitted.stream.get(), 'i', 2);
    PushEnd(submitted.stream.get(), 2);
  }
  bool NoCallsLeft() {
    return Eventually([this] { return server_.server().metrics().live_calls == 0; });
  }

  testing::FakeTokenizer tokenizer_;
  testing::FakeEngine engine_;
  ServedModel model_ = testing::FakeServedModel(&engine_, &tokenizer_);
  testing::TestServer server_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

TEST_F(Generation, AStream_IsStartedDeltasFinishedDone) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "my-id");
  auto reader = stub_->Generate(&context, Text());
  AnswerHi(0);
  std::string text, order;
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (event.has_started()) {
      order += "s";
      EXPECT_EQ(event.started().request_id(), "my-id");
      EXPECT_EQ(event.started().seed(), 5u);
      EXPECT_EQ(event.started().prompt_tokens(), 13) << "BOS and twelve bytes";
    } else if (event.has_delta()) {
      order += order.ends_with("d") ? "" : "d";
      text += event.delta().text();
    } else if (event.has_finished()) {
      order += "f";
      EXPECT_EQ(event.finished().reason(), v1::FINISH_REASON_STOP);
    } else if (event.has_done()) {
      order += "D";
      EXPECT_EQ(event.done().usage().total_tokens(), 5);
    }
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(text, "hi");
  EXPECT_EQ(order, "sdfD");
  const auto echoed = context.GetServerInitialMetadata().find("x-request-id");
  ASSERT_NE(echoed, context.GetServerInitialMetadata().end());
  EXPECT_EQ(std::string(echoed->second.data(), echoed->second.size()), "my-id");
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, GenerateOnce_AnswersWithTheSame) {
  std::thread engine([this] { AnswerHi(0); });
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status = stub_->GenerateOnce(&context, Text(), &response);
  engine.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.outputs(0).text(), "hi");
  EXPECT_FALSE(response.request_id().empty()) << "the server makes an id";
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, ABadField_ComesBackWithItsPath) {
  auto request = Text();
  request.mutable_sampling()->set_top_p(3);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateEvent event;
  EXPECT_FALSE(reader->Read(&event));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(rich.details(0).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

TEST_F(Generation, Overload_ComesBackWithARetryHint) {
  engine_.set_submit_error(Overloaded("the queue is full", absl::Seconds(2)));
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status = stub_->GenerateOnce(&context, Text(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry_info;
  ASSERT_TRUE(rich.details(0).UnpackTo(&retry_info));
  EXPECT_EQ(retry_info.retry_delay().seconds(), 2);
}

TEST_F(Generation, ARequestIdThatCannotBeLogged_IsRefused) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", std::string(129, 'x'));
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->GenerateOnce(&context, Text(), &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, AnotherModelsName_IsNotFoundAndListsTheNames) {
  auto request = Text();
  request.set_model("other");
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status = stub_->GenerateOnce(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("\"fake\""));
}

TEST_F(Generation, AClientThatGoesAway_CancelsItsRequest) {
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Text());
  auto submitted = engine_.WaitFor(0);
  PushStart(submitted.stream.get());
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return submitted.stream->cancelled(); }));
  EXPECT_EQ(server_.server().metrics().live_calls, 1) << "until the engine has let go";
  PushEnd(submitted.stream.get(), 0, absl::CancelledError("cancelled"));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, AClientOfGenerateOnceThatGoesAway_CancelsItsRequest) {
  grpc::ClientContext context;
  std::thread client([&] {
    v1::GenerateResponse response;
    EXPECT_EQ(stub_->GenerateOnce(&context, Text(), &response).error_code(), grpc::StatusCode::CANCELLED);
  });
  auto submitted = engine_.WaitFor(0);
  context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return submitted.stream->cancelled(); }));
  PushEnd(submitted.stream.get(), 0, absl::CancelledError("cancelled"));
  client.join();
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, TheCallsDeadline_BecomesTheRequests) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto reader = stub_->Generate(&context, Text());
  auto submitted = engine_.WaitFor(0);
  const absl::Duration left = submitted.request.deadline - absl::Now();
  EXPECT_GT(left, absl::Seconds(30));
  EXPECT_LT(left, absl::Seconds(70));
  PushEnd(submitted.stream.get(), 0);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(Generation, ADeadlineThatPasses_IsLoggedAsOneThoughGrpcCancelsTheCall) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  auto reader = stub_->Generate(&context, Text());
  auto submitted = engine_.WaitFor(0);
  EXPECT_TRUE(Eventually([&] { return submitted.stream->cancelled(); }));
  PushEnd(submitted.stream.get(), 0, absl::CancelledError("cancelled"));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(NoCallsLeft());
  EXPECT_THAT(server_.Logged(), HasSubstr("\"status\":\"DEADLINE_EXCEEDED\""));
}

TEST_F(Generation, Cancel_ReachesARequestByItsId) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "to-cancel");
  auto reader = stub_->Generate(&context, Text());
  auto submitted = engine_.WaitFor(0);
  v1::CancelRequest cancel;
  v1::CancelResponse answer;
  cancel.set_request_id("another");
  grpc::ClientContext first;
  EXPECT_TRUE(stub_->Cancel(&first, cancel, &answer).ok());
  EXPECT_FALSE(answer.cancelled());
  cancel.set_request_id("to-cancel");
  grpc::ClientContext second;
  EXPECT_TRUE(stub_->Cancel(&second, cancel, &answer).ok());
  EXPECT_TRUE(answer.cancelled());
  EXPECT_TRUE(submitted.stream->cancelled());
  PushEnd(submitted.stream.get(), 0, absl::CancelledError("cancelled by Cancel"));
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(Generation, Cancel_ReachesARequestThatIsStillTokenised) {
  std::promise<void> begun, gate;
  std::shared_future<void> open = gate.get_future().share();
  const testing::HookedTokenizer tokenizer([&](std::string_view) {
    begun.set_value();
    open.wait();
    return absl::OkStatus();
  });
  model_.tokenizer = &tokenizer;
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "early");
  auto reader = stub_->Generate(&context, Text());
  begun.get_future().wait();
  v1::CancelRequest cancel;
  v1::CancelResponse answer;
  cancel.set_request_id("early");
  grpc::ClientContext cancel_context;
  EXPECT_TRUE(stub_->Cancel(&cancel_context, cancel, &answer).ok());
  EXPECT_TRUE(answer.cancelled());
  gate.set_value();
  v1::GenerateEvent event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(engine_.num_submitted(), 0u);
  grpc::ClientContext later;
  EXPECT_TRUE(stub_->Cancel(&later, cancel, &answer).ok());
  EXPECT_FALSE(answer.cancelled()) << "it is gone";
  EXPECT_TRUE(NoCallsLeft());
}

TEST_F(Generation, WhileLongPromptsAreTokenised_ShortCallsAreAnswered) {
  std::promise<void> gate;
  std::shared_future<void> open = gate.get_future().share();
  std::atomic<int> held{0};
  const testing::HookedTokenizer tokenizer([&](std::string_view) {
    ++held;
    open.wait();
    return absl::CancelledError("the test is over");
  });
  model_.tokenizer = &tokenizer;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>>> readers;
  for (int i = 0; i < 4; ++i) {  // more than there are threads for it
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Text()));
  }
  ASSERT_TRUE(Eventually([&] { return held >= 2; }));
  const auto in_time = [](grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return context;
  };
  grpc::ClientContext first, second, third;
  v1::GetStatusResponse status;
  EXPECT_TRUE(v1::Admin::NewStub(server_.Channel())->GetStatus(in_time(&first), {}, &status).ok());
  v1::ListModelsResponse models;
  EXPECT_TRUE(v1::Models::NewStub(server_.Channel())->ListModels(in_time(&second), {}, &models).ok());
  v1::CancelRequest cancel;
  v1::CancelResponse answer;
  cancel.set_request_id("nobody");
  EXPECT_TRUE(stub_->Cancel(in_time(&third), cancel, &answer).ok());
  gate.set_value();
  for (auto& reader : readers) {
    v1::GenerateEvent event;
    EXPECT_FALSE(reader->Read(&event));
    reader->Finish();
  }
}

TEST_F(Generation, AnAnswerThatFitsInNoMessage_IsEndedAndSaysWhatToUse) {
  testing::TestServer server([] {
    ServerOptions options;
    options.listen.max_message_bytes = 4096;
    return options;
  }());
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  grpc::ClientContext context;
  v1::GenerateResponse response;
  grpc::Status status;
  std::thread client([&] { status = server.Generation()->GenerateOnce(&context, Text("x"), &response); });
  auto submitted = engine_.WaitFor(0);
  ASSERT_NE(submitted.stream, nullptr);
  int64_t text_bytes = 0;
  EXPECT_TRUE(Eventually([&] {
    while (submitted.stream->room() > 0) PushToken(submitted.stream.get(), 'a', ++text_bytes);
    return submitted.stream->cancelled();
  })) << "it must not grow on";
  PushEnd(submitted.stream.get(), text_bytes, absl::CancelledError("cancelled"));
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("use Generate"));
  EXPECT_TRUE(Eventually([&] { return server.server().metrics().live_calls == 0; }));
  EXPECT_THAT(server.Logged(), HasSubstr("\"status\":\"RESOURCE_EXHAUSTED\""));
  server.Stop();
}

TEST_F(Generation, AnAnswerThatNobodyTakes_DoesNotKeepItsCall) {
  testing::TestServer server([] {
    ServerOptions options;
    options.slow_reader_timeout = absl::Milliseconds(100);
    return options;
  }());
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::GenericStub generic(server.Channel());
  auto call = generic.PrepareCall(&context, "/statehouse.v1.Generation/GenerateOnce", &queue);
  void* tag;
  bool ok;
  call->StartCall(&context);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  const std::string bytes = Text(std::string(6'000'000, 'x')).SerializeAsString();  // comes back as token ids
  const grpc::Slice slice(bytes);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), &context);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  AnswerHi(0);
  // Nothing is read: the answer stands in the connection's window.
  EXPECT_TRUE(Eventually([&] { return server.Logged().find("\"status\":\"OK\"") != std::string::npos; }));
  EXPECT_EQ(server.server().metrics().live_calls, 1) << "it waits for the reader";
  EXPECT_TRUE(Eventually([&] { return server.server().metrics().live_calls == 0; }, 15))
      << "a last message stuck for twice the slow-reader timeout ends the call";
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, &context);
  queue.Next(&tag, &ok);
  server.Stop();
}

TEST_F(Generation, EachOutput_IsOneTimePerOutputToken) {
  auto request = Text();
  request.set_n(2);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  PushStart(submitted.stream.get());
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  for (int step = 0; step < 3; ++step) {
    for (int output = 0; output < 2; ++output) {
      Event token;
      token.output = output;
      token.token = 'a';
      token.text_bytes = step + 1;
      submitted.stream->Push(token);
      submitted.stream->NotifyListener();
      ASSERT_TRUE(reader->Read(&event));
    }
  }
  for (int output = 0; output < 2; ++output) {
    Event finished;
    finished.kind = Event::Kind::kOutputFinished;
    finished.reason = FinishReason::kLength;
    finished.output = output;
    finished.text_bytes = 3;
    submitted.stream->Push(finished);
  }
  submitted.stream->Finish(absl::OkStatus(), Usage(), Timings());
  submitted.stream->NotifyListener();
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  const ServerMetrics& metrics = server_.server().metrics();
  const auto count = [](const BucketHistogram& histogram) {
    int64_t sum = 0;
    for (size_t i = 0; i <= histogram.bounds().size(); ++i) sum += histogram.count(i);
    return sum;
  };
  EXPECT_EQ(count(metrics.time_per_output_token), 2);
  EXPECT_EQ(count(metrics.inter_token_latency), 4) << "two gaps of each output";
}

TEST_F(Generation, OneLogLineEach_WithFiguresAndWithoutThePrompt) {
  std::thread engine([this] { AnswerHi(0); });
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "log-me");
  v1::GenerateResponse response;
  ASSERT_TRUE(stub_->GenerateOnce(&context, Text("secret words"), &response).ok());
  engine.join();
  const std::string log = server_.Logged();
  EXPECT_THAT(log, HasSubstr("\"id\":\"log-me\""));
  EXPECT_THAT(log, HasSubstr("\"completion_tokens\":2"));
  EXPECT_THAT(log, HasSubstr("\"finish\":\"stop\""));
  EXPECT_THAT(log, HasSubstr("\"status\":\"OK\""));
  EXPECT_THAT(log, Not(HasSubstr("secret")));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1);
}

TEST_F(Generation, ShortCalls_AreLoggedToo) {
  v1::CancelRequest cancel;
  v1::CancelResponse answer;
  cancel.set_request_id("nobody");
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "the-cancel");
  EXPECT_TRUE(stub_->Cancel(&context, cancel, &answer).ok());
  cancel.clear_request_id();
  grpc::ClientContext second;
  EXPECT_FALSE(stub_->Cancel(&second, cancel, &answer).ok());
  const std::string log = server_.Logged();
  EXPECT_THAT(log, HasSubstr("\"id\":\"the-cancel\",\"principal\":\"\",\"method\":\"Cancel\",\"status\":\"OK\""));
  EXPECT_THAT(log, HasSubstr("\"status\":\"INVALID_ARGUMENT\""));
}

TEST_F(Generation, ASlowReader_LeavesEventsInTheEnginesQueue) {
  grpc::ClientContext context;
  auto request = Text();
  request.set_logprobs(20);
  auto reader = stub_->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  PushStart(submitted.stream.get());
  // Nobody reads: the connection's window fills, then the queue, and there it stops.
  Event event;
  event.num_top = kMaxLogprobs;
  int64_t pushed = 0;
  const auto end = absl::Now() + absl::Seconds(20);
  const absl::Time begin = absl::Now();
  absl::Time last_push = begin;
  while (absl::Now() < end && absl::Now() - last_push < absl::Milliseconds(700)) {
    if (submitted.stream->room() > 0) {
      event.text_bytes = 0;
      submitted.stream->Push(event);
      submitted.stream->NotifyListener();
      ++pushed;
      last_push = absl::Now();
    } else {
      std::this_thread::yield();
    }
  }
  EXPECT_EQ(submitted.stream->room(), 0) << "the queue stays full while nobody reads; pushed " << pushed;
  submitted.stream->Cancel();
  Ending ending;
  ending.why = Ending::Why::kSlowReader;
  ending.completion_tokens = pushed;
  ending.position = pushed;
  ending.timeout = absl::Seconds(1);
  Event finished;
  finished.kind = Event::Kind::kOutputFinished;
  finished.reason = FinishReason::kDeadline;
  submitted.stream->Push(finished);
  submitted.stream->Finish(ending, Usage(), Timings());
  submitted.stream->NotifyListener();
  // A reader that comes back in time gets all that was queued, and then the reason.
  v1::GenerateEvent read;
  int64_t tokens = 0;
  while (reader->Read(&read)) tokens += read.delta().logprobs_size();
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(tokens, pushed);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr(absl::StrCat("at position ", pushed)));
  EXPECT_TRUE(NoCallsLeft());
  // The time that nobody read is no latency of the server.
  const double while_reading = absl::ToDoubleSeconds(last_push - begin);
  EXPECT_LT(server_.server().metrics().inter_token_latency.sum(), while_reading + 0.3) << "of " << pushed << " tokens";
}

TEST_F(Generation, AReaderThatNeverComesBack_DoesNotKeepItsCall) {
  grpc::ClientContext context;
  auto request = Text();
  request.set_logprobs(20);
  auto reader = stub_->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  Event event;
  event.num_top = kMaxLogprobs;
  const auto full = [&] {
    while (submitted.stream->room() > 0) {
      submitted.stream->Push(event);
      submitted.stream->NotifyListener();
    }
    return submitted.stream->cancelled();
  };
  EXPECT_TRUE(Eventually(full, 20)) << "a write stuck for twice the slow-reader timeout ends the call";
  PushEnd(submitted.stream.get(), 0, absl::DeadlineExceededError("slow reader"));
  EXPECT_TRUE(NoCallsLeft());
  reader.reset();
}

TEST_F(Generation, ManyStreamsAtOnce_EachGetTheirOwn) {
  constexpr int kStreams = 32;
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back([&, i] {
      grpc::ClientContext context;
      context.AddMetadata("x-request-id", absl::StrCat("r", i));
      auto reader = stub_->Generate(&context, Text());
      std::string text;
      v1::GenerateEvent event;
      while (reader->Read(&event)) text += event.delta().text();
      if (reader->Finish().ok() && text == std::string(100, static_cast<char>('A' + i))) ++right;
    });
  }
  std::vector<testing::FakeEngine::Submitted> submitted;
  for (int i = 0; i < kStreams; ++i) submitted.push_back(engine_.WaitFor(i));
  for (auto& each : submitted) PushStart(each.stream.get());
  for (int step = 0; step < 100; ++step) {
    for (auto& each : submitted) {
      while (each.stream->room() == 0) std::this_thread::yield();
      PushToken(each.stream.get(), 'A' + std::stoi(each.request.id.substr(1)), step + 1);
    }
  }
  for (auto& each : submitted) PushEnd(each.stream.get(), 100);
  for (auto& client : clients) client.join();
  EXPECT_EQ(right, kStreams);
  EXPECT_TRUE(NoCallsLeft());
}

}  // namespace
}  // namespace statehouse
