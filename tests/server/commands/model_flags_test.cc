// Flags of the commands that run a model in this process.
#include "server/commands/model_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace statehouse {
namespace {

using ::testing::HasSubstr;

int64_t Bytes(const char* text) {
  CLI::App app("t", "t");
  int64_t value = -1;
  AddBytesFlag(app, "--x", &value, "Bytes");
  const char* words[] = {"t", "--x", text};
  app.parse(3, words);
  return value;
}

TEST(ModelFlags, BytesWithAndWithoutAnI_AreNotTheSame) {
  EXPECT_EQ(Bytes("65536"), 65536);
  EXPECT_EQ(Bytes("80GB"), 80'000'000'000) << "as `info --memory` reads it";
  EXPECT_EQ(Bytes("2GiB"), int64_t{2} << 30);
  EXPECT_THROW(Bytes("much"), CLI::ParseError);
}

TEST(ModelFlags, AnUnknownDevice_IsRefusedBeforeAnythingIsLoaded) {
  ModelFlags flags;
  for (const char* device : {"gpu", "cuda:", "cuda:-1", "cuda:x", ""}) {
    flags.device = device;
    const absl::Status status = ToCheckpointOptions(flags).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << device;
    EXPECT_THAT(std::string(status.message()), HasSubstr("expected auto, cpu, cuda or cuda:N"));
  }
  for (const char* device : {"auto", "cpu", "cuda", "cuda:3"}) {
    flags.device = device;
    EXPECT_TRUE(ToCheckpointOptions(flags).ok()) << device;
  }
}

TEST(ModelFlags, AnUnknownChatTemplate_IsRefusedBeforeAnythingIsLoaded) {
  ModelFlags flags;
  flags.chat_template = "chatlm";
  const absl::Status status = ToCheckpointOptions(flags).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--chat-template: \"chatlm\" is not allowed; expected one of "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("chatml"));
}

}  // namespace
}  // namespace statehouse
