// Who may connect and who may call: addresses, TLS, mutual TLS, bearer tokens. Certificates are made by openssl in the
// test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/fake_engine.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// An authority, a server certificate for localhost and a client certificate for "carol", in `dir`.
bool MakeCertificates(const testing::TempDir& dir) {
  std::ofstream(dir.File("extensions")) << "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
  const auto run = [](const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; };
  const auto sign = [&](const std::string& name, const std::string& subject, const std::string& extra) {
    return run("openssl req -newkey rsa:2048 -nodes -subj /CN=" + subject + " -keyout " + dir.File(name + ".key") +
               " -out " + dir.File(name + ".csr")) &&
           run("openssl x509 -req -days 2 -in " + dir.File(name + ".csr") + " -CA " + dir.File("ca.pem") + " -CAkey " +
               dir.File("ca.key") + " -CAcreateserial -out " + dir.File(name + ".pem") + extra);
  };
  return run("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority -keyout " +
             dir.File("ca.key") + " -out " + dir.File("ca.pem")) &&
         sign("server", "localhost", " -extfile " + dir.File("extensions")) && sign("client", "carol", "");
}

class Security : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new testing::TempDir;
    ASSERT_TRUE(MakeCertificates(*dir_)) << "openssl could not make certificates";
  }
  static void TearDownTestSuite() { delete dir_; }

  static ServerOptions Tls(bool mutual) {
    ServerOptions options;
    options.listen.port = 0;
    options.listen.tls_cert = dir_->File("server.pem");
    options.listen.tls_key = dir_->File("server.key");
    if (mutual) options.listen.tls_client_ca = dir_->File("ca.pem");
    return options;
  }
  static std::shared_ptr<grpc::ChannelCredentials> ClientTls(bool with_certificate) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadAll(dir_->File("ca.pem"));
    if (with_certificate) {
      options.pem_private_key = ReadAll(dir_->File("client.key"));
      options.pem_cert_chain = ReadAll(dir_->File("client.pem"));
    }
    return grpc::SslCredentials(options);
  }
  grpc::Status List(testing::TestServer& server, std::shared_ptr<grpc::ChannelCredentials> credentials,
                    const std::string& token = "") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    v1::ListModelsResponse response;
    return v1::Models::NewStub(server.Channel(credentials))->ListModels(&context, v1::ListModelsRequest(), &response);
  }

  static testing::TempDir* dir_;
  testing::FakeTokenizer tokenizer_;
  testing::FakeEngine engine_;
  ServedModel model_ = testing::FakeServedModel(&engine_, &tokenizer_);
};

testing::TempDir* Security::dir_ = nullptr;

TEST_F(Security, Tls_ServesThoseWhoSpeakIt) {
  testing::TestServer server(Tls(/*mutual=*/false));
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  EXPECT_THAT(server.server().addresses(), HasSubstr("(TLS)"));
  const grpc::Status status = List(server, ClientTls(false));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(List(server, grpc::InsecureChannelCredentials()).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(Security, MutualTls_AsksForACertificateAndTakesItsName) {
  testing::TestServer server(Tls(/*mutual=*/true));
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  EXPECT_NE(List(server, ClientTls(false)).error_code(), grpc::StatusCode::OK);
  const grpc::Status status = List(server, ClientTls(true));
  EXPECT_TRUE(status.ok()) << status.error_message();
  // The name is the request's principal.
  auto stub = v1::Generation::NewStub(server.Channel(ClientTls(true)));
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("x");
  auto reader = stub->Generate(&context, request);
  auto submitted = engine_.WaitFor(0);
  ASSERT_NE(submitted.stream, nullptr);
  EXPECT_EQ(submitted.request.principal, "carol");
  submitted.stream->Finish(absl::OkStatus(), Usage(), Timings());
  submitted.stream->NotifyListener();
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  server.Stop();
}

TEST_F(Security, WrongFiles_AreNamedByTheirFlag) {
  auto options = Tls(false);
  options.listen.tls_cert = dir_->File("missing.pem");
  EXPECT_THAT(std::string(testing::TestServer(options).status().message()), HasSubstr("--tls-cert"));
  options = Tls(false);
  options.listen.tls_key = dir_->File("server.pem");
  EXPECT_THAT(std::string(testing::TestServer(options).status().message()), HasSubstr("--tls-key"));
  options = Tls(false);
  options.listen.tls_key = dir_->File("client.key");  // a good key, of another certificate
  EXPECT_THAT(std::string(testing::TestServer(options).status().message()), HasSubstr("is not the key"));
  options = Tls(false);
  options.listen.tls_key.clear();
  EXPECT_THAT(std::string(testing::TestServer(options).status().message()), HasSubstr("--tls-key"));
}

TEST_F(Security, PlaintextForOtherMachines_NeedsItsFlag) {
  ServerOptions options;
  options.listen.port = 0;
  options.listen.host = "0.0.0.0";
  const absl::Status status = testing::TestServer(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--allow-plaintext"));
  options.listen.allow_plaintext = true;
  EXPECT_TRUE(testing::TestServer(options).status().ok());
}

TEST_F(Security, APortThatIsTaken_IsAnError) {
  ServerOptions options;
  options.listen.port = 0;
  testing::TestServer first(options);
  ASSERT_TRUE(first.status().ok());
  options.listen.port = first.server().port();
  const absl::Status status = testing::TestServer(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat(":", options.listen.port, ": Address already in use")));
}

TEST_F(Security, AddressThatCannotBeListenedOn_IsNamedWithItsCause) {
  testing::TempDir dir;
  ServerOptions options;
  options.listen.port = -1;
  options.listen.unix_socket = dir.File("no/such/folder");
  absl::Status status = testing::TestServer(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(status.message()), absl::StrCat("cannot listen on unix:", options.listen.unix_socket,
                                                        ": No such file or directory; choose another --unix-socket"));
  options = {};
  options.listen.port = 0;
  options.metrics_port = -1;
  options.metrics_host = "";
  status = testing::TestServer(options).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("--metrics-host"));
  testing::TestServer first;
  ASSERT_TRUE(first.status().ok());
  options.metrics_host = "192.0.2.1";  // of nobody's
  status = testing::TestServer(options).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("192.0.2.1:0: Cannot assign requested address"));
}

