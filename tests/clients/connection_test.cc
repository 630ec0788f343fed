// What a client refuses before it calls, and what it says of a server that it cannot speak to. Certificates are made by
// openssl in the test.
#include "clients/cli/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "clients/cli/inspect.h"
#include "clients/cli/request_text.h"
#include "clients/cli/wire_backend.h"
#include "statehouse/v1/models.grpc.pb.h"
#include "statehouse/v1/sessions.pb.h"
#include "tests/clients/fake_server.h"

namespace statehouse::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(Connection, AddressThatIsNone_IsRefusedWithWhatIsAllowed) {
  const auto open = [](const std::string& address) { return Connection::Open({.address = address}).status(); };
  for (const char* address : {"127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:", "host:12x", "host:-1", "host:+80"}) {
    EXPECT_THAT(Message(open(address)), HasSubstr("a port from 1 to 65535")) << address;
    EXPECT_THAT(Message(open(address)), HasSubstr(address)) << address;
  }
  for (const char* address :
       {"", "host", ":50051", "::1", "fe80::1:50051", "[::1]", "[::g]:1", "a b:1", "h\xc3\xa9:1"}) {
    EXPECT_THAT(Message(open(address)), HasSubstr("host:port, [v6]:port or unix:PATH")) << address;
  }
  EXPECT_THAT(Message(open("unix:")), HasSubstr("a path of 1 to 107 bytes"));
  EXPECT_THAT(Message(open("unix:/" + std::string(107, 'x'))), HasSubstr("a path of 1 to 107 bytes"));
  for (const char* address : {"127.0.0.1:65535", "localhost:1", "a-b.example.org:50051", "[::1]:50051",
                              "[fe80::1%eth0]:1", "unix:/run/x", "unix:relative", "my_host:1"}) {
    EXPECT_TRUE(open(address).ok()) << address << ": " << open(address);
  }
}

