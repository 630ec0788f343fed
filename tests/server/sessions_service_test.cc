// The Sessions service over a real connection.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tests/server/session_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SessionsService : public ::testing::Test {
 protected:
  explicit SessionsService(const char* golden = nullptr) : server_(ServerOptions(), golden) {}

  // A call of the service without a token.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Sessions::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (server_.sessions().*method)(&context, request, response);
  }
  v1::GenerateResponse Say(const std::string& session, const std::string& text) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = server_.generation().GenerateOnce(&context, TurnOf(session, text), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::Session Get(const std::string& session) {
    v1::GetSessionRequest request;
    request.set_session(session);
    v1::GetSessionResponse response;
    const grpc::Status status = Call(&v1::Sessions::Stub::Get, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.session();
  }
  // The parts of an export from `offset` on.
  grpc::Status Export(const v1::ExportSessionRequest& request, std::vector<v1::ExportSessionPart>* parts) {
    grpc::ClientContext context;
    const auto reader = server_.sessions().Export(&context, request);
    v1::ExportSessionPart part;
    while (reader->Read(&part)) parts->push_back(part);
    const grpc::Status status = reader->Finish();
    if (!status.ok()) last_error_ = status.error_message();
    return status;
  }
  std::string ExportAll(const std::string& session) {
    v1::ExportSessionRequest request;
    request.set_session(session);
    std::vector<v1::ExportSessionPart> parts;
    EXPECT_TRUE(Export(request, &parts).ok()) << last_error_;
    std::string file;
    for (const auto& part : parts) file += part.data();
    EXPECT_TRUE(!parts.empty() && parts.back().last());
    return file;
  }
  static v1::ImportSessionPart PartOf(const std::string& data, int64_t offset, bool last) {
    v1::ImportSessionPart part;
    part.set_offset(offset);
    part.set_data(data);
    part.set_checksum(XXH3_64bits(data.data(), data.size()));
    part.set_last(last);
    return part;
  }
  grpc::Status Import(const std::string& name, std::vector<v1::ImportSessionPart> parts,
                      v1::ImportSessionResponse* response) {
    parts.front().mutable_header()->set_import_id("transfer");
    parts.front().mutable_header()->mutable_as()->set_name(name);
    grpc::ClientContext context;
    const auto writer = server_.sessions().Import(&context, response);
    for (const auto& part : parts) {
      if (!writer->Write(part)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  SessionServer server_;
  std::string last_error_;
};

// With a real model: a file holds its states.
class SessionFiles : public SessionsService {
 protected:
  SessionFiles() : SessionsService("powercoder-tiny") {}
};

TEST_F(SessionsService, Create_ThenGetListUpdateDelete) {
  v1::CreateSessionRequest create;
  create.set_name("ada");
  (*create.mutable_labels())["project"] = "atlas";
  create.set_ttl_seconds(60);
  v1::Session made;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Create, create, &made).ok());
  EXPECT_EQ(made.id().size(), 32u);
  EXPECT_EQ(made.durability(), v1::DURABILITY_MEMORY);
  EXPECT_EQ(Call(&v1::Sessions::Stub::Create, create, &made).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  v1::UpdateSessionRequest update;
  update.set_session("ada");
  update.set_pinned(true);
  update.set_ttl_seconds(0);
  v1::Session updated;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Update, update, &updated).ok());
  EXPECT_TRUE(updated.pinned());
  EXPECT_EQ(updated.ttl_seconds(), 0);
  EXPECT_EQ(updated.labels().at("project"), "atlas") << "what is absent stays";
  Say("ada", "one");
  v1::DeleteSessionRequest remove;
  remove.set_session("ada");
  v1::DeleteSessionResponse removed;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Delete, remove, &removed).ok());
  ASSERT_FALSE(removed.removed().empty());
  EXPECT_EQ(removed.removed(0).tier(), v1::CACHE_TIER_HOST);
  EXPECT_GE(removed.removed(0).snapshots(), 1);
  EXPECT_EQ(Call(&v1::Sessions::Stub::Delete, remove, &removed).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(SessionsService, List_PagesThroughAllOnce) {
  for (int i = 0; i < 25; ++i) {
    v1::CreateSessionRequest create;
    create.set_name("s" + std::to_string(i));
    (*create.mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    v1::Session made;
    ASSERT_TRUE(Call(&v1::Sessions::Stub::Create, create, &made).ok());
  }
  v1::ListSessionsRequest list;
  list.set_page_size(4);
  (*list.mutable_labels())["parity"] = "even";
  std::set<std::string> seen;
  int pages = 0;
  do {
    v1::ListSessionsResponse page;
    ASSERT_TRUE(Call(&v1::Sessions::Stub::List, list, &page).ok());
    EXPECT_LE(page.sessions_size(), 4);
    for (const auto& session : page.sessions()) EXPECT_TRUE(seen.insert(session.name()).second);
    list.set_page_token(page.next_page_token());
    ++pages;
  } while (!list.page_token().empty() && pages < 20);
  EXPECT_EQ(seen.size(), 13u);
  list.set_page_size(1001);
  v1::ListSessionsResponse page;
  EXPECT_THAT(Call(&v1::Sessions::Stub::List, list, &page).error_message(), HasSubstr("page_size"));
}

TEST_F(SessionsService, Transcript_HasTextIdsAndWhereTurnsBegin) {
  Say("ada", "one");
  Say("ada", " two");
  v1::GetSessionRequest request;
  request.set_session("ada");
  request.set_transcript(true);
  v1::GetSessionResponse response;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Get, request, &response).ok());
  EXPECT_EQ(response.token_ids_size(), 32);
  EXPECT_THAT(response.text(), HasSubstr("<bos>one"));
  EXPECT_THAT(response.text(), HasSubstr(" two"));
  ASSERT_EQ(response.turns_size(), 2);
  EXPECT_EQ(response.turns(1).input_begin(), 16);
  EXPECT_EQ(response.turns(1).answer_begin(), 20);
  EXPECT_EQ(response.turns(1).end(), 32);
  request.set_from(20);
  request.set_max_tokens(5);
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Get, request, &response).ok());
  EXPECT_EQ(response.token_ids_size(), 5);
  request.set_from(33);
  EXPECT_THAT(Call(&v1::Sessions::Stub::Get, request, &response).error_message(), HasSubstr("from: 33"));
}

