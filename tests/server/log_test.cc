#include "server/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <limits>
#include <string>

namespace statehouse {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string LineOf(Log::Format format, const Log::Fields& fields) {
  std::FILE* const file = std::tmpfile();
  Log(format, file).Info("request", fields);
  std::rewind(file);
  char line[1024] = {};
  EXPECT_NE(std::fgets(line, sizeof(line), file), nullptr);
  std::fclose(file);
  return line;
}

TEST(Log, Text_QuotesWhatWouldBreakTheLine) {
  const std::string line =
      LineOf(Log::Format::kText, {{"id", "a"}, {"error", "x y\n\"z\""}, {"n", int64_t{3}}, {"ok", true}});
  EXPECT_THAT(line, EndsWith(" info request id=a error=\"x y\\n\\\"z\\\"\" n=3 ok=true\n"));
}

TEST(Log, Json_IsOneValidObjectWhateverTheBytes) {
  const std::string line = LineOf(
      Log::Format::kJson, {{"id", "a\x01\xFF\\"}, {"ms", 1.5}, {"bad", std::numeric_limits<double>::quiet_NaN()}});
  EXPECT_THAT(line, HasSubstr("\"id\":\"a\\u0001\xEF\xBF\xBD\\\\\""));
  EXPECT_THAT(line, HasSubstr("\"ms\":1.5,\"bad\":null}\n"));
}

}  // namespace
}  // namespace statehouse
