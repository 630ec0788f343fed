#include "server/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/errors.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/utf8.h"

namespace statehouse {
namespace {

TEST(Status, EveryCode_StaysWhatItIs) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status = ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why");
    EXPECT_EQ(status.error_details(), "") << "nothing to add";
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(Status, ABadField_BecomesABadRequest) {
  const grpc::Status status = ToGrpcStatus(InvalidField("sampling.top_p", "2", "at most 1"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  EXPECT_EQ(rich.code(), 3);
  ASSERT_EQ(rich.details_size(), 1);
  EXPECT_EQ(rich.details(0).type_url(), "type.googleapis.com/google.rpc.BadRequest");
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(rich.details(0).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations(0).field(), "sampling.top_p");
  EXPECT_THAT(bad_request.field_violations(0).description(), ::testing::HasSubstr("at most 1"));
}

TEST(Status, Overload_BecomesARetryInfo) {
  const grpc::Status status = ToGrpcStatus(Overloaded("the queue is full", absl::Milliseconds(1500)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry_info;
  ASSERT_TRUE(rich.details(0).UnpackTo(&retry_info));
  EXPECT_EQ(retry_info.retry_delay().seconds(), 1);
  EXPECT_EQ(retry_info.retry_delay().nanos(), 500'000'000);
}

TEST(Status, AHugeMessageFullOfJunk_StillFitsTheTrailer) {
  const std::string junk(1 << 20, '\xFF');
  const grpc::Status status = ToGrpcStatus(InvalidField("text", junk, "UTF-8"));
  EXPECT_LE(status.error_message().size(), static_cast<size_t>(kMaxErrorMessageBytes) + 3);
  EXPECT_TRUE(IsValidUtf8(status.error_message()));
  EXPECT_LT(3 * status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
}

TEST(Utf8, MalformedForms_AreFoundWhereTheyAre) {
  EXPECT_EQ(ValidUtf8Prefix("a\xE2\x82\xAC\xF0\x9F\x98\x80z"), 9u);
  for (const char* bad : {"ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80", "ab\xE2\x82", "ab\x80", "ab\xFF",
                          "ab\xE0\x80\x80", "ab\xF0\x80\x80\x80"}) {
    EXPECT_EQ(ValidUtf8Prefix(bad), 2u) << bad;
    EXPECT_TRUE(IsValidUtf8(ReplaceInvalidUtf8(bad)));
  }
}

}  // namespace
}  // namespace statehouse