TEST_F(SessionsService, ForkAndOriginal_GoOnAlike) {
  Say("ada", "one");
  v1::ForkSessionRequest fork;
  fork.set_session("ada");
  fork.mutable_as()->set_name("copy");
  v1::ForkSessionResponse forked;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Fork, fork, &forked).ok());
  EXPECT_EQ(forked.session().position(), 16);
  EXPECT_EQ(forked.tokens_to_replay(), 1);
  EXPECT_EQ(IdsOf(Say("ada", "two")), IdsOf(Say("copy", "two")));
  fork.set_position(99);
  fork.mutable_as()->set_name("");
  EXPECT_EQ(Call(&v1::Sessions::Stub::Fork, fork, &forked).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SessionsService, Rewind_IsAsIfTheTurnHadNeverBeen) {
  Say("ada", "one");
  const std::vector<int32_t> first = IdsOf(Say("ada", "two"));
  v1::RewindSessionRequest rewind;
  rewind.set_session("ada");
  rewind.set_position(16);
  rewind.set_dry_run(true);
  v1::RewindSessionResponse cost;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Rewind, rewind, &cost).ok());
  EXPECT_EQ(cost.position() - cost.checkpoint(), cost.tokens_to_replay());
  EXPECT_EQ(Get("ada").position(), 31) << "a dry run changes nothing";
  rewind.set_dry_run(false);
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Rewind, rewind, &cost).ok());
  EXPECT_EQ(Get("ada").position(), 16);
  EXPECT_EQ(IdsOf(Say("ada", "two")), first);
}

TEST_F(SessionsService, Rebuild_TellsProgressAndGoesOnAlike) {
  Say("ada", std::string(5000, 'x'));
  v1::ForkSessionRequest fork;
  fork.set_session("ada");
  fork.mutable_as()->set_name("copy");
  v1::ForkSessionResponse forked;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Fork, fork, &forked).ok());
  v1::RebuildSessionRequest request;
  request.set_session("ada");
  grpc::ClientContext context;
  const auto reader = server_.sessions().Rebuild(&context, request);
  std::vector<int64_t> done;
  v1::RebuildSessionProgress progress;
  while (reader->Read(&progress)) done.push_back(progress.tokens_done());
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_THAT(done, ElementsAre(4096, 5013));
  EXPECT_EQ(progress.session().position(), 5013);
  EXPECT_FALSE(progress.session().busy());
  const v1::GenerateResponse rebuilt = Say("ada", "two");
  EXPECT_EQ(rebuilt.session().replayed_tokens(), 0);
  EXPECT_EQ(IdsOf(rebuilt), IdsOf(Say("copy", "two")));
}

