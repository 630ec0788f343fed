#include "server/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "alices-token-0123456789";
constexpr char kBob[] = "bobs-token-0123456789ab";

class Auth : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string file = dir_.File("tokens");
    std::ofstream(file) << text;
    return file;
  }
  testing::TempDir dir_;
  Authenticator auth_;
};

TEST_F(Auth, ATokenOfTheFile_NamesItsPrincipal) {
  const std::string file = Write(std::string("# who\n\nalice ") + kAlice + "\nbob\t" + kBob + "\n");
  ASSERT_TRUE(Authenticator::Load(file, &auth_).ok());
  EXPECT_EQ(*auth_.Check(std::string("Bearer ") + kAlice), "alice");
  EXPECT_EQ(*auth_.Check(std::string("Bearer ") + kBob), "bob");
}

TEST_F(Auth, AnythingElse_IsUnauthenticatedAndNotRepeated) {
  ASSERT_TRUE(Authenticator::Load(Write(std::string("alice ") + kAlice), &auth_).ok());
  for (const std::string& header :
       {std::string(), std::string("Bearer "), std::string("Bearer guess"), std::string(kAlice),
        "Basic " + std::string(kAlice), "Bearer " + std::string(kAlice) + "x"}) {
    const absl::Status status = auth_.Check(header).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << header;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("guess")));
  }
}

TEST_F(Auth, ReadAgain_ChangesTokensAndKeepsThemAfterAMistake) {
  ASSERT_TRUE(Authenticator::Load(Write(std::string("alice ") + kAlice), &auth_).ok());
  Write(std::string("bob ") + kBob);
  ASSERT_TRUE(auth_.Reload().ok());
  EXPECT_FALSE(auth_.Check(std::string("Bearer ") + kAlice).ok());
  EXPECT_TRUE(auth_.Check(std::string("Bearer ") + kBob).ok());
  Write("bob\n");
  EXPECT_FALSE(auth_.Reload().ok());
  EXPECT_TRUE(auth_.Check(std::string("Bearer ") + kBob).ok());
}

TEST_F(Auth, OneTokenOfTwoPrincipals_IsRefusedNamingBothLines) {
  const std::string file = Write(std::string("alice ") + kAlice + "\n# same\nbob " + kAlice + "\n");
  const absl::Status status = Authenticator::Load(file, &auth_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokens:3: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 1"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr(kAlice)));
  // As it is for one principal: a copied line is a mistake as well.
  EXPECT_FALSE(Authenticator::Load(Write(std::string("a ") + kAlice + "\na " + kAlice + "\n"), &auth_).ok());
}

TEST_F(Auth, AMalformedFile_IsNamedWithItsLineButNotItsSecrets) {
  const std::string file = Write(std::string("alice ") + kAlice + "\nbob " + kBob + " third-word\n");
  const absl::Status status = Authenticator::Load(file, &auth_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(file + ":2"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr(kBob)));
  EXPECT_FALSE(Authenticator::Load(Write("alice short"), &auth_).ok());
  EXPECT_FALSE(Authenticator::Load(Write("# nobody\n"), &auth_).ok());
  EXPECT_EQ(Authenticator::Load(dir_.File("missing"), &auth_).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace statehouse
