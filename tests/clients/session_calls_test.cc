// What the session commands send, and what they make of lost answers: over gRPC, to a service that notes its calls.
#include "clients/cli/session_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>

#include "clients/cli/chat_session.h"
#include "clients/cli/session_transfer.h"
#include "statehouse/v1/sessions.grpc.pb.h"

namespace statehouse::cli {
namespace {

using ::testing::HasSubstr;

// Answers everything with nothing, and notes which session each call's metadata named.
class NotingSessions : public v1::Sessions::Service {
 public:
  std::map<std::string, std::string> named() {
    std::lock_guard<std::mutex> lock(mu_);
    return named_;
  }
  std::vector<grpc::Status> imports;  // how the next ones end; after those OK

 private:
  grpc::Status Note(const char* method, const grpc::ServerContext& context) {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = context.client_metadata().find("x-statehouse-session");
    named_[method] =
        found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
    return grpc::Status::OK;
  }
  grpc::Status Create(grpc::ServerContext* context, const v1::CreateSessionRequest*, v1::Session*) override {
    return Note("Create", *context);
  }
  grpc::Status Get(grpc::ServerContext* context, const v1::GetSessionRequest*, v1::GetSessionResponse*) override {
    return Note("Get", *context);
  }
  grpc::Status Delete(grpc::ServerContext* context, const v1::DeleteSessionRequest*,
                      v1::DeleteSessionResponse*) override {
    return Note("Delete", *context);
  }
  grpc::Status Fork(grpc::ServerContext* context, const v1::ForkSessionRequest*, v1::ForkSessionResponse*) override {
    return Note("Fork", *context);
  }
  grpc::Status Rewind(grpc::ServerContext* context, const v1::RewindSessionRequest*,
                      v1::RewindSessionResponse*) override {
    return Note("Rewind", *context);
  }
  grpc::Status Rebuild(grpc::ServerContext* context, const v1::RebuildSessionRequest*,
                       grpc::ServerWriter<v1::RebuildSessionProgress>*) override {
    return Note("Rebuild", *context);
  }
  grpc::Status Update(grpc::ServerContext* context, const v1::UpdateSessionRequest*, v1::Session*) override {
    return Note("Update", *context);
  }
  grpc::Status BreakLease(grpc::ServerContext* context, const v1::BreakLeaseRequest*,
                          v1::BreakLeaseResponse*) override {
    return Note("BreakLease", *context);
  }
  grpc::Status Check(grpc::ServerContext* context, const v1::CheckSessionsRequest*,
                     v1::CheckSessionsResponse*) override {
    return Note("Check", *context);
  }
  grpc::Status Export(grpc::ServerContext* context, const v1::ExportSessionRequest*,
                      grpc::ServerWriter<v1::ExportSessionPart>* writer) override {
    v1::ExportSessionPart part;
    part.set_export_id("e");
    part.set_last(true);
    part.set_checksum(0x2d06800538d394c2);  // XXH3-64 of nothing
    writer->Write(part);
    return Note("Export", *context);
  }
  grpc::Status ImportStatus(grpc::ServerContext* context, const v1::ImportStatusRequest* request,
                            v1::ImportStatusResponse*) override {
    import_id_ = request->import_id();
    return Note("ImportStatus", *context);
  }
  grpc::Status Import(grpc::ServerContext* context, grpc::ServerReader<v1::ImportSessionPart>* reader,
                      v1::ImportSessionResponse*) override {
    v1::ImportSessionPart part;
    while (reader->Read(&part)) {
    }
    Note("Import", *context);
    std::lock_guard<std::mutex> lock(mu_);
    if (imports.empty()) return grpc::Status::OK;
    const grpc::Status status = imports.front();
    imports.erase(imports.begin());
    return status;
  }

 public:
  std::string import_id_;