TEST_F(SessionsService, Rebuild_KeepsACheckpointAtTheEndOfAPiece) {
  Say("ada", std::string(4595, 'x'));
  ASSERT_EQ(Get("ada").position(), 4096 + 512) << "so that a checkpoint is due where the first piece ends";
  v1::RebuildSessionRequest request;
  request.set_session("ada");
  grpc::ClientContext context;
  const auto reader = server_.sessions().Rebuild(&context, request);
  v1::RebuildSessionProgress progress;
  while (reader->Read(&progress)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  std::vector<int64_t> positions;
  for (const auto& checkpoint : progress.session().checkpoints()) positions.push_back(checkpoint.position());
  EXPECT_THAT(positions, ::testing::Contains(4096));
}

TEST_F(SessionFiles, ExportThenImport_GoesOnWithTheSameTokens) {
  Say("ada", "one");
  const std::string file = ExportAll("ada");
  v1::ImportSessionResponse response;
  const size_t half = file.size() / 2;
  ASSERT_TRUE(
      Import("copy",
             {PartOf(file.substr(0, half), 0, false), PartOf(file.substr(half), static_cast<int64_t>(half), true)},
             &response)
          .ok());
  EXPECT_EQ(response.session().position(), 16);
  EXPECT_EQ(response.exactness(), v1::EXACTNESS_EXACT);
  const v1::GenerateResponse copy = Say("copy", "two");
  EXPECT_EQ(copy.session().replayed_tokens(), 1) << "its snapshot came with it";
  EXPECT_EQ(IdsOf(copy), IdsOf(Say("ada", "two")));
}

TEST_F(SessionFiles, ExportWithLoss_MustBeAllowedAndIsTold) {
  Say("ada", "one");
  v1::ExportSessionRequest request;
  request.set_session("ada");
  request.set_encoding(v1::SNAPSHOT_ENCODING_BF16);
  request.set_compression(3);
  std::vector<v1::ExportSessionPart> parts;
  ASSERT_TRUE(Export(request, &parts).ok());
  const v1::ImportSessionPart part = PartOf(parts.front().data(), 0, true);
  v1::ImportSessionResponse response;
  EXPECT_EQ(Import("copy", {part}, &response).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::ImportSessionPart allowed = part;
  allowed.mutable_header()->set_allow_other_numeric(true);
  ASSERT_TRUE(Import("copy", {allowed}, &response).ok());
  EXPECT_EQ(response.exactness(), v1::EXACTNESS_CONTINUED);
  EXPECT_NE(response.numeric_difference(), "");
  request.set_compression(20);
  EXPECT_EQ(Export(request, &parts).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SessionFiles, ExportThatBrokeOff_GoesOnAtItsOffset) {
  Say("ada", "one");
  const std::string file = ExportAll("ada");
  v1::ExportSessionRequest request;
  request.set_session("ada");
  std::vector<v1::ExportSessionPart> parts;
  ASSERT_TRUE(Export(request, &parts).ok());
  request.set_export_id(parts.front().export_id());
  request.set_offset(100);
  parts.clear();
  ASSERT_TRUE(Export(request, &parts).ok());
  EXPECT_EQ(parts.front().offset(), 100);
  EXPECT_EQ(parts.front().data(), file.substr(100));
  EXPECT_EQ(parts.front().total_bytes(), static_cast<int64_t>(file.size()));
  Say("ada", "two");
  EXPECT_EQ(Export(request, &parts).error_code(), grpc::StatusCode::FAILED_PRECONDITION) << "it has changed since";
}

TEST_F(SessionFiles, ImportThatBrokeOff_GoesOnWhereItEnded) {
  Say("ada", "one");
  const std::string file = ExportAll("ada");
  v1::ImportSessionResponse response;
  EXPECT_FALSE(Import("copy", {PartOf(file.substr(0, 100), 0, false)}, &response).ok());
  v1::ImportStatusRequest question;
  question.set_import_id("transfer");
  v1::ImportStatusResponse arrived;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::ImportStatus, question, &arrived).ok());
  EXPECT_EQ(arrived.offset(), 100);
  v1::ImportSessionPart bad = PartOf(file.substr(100), 100, true);
  bad.set_checksum(bad.checksum() + 1);
  EXPECT_EQ(Import("copy", {bad}, &response).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Import("copy", {PartOf(file, 0, true)}, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT)
      << "not where it ended";
  ASSERT_TRUE(Import("copy", {PartOf(file.substr(100), 100, true)}, &response).ok());
  EXPECT_EQ(response.session().position(), 16);
}

TEST_F(SessionFiles, DamagedFile_NeverBecomesASession) {
  Say("ada", "one");
  const std::string file = ExportAll("ada");
  for (size_t at = 0; at < file.size(); at += 1 + file.size() / 97) {
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    v1::ImportSessionResponse response;
    EXPECT_EQ(Import("copy", {PartOf(damaged, 0, true)}, &response).error_code(), grpc::StatusCode::DATA_LOSS) << at;
    EXPECT_EQ(Import("copy", {PartOf(file.substr(0, at), 0, true)}, &response).error_code(),
              grpc::StatusCode::DATA_LOSS)
        << at;
  }
  EXPECT_EQ(server_.store().List("", {}, "", 10)->sessions.size(), 1u);
}

TEST_F(SessionsService, CheckAndCollect_ReadEverything) {
  Say("ada", "one");
  v1::CheckSessionsResponse report;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::Check, v1::CheckSessionsRequest(), &report).ok());
  EXPECT_EQ(report.sessions(), 1);
  EXPECT_THAT(report.damages(), ::testing::IsEmpty());
  v1::CollectGarbageResponse collected;
  ASSERT_TRUE(Call(&v1::Sessions::Stub::CollectGarbage, v1::CollectGarbageRequest(), &collected).ok());
  EXPECT_EQ(collected.expired_sessions(), 0);
  EXPECT_EQ(Get("ada").position(), 16);
}

}  // namespace
}  // namespace statehouse::testing