TEST(Connection, ACallThatIsNotSent_HasNoOutcomeOfTheOneBefore) {
  FakeServer server;
  server.set_status(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
  v1::SessionOutcome outcome;
  outcome.set_position(7);
  server.set_failed_outcome(outcome);
  const auto connection = Connection::Open({.address = server.address()});
  ASSERT_TRUE(connection.ok()) << connection.status();
  WireBackend backend(connection->get());
  v1::GenerateRequest request;
  request.set_text("x");
  request.mutable_session()->set_session("s");
  EXPECT_FALSE(backend.Generate(request, [](const v1::GenerateEvent&) {}).ok());
  ASSERT_TRUE(backend.FailedOutcome().has_value());
  request.set_text("\xff");
  EXPECT_TRUE(absl::IsInvalidArgument(backend.Generate(request, [](const v1::GenerateEvent&) {})));
  EXPECT_FALSE(backend.FailedOutcome().has_value());
}

TEST(Connection, ATokenThatMetadataCannotHold_IsRefusedUnseen) {
  for (const char* token : {"abc\ndef", "abc\tdef",
                            "\xc3\xa9"
                            "def",
                            "abcdef\x7f"}) {
    const absl::Status status = Connection::Open({.token = token}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr("--token"));
    EXPECT_THAT(Message(status), HasSubstr("printable ASCII"));
    EXPECT_THAT(Message(status), Not(HasSubstr("def")));
  }
  EXPECT_TRUE(Connection::Open({.token = "AZaz09-._~+/="}).ok());
}

TEST(Connection, ARequestIdThatMetadataCannotHold_IsNotSent) {
  FakeServer server;
  const auto connection = Connection::Open({.address = server.address()});
  for (const char* id : {"\xc3\xa9", "a\tb", "a\nb"}) {
    WireBackend backend(connection->get(), id);
    const absl::Status status = backend.Generate({}, [](const v1::GenerateEvent&) {});
    EXPECT_THAT(Message(status), HasSubstr("--request-id"));
  }
  EXPECT_TRUE(server.requests().empty());
}

TEST(Connection, TextThatIsNotUtf8_IsRefusedWithFieldAndByte) {
  FakeServer server;
  const auto connection = Connection::Open({.address = server.address()});
  v1::GenerateRequest request;
  request.set_text("ab\xff");
  WireBackend backend(connection->get());
  EXPECT_EQ(Message(backend.Generate(request, [](const v1::GenerateEvent&) {})),
            "text: a text whose byte 2 is not UTF-8 is not allowed; expected UTF-8");
  EXPECT_TRUE(server.requests().empty());
  EXPECT_THAT(Message(ShowTokens(**connection, "\xc3", {}, false, stdout)), HasSubstr("text: a text whose byte 0"));
  EXPECT_THAT(Message(GetModel(**connection, "x\xff").status()), HasSubstr("name: a text whose byte 1"));
}

TEST(CheckText, EveryKindOfField_IsNamed) {
  v1::GenerateRequest request;
  request.mutable_stop()->add_strings("fine");
  request.mutable_stop()->add_strings("\xff");
  EXPECT_THAT(Message(CheckText(request)), HasSubstr("stop.strings[1]: a text whose byte 0"));
  request.Clear();
  request.mutable_chat()->add_messages()->set_content("caf\xe9");
  EXPECT_THAT(Message(CheckText(request)), HasSubstr("chat.messages[0].content: a text whose byte 3"));
  request.Clear();
  request.mutable_session()->set_session("\xff");
  EXPECT_THAT(Message(CheckText(request)), HasSubstr("session.session"));
  v1::CreateSessionRequest create;
  (*create.mutable_labels())["key"] = "\xff";
  EXPECT_THAT(Message(CheckText(create)), HasSubstr("labels[0].value"));
  (*create.mutable_labels())["key"] = "caf\xc3\xa9";
  EXPECT_TRUE(CheckText(create).ok());
}

TEST(Connection, AMissingOrAWrongToken_IsSaidOnce) {
  FakeServer server;
  server.set_token("secret");
  const auto explain = [&](const std::string& token) {
    return Message(GetModel(**Connection::Open({.address = server.address(), .token = token}), "").status());
  };
  EXPECT_EQ(explain(""), server.address() + " asks for a token: give one with --token or STATEHOUSE_TOKEN");
  EXPECT_EQ(explain("other"), "--token: no valid token");
}

TEST(Connection, AServerThatComesBack_IsSeenWithinASecondOrTwo) {
  const std::string path = ::testing::TempDir() + "/connection_test_" + std::to_string(getpid());
  const auto connection = Connection::Open({.address = "unix:" + path});
  const auto ask = [&] { return GetModel(**connection, "").status(); };
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < std::chrono::seconds(5)) {  // gRPC's own pauses would be long now
    EXPECT_FALSE(ask().ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  FakeServer server("unix:" + path);
  const auto back = std::chrono::steady_clock::now();
  while (!ask().ok() && std::chrono::steady_clock::now() - back < std::chrono::seconds(20)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - back, std::chrono::seconds(2));
}

TEST(Connection, ALostServerThatComesBack_IsSeenByCallsThatAreRarelyRepeated) {
  const std::string path = ::testing::TempDir() + "/connection_test_lost_" + std::to_string(getpid());
  const auto connection = Connection::Open({.address = "unix:" + path});
  WireBackend backend(connection->get());
  v1::GenerateRequest request;
  request.set_text("x");
  const auto ask = [&] { return backend.Generate(request, [](const v1::GenerateEvent&) {}); };
  {
    FakeServer server("unix:" + path);
    ASSERT_TRUE(ask().ok());
  }
  constexpr std::chrono::milliseconds kPause{600};
  for (int i = 0; i < 2; ++i, std::this_thread::sleep_for(kPause)) EXPECT_FALSE(ask().ok());
  FakeServer server("unix:" + path);
  const auto back = std::chrono::steady_clock::now();
  while (!ask().ok() && std::chrono::steady_clock::now() - back < std::chrono::seconds(20)) {
    std::this_thread::sleep_for(kPause);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - back, std::chrono::milliseconds(1500));
}

class ConnectionTls : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char pattern[] = "/tmp/connection_test_XXXXXX";
    folder_ = mkdtemp(pattern);
    std::ofstream(File("extensions")) << "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
    const auto run = [](const std::string& command) {
      return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
    };
    const std::string make = "openssl req -newkey rsa:2048 -nodes -subj /CN=x -keyout ";
    for (const std::string name : {"ca", "other"}) {
      ASSERT_TRUE(run(make + File(name + ".key") + " -x509 -days 2 -out " + File(name + ".pem")));
    }
    ASSERT_TRUE(run(make + File("leaf.key") + " -out " + File("leaf.csr")) &&
                run("openssl x509 -req -days 2 -in " + File("leaf.csr") + " -CA " + File("ca.pem") + " -CAkey " +
                    File("ca.key") + " -CAcreateserial -out " + File("leaf.pem") + " -extfile " + File("extensions")));
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }
  static std::string File(const std::string& name) { return folder_ + "/" + name; }
  static std::string Contents(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(File(name)).rdbuf();
    return text.str();
  }

  // A server that answers no method. "127.0.0.1:port".
  std::string Serve(bool wants_certificate) {
    grpc::SslServerCredentialsOptions ssl(wants_certificate ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                            : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
    ssl.pem_root_certs = Contents("ca.pem");
    ssl.pem_key_cert_pairs.push_back({Contents("leaf.key"), Contents("leaf.pem")});
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(ssl), &port);
    builder.RegisterService(&no_models_);
    server_ = builder.BuildAndStart();
    return "127.0.0.1:" + std::to_string(port);
  }
  // What is said when a call is tried, or already before.
  static std::string Try(const ConnectionOptions& options) {
    const auto connection = Connection::Open(options);
    return Message(connection.ok() ? GetModel(**connection, "").status() : connection.status());
  }

  static std::string folder_;
  v1::Models::Service no_models_;
  std::unique_ptr<grpc::Server> server_;
};