 private:
  std::mutex mu_;
  std::map<std::string, std::string> named_;  // guarded by mu_
};

class SessionCalls : public ::testing::Test {
 protected:
  SessionCalls() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    connection_ = *Connection::Open({.address = "127.0.0.1:" + std::to_string(port)});
    printing_.out = std::tmpfile();
    file_ = ::testing::TempDir() + "/session_calls_test_" + std::to_string(getpid());
  }
  ~SessionCalls() override {
    server_->Shutdown();
    std::fclose(printing_.out);
    std::remove(file_.c_str());
  }

  NotingSessions service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Connection> connection_;
  Printing printing_;
  std::string file_;
};

TEST_F(SessionCalls, EachCallOnASession_NamesItForProxies) {
  v1::CreateSessionRequest create;
  create.set_name("ada");
  v1::ForkSessionRequest fork;
  fork.set_session("ada");
  v1::UpdateSessionRequest update;
  update.set_session("ada");
  EXPECT_TRUE(CreateSession(*connection_, create, printing_).ok());
  EXPECT_TRUE(ShowSession(*connection_, "ada", {}, printing_).ok());
  EXPECT_TRUE(DeleteSessions(*connection_, {"ada"}, printing_).ok());
  EXPECT_TRUE(ForkSession(*connection_, fork, printing_).ok());
  EXPECT_TRUE(RewindSession(*connection_, "ada", {.position = 3}, printing_).ok());
  EXPECT_TRUE(RebuildSession(*connection_, "ada", printing_).ok());
  EXPECT_TRUE(UpdateSession(*connection_, update, printing_).ok());
  EXPECT_TRUE(BreakLease(*connection_, "ada", printing_).ok());
  EXPECT_TRUE(CheckSessions(*connection_, "ada", printing_).ok());
  ExportOptions exported;
  exported.request.set_session("ada");
  exported.file = file_;
  EXPECT_TRUE(ExportSession(*connection_, exported, printing_).ok());
  const auto named = service_.named();
  EXPECT_EQ(named.size(), 10u);
  for (const auto& [method, session] : named) EXPECT_EQ(session, "ada") << method;
}

TEST_F(SessionCalls, NameThatIsNoAscii_IsSentAsDigits) {
  EXPECT_TRUE(ShowSession(*connection_, "z\u00f6", {}, printing_).ok());
  EXPECT_EQ(service_.named()["Get"], "7ac3b6");
}

TEST_F(SessionCalls, RewindOfTurnsInAnEmptySession_SaysThatThereAreNone) {
  const absl::Status status = RewindSession(*connection_, "ada", {.position = std::nullopt, .turns = 1}, printing_);
  EXPECT_EQ(status.message(), "--turns: 1 is not allowed; ada has no turns yet");
}

TEST_F(SessionCalls, ImportAndItsStatus_GoToOneServer) {
  std::ofstream(file_) << "a file";
  ImportOptions options;
  options.file = file_;
  EXPECT_TRUE(ImportSession(*connection_, options, printing_).ok());
  EXPECT_NE(service_.import_id_, "");
  EXPECT_EQ(service_.named()["ImportStatus"], service_.import_id_);
  EXPECT_EQ(service_.named()["Import"], service_.import_id_);
}

TEST_F(SessionCalls, ImportWhoseAnswerWasLost_SaysThatItMayHaveArrived) {
  std::ofstream(file_) << "a file";
  ImportOptions options;
  options.file = file_;
  const grpc::Status exists(grpc::StatusCode::ALREADY_EXISTS, "name: ada is taken");
  service_.imports = {exists, grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone"), exists};
  const absl::Status first = ImportSession(*connection_, options, printing_);
  EXPECT_EQ(first.message(), "name: ada is taken") << "nothing was lost";
  const absl::Status second = ImportSession(*connection_, options, printing_);
  EXPECT_TRUE(absl::IsAlreadyExists(second));
  EXPECT_THAT(std::string(second.message()), HasSubstr("whose answer was lost, may have made it"));
}

}  // namespace
}  // namespace statehouse::cli