TEST_F(Security, ASocketFileLeftBehind_IsReplacedAndOtherFilesAreNot) {
  testing::TempDir dir;
  ServerOptions options;
  options.listen.port = -1;
  options.listen.unix_socket = dir.File("socket");
  std::ofstream(dir.File("socket")) << "precious";
  EXPECT_EQ(testing::TestServer(options).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadAll(dir.File("socket")), "precious");
}

TEST_F(Security, ASocketThatAServerListensOn_IsNotTaken) {
  testing::TestServer first;
  ASSERT_TRUE(first.status().ok()) << first.status();
  first.server().Serve(&model_);
  ServerOptions options;
  options.listen.port = -1;
  options.listen.unix_socket = first.target().substr(5);  // without "unix:"
  const absl::Status status = testing::TestServer(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("another server answers"));
  EXPECT_TRUE(List(first, grpc::InsecureChannelCredentials()).ok()) << "the first one goes on";
}

TEST_F(Security, ASocketThatNobodyListensOn_IsReplaced) {
  testing::TempDir dir;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = dir.File("socket");
  std::copy(path.begin(), path.end(), address.sun_path);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  close(fd);  // the file stays, as after a crash
  ServerOptions options;
  options.listen.port = -1;
  options.listen.unix_socket = path;
  testing::TestServer server(options);
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  EXPECT_TRUE(List(server, grpc::InsecureChannelCredentials()).ok());
}

TEST_F(Security, OnlyAddressesOfThisMachine_AreLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.8.9.10", "::1", "[::1]"})
    EXPECT_TRUE(IsLoopback(host)) << host;
  for (const char* host : {"127.0.0.1.example.org", "127.example.org", "128.0.0.1", "::", "0.0.0.0", ""}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST_F(Security, Tokens_AreAskedOfEveryCallButHealth) {
  const std::string file = dir_->File("tokens");
  std::ofstream(file) << "alice alices-token-0123456789\n";
  ServerOptions options;
  options.auth_tokens_file = file;
  testing::TestServer server(options);
  ASSERT_TRUE(server.status().ok()) << server.status();
  server.server().Serve(&model_);
  EXPECT_EQ(List(server, grpc::InsecureChannelCredentials()).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(List(server, grpc::InsecureChannelCredentials(), "wrong").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(List(server, grpc::InsecureChannelCredentials(), "alices-token-0123456789").ok());
  std::ofstream(file) << "bob bobs-token-0123456789ab\n";
  server.server().Reload();
  EXPECT_EQ(List(server, grpc::InsecureChannelCredentials(), "alices-token-0123456789").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(List(server, grpc::InsecureChannelCredentials(), "bobs-token-0123456789ab").ok());
  // A streaming call without one never reaches the engine.
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_text("x");
  auto reader = server.Generation()->Generate(&context, request);
  v1::GenerateEvent event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(engine_.num_submitted(), 0u);
}

}  // namespace
}  // namespace statehouse