std::string ConnectionTls::folder_;

TEST_F(ConnectionTls, TrustedServer_IsSpokenTo) {
  const std::string address = Serve(/*wants_certificate=*/true);
  EXPECT_THAT(
      Try({.address = address, .tls_ca = File("ca.pem"), .tls_cert = File("leaf.pem"), .tls_key = File("leaf.key")}),
      HasSubstr("is no Statehouse of this version"));
}

TEST_F(ConnectionTls, FailedHandshake_IsNotTakenForNobody) {
  const std::string address = Serve(/*wants_certificate=*/false);
  const std::string wrong_ca = Try({.address = address, .tls_ca = File("other.pem")});
  EXPECT_THAT(wrong_ca, HasSubstr("no authority trusted here signed"));
  EXPECT_THAT(wrong_ca, HasSubstr("--tls-ca"));
  const std::string wrong_name = Try({.address = address, .tls_ca = File("ca.pem"), .tls_server_name = "example.org"});
  EXPECT_THAT(wrong_name, HasSubstr("--tls-server-name"));
  for (const std::string& said : {wrong_ca, wrong_name}) EXPECT_THAT(said, Not(HasSubstr("no server answers")));
  FakeServer plain;
  EXPECT_THAT(Try({.address = plain.address(), .tls_ca = File("ca.pem")}), HasSubstr("speaks no TLS"));
  EXPECT_THAT(Try({.address = "127.0.0.1:1", .tls_ca = File("ca.pem")}), HasSubstr("no server answers"));
}

TEST_F(ConnectionTls, MissingClientCertificate_IsNamed) {
  const std::string said = Try({.address = Serve(/*wants_certificate=*/true), .tls_ca = File("ca.pem")});
  EXPECT_THAT(said, HasSubstr("--tls-client-cert"));
  EXPECT_THAT(said, Not(HasSubstr("no server answers")));
}

TEST_F(ConnectionTls, FilesThatHoldSomethingElse_AreNamedByTheirFlag) {
  EXPECT_THAT(Try({.tls_ca = File("ca.key")}), HasSubstr("--tls-ca: " + File("ca.key") + " holds no certificate"));
  EXPECT_THAT(Try({.tls_ca = File("missing")}), HasSubstr("--tls-ca: cannot read " + File("missing")));
  EXPECT_THAT(Try({.tls_ca = folder_}), HasSubstr("is a folder"));
  EXPECT_THAT(Try({.tls_cert = File("leaf.key"), .tls_key = File("leaf.key")}), HasSubstr("--tls-client-cert: "));
  EXPECT_THAT(Try({.tls_cert = File("leaf.pem"), .tls_key = File("leaf.pem")}), HasSubstr("holds no private key"));
  EXPECT_THAT(Try({.tls_cert = File("leaf.pem"), .tls_key = File("other.key")}),
              HasSubstr("--tls-client-key: " + File("other.key") + " is not the key"));
}

}  // namespace
}  // namespace statehouse::cli
