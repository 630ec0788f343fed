// Who may see sessions, and who may do what concerns everybody's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/server/session_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

TEST(SessionsOfTwoPrincipals, CannotBeSeenOrGuessed) {
  TempDir dir;
  ServerOptions options;
  options.auth_tokens_file = dir.File("tokens");
  std::ofstream(options.auth_tokens_file) << "ann anns-token-0123456789\nbob bobs-token-0123456789\n";
  SessionServer server(options);
  const auto as = [](const char* token, grpc::ClientContext* context) {
    context->AddMetadata("authorization", std::string("Bearer ") + token);
  };
  v1::CreateSessionRequest create;
  create.set_name("diary");
  v1::Session made;
  {
    grpc::ClientContext context;
    as("anns-token-0123456789", &context);
    ASSERT_TRUE(server.sessions().Create(&context, create, &made).ok());
  }
  const auto get = [&](const std::string& session) {
    grpc::ClientContext context;
    as("bobs-token-0123456789", &context);
    v1::GetSessionRequest request;
    request.set_session(session);
    v1::GetSessionResponse response;
    return server.sessions().Get(&context, request, &response);
  };
  std::string unknown_id = made.id();
  unknown_id[0] = unknown_id[0] == '0' ? '1' : '0';
  EXPECT_EQ(get(made.id()).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(get("diary").error_code(), grpc::StatusCode::NOT_FOUND);
  const auto without_id = [](std::string message, const std::string& id) {
    const size_t at = message.find(id);
    return at == std::string::npos ? message : message.replace(at, id.size(), "ID");
  };
  EXPECT_EQ(without_id(get(made.id()).error_message(), made.id()),
            without_id(get(unknown_id).error_message(), unknown_id))
      << "the words must not tell one that is there from one that is not";
  grpc::ClientContext context;
  as("bobs-token-0123456789", &context);
  v1::GenerateRequest turn = TurnOf(made.id(), "hi");
  turn.mutable_session()->set_create_if_missing(false);
  v1::GenerateResponse answer;
  EXPECT_EQ(server.generation().GenerateOnce(&context, turn, &answer).error_code(), grpc::StatusCode::NOT_FOUND);
}

// Ann is an operator, Bob is not.
TEST(SessionsOfTwoPrincipals, WhatConcernsEverybody_IsForOperators) {
  TempDir dir;
  ServerOptions options;
  options.auth_tokens_file = dir.File("tokens");
  std::ofstream(options.auth_tokens_file) << "ann anns-token-0123456789\nbob bobs-token-0123456789\n";
  options.operators = {"ann"};
  SessionServer server(options);
  const auto as = [](const char* name, grpc::ClientContext* context) {
    context->AddMetadata("authorization", std::string("Bearer ") + name + "s-token-0123456789");
  };
  const auto collect = [&](const char* name) {
    grpc::ClientContext context;
    as(name, &context);
    v1::CollectGarbageResponse response;
    return server.sessions().CollectGarbage(&context, v1::CollectGarbageRequest(), &response);
  };
  EXPECT_TRUE(collect("ann").ok());
  const grpc::Status denied = collect("bob");
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(denied.error_message(), HasSubstr("--operators"));

  const auto create = [&](const char* name) {
    grpc::ClientContext context;
    as(name, &context);
    v1::Session made;
    EXPECT_TRUE(server.sessions().Create(&context, v1::CreateSessionRequest(), &made).ok());
    return made.id();
  };
  const auto break_lease = [&](const char* name, const std::string& session) {
    grpc::ClientContext context;
    as(name, &context);
    v1::BreakLeaseRequest request;
    request.set_session(session);
    v1::BreakLeaseResponse response;
    return server.sessions().BreakLease(&context, request, &response).error_code();
  };
  const std::string anns = create("ann"), bobs = create("bob");
  EXPECT_EQ(break_lease("bob", bobs), grpc::StatusCode::OK);
  EXPECT_EQ(break_lease("ann", bobs), grpc::StatusCode::OK) << "an operator may free anybody's";
  EXPECT_EQ(break_lease("bob", anns), grpc::StatusCode::NOT_FOUND) << "as if it were not there";
}

TEST(SessionsOfTwoPrincipals, WithoutOperators_NobodyWithATokenCollectsGarbage) {
  TempDir dir;
  ServerOptions options;
  options.auth_tokens_file = dir.File("tokens");
  std::ofstream(options.auth_tokens_file) << "ann anns-token-0123456789\n";
  SessionServer server(options);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer anns-token-0123456789");
  v1::CollectGarbageResponse response;
  EXPECT_EQ(server.sessions().CollectGarbage(&context, v1::CollectGarbageRequest(), &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST(Sessions, ServerWithoutSessions_SaysSo) {
  FakeModel model(SessionServer::ModelOptions());
  FakeTokenizer tokenizer;
  auto engine = Engine::Create(&model, &tokenizer, EngineOptions());
  ASSERT_TRUE(engine.ok());
  const ServedModel served = FakeServedModel(engine->get(), &tokenizer);
  TestServer server;
  server.server().Serve(&served);
  grpc::ClientContext context;
  v1::Session made;
  const auto stub = v1::Sessions::NewStub(server.Channel());
  const grpc::Status status = stub->Create(&context, v1::CreateSessionRequest(), &made);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("keeps no sessions"));
  server.Stop();
}

}  // namespace
}  // namespace statehouse::testing
