#include "models/safetensors.h"

#include <sys/stat.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/checkpoint_builder.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using testing::PatternF32;
using testing::RawSafetensors;
using testing::SafetensorsBytes;
using testing::TempDir;
using testing::WriteFile;

TEST(Safetensors, TwoTensorsAndMetadata_AreFoundWhereTheHeaderSays) {
  TempDir dir;
  WriteFile(dir / "two.safetensors",
            RawSafetensors(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}   )",
                           "aaaabbbbccccdd"));
  const auto file = Safetensors::Open(dir / "two.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  ASSERT_EQ(file->tensors().size(), 2u);
  const TensorView& a = file->tensors().at("a");
  EXPECT_EQ(a.dtype, "F32");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(a.num_elements(), 2);
  EXPECT_EQ(std::memcmp(a.data, "aaaabbbb", 8), 0);
  const TensorView& b = file->tensors().at("b");
  EXPECT_EQ(b.num_bytes, 6);
  EXPECT_EQ(std::memcmp(b.data, "ccccdd", 6), 0);
}

TEST(Safetensors, EmptyAndScalarTensors_AreAllowed) {
  TempDir dir;
  WriteFile(dir / "f.safetensors", RawSafetensors(R"({"none":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},)"
                                                  R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                                                  "1234"));
  const auto file = Safetensors::Open(dir / "f.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().at("none").num_elements(), 0);
  EXPECT_EQ(file->tensors().at("scalar").num_elements(), 1);
}

TEST(Safetensors, MovedFile_KeepsItsData) {
  TempDir dir;
  WriteFile(dir / "f.safetensors", SafetensorsBytes({{"t", PatternF32({4}, 3)}}));
  auto file = Safetensors::Open(dir / "f.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const Safetensors moved = *std::move(file);
  EXPECT_EQ(std::memcmp(moved.tensors().at("t").data, PatternF32({4}, 3).bytes.data(), 16), 0);
}

// One hostile file each: its bytes, and what the message must say of the tensor and the expectation.
struct Hostile {
  const char* name;
  std::string bytes;
  std::vector<std::string> message;
};

std::string WithLength(uint64_t length, std::string_view rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(rest);
}

// A header of one tensor "w" with these fields, before four bytes of data.
std::string OneTensor(const std::string& fields) { return RawSafetensors(R"({"w":{)" + fields + "}}", "1234"); }

std::vector<Hostile> HostileFiles() {
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  return {
      {"empty", "", {"0 bytes; expected a header length"}},
      {"length only", WithLength(2, ""), {"8 bytes; expected a header length of 8 bytes and a header"}},
      {"length zero", WithLength(0, "{}"), {"header length 0; expected 1"}},
      {"length past the file", WithLength(1000, "{}"), {"header length 1000; expected 1 … 2", "truncated"}},
      {"length of 2^63", WithLength(uint64_t{1} << 63, "{}"), {"header length 9223372036854775808; expected 1 … 2"}},
      {"length near 2^64", WithLength(~uint64_t{0}, "{}"), {"header length 18446744073709551615"}},
      {"no JSON", RawSafetensors("hello", ""), {"header: not valid JSON"}},
      {"half a JSON", RawSafetensors(R"({"w":{"dtype")", ""), {"header: not valid JSON"}},
      {"two JSONs", RawSafetensors("{}{}", ""), {"header: not valid JSON"}},
      {"invalid UTF-8", RawSafetensors("{\"\xff\xfe\":1}", ""), {"header: not valid JSON"}},
      {"number too large", RawSafetensors(R"({"w":1e999})", ""), {"header: not valid JSON"}},
      {"array", RawSafetensors("[]", ""), {"header: expected a JSON object"}},
      {"deep nesting", RawSafetensors(std::string(100000, '['), ""), {"header: nested deeper than 4 levels"}},
      {"duplicate tensor",
       RawSafetensors("{\"w\":{" + good + "},\"w\":{" + good + "}}", "1234"),
       {"header: key \"w\" appears twice"}},
      {"duplicate field", OneTensor(R"("dtype":"F32",)" + good), {"header: key \"dtype\" appears twice"}},
      {"metadata no object",
       RawSafetensors(R"({"__metadata__":3})", ""),
       {"__metadata__: expected an object of strings"}},
      {"metadata no string",
       RawSafetensors(R"({"__metadata__":{"format":3}})", ""),
       {"__metadata__ key \"format\": expected a string"}},
      {"tensor no object", RawSafetensors(R"({"w":7})", ""), {"tensor \"w\"", "expected an object with dtype"}},
      {"field missing", OneTensor(R"("dtype":"F32","shape":[1])"), {"tensor \"w\"", "expected all of dtype, shape"}},
      {"field unknown", OneTensor(good + R"(,"stride":1)"), {"tensor \"w\"", "key \"stride\"; expected only dtype"}},
      {"dtype no string",
       OneTensor(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"),
       {"tensor \"w\"", "dtype: expected a string"}},
      {"dtype unknown",
       OneTensor(R"("dtype":"Q4","shape":[1],"data_offsets":[0,4])"),
       {"tensor \"w\"", "dtype \"Q4\" is unknown; expected F32, F16 or BF16"}},
      {"shape no array",
       OneTensor(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"),
       {"tensor \"w\"", "shape: expected an array of sizes"}},
      {"shape negative",
       OneTensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"),
       {"tensor \"w\"", "shape [-1]: expected sizes >= 0"}},
      {"shape fractional",
       OneTensor(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"),
       {"tensor \"w\"", "shape [1.5]: expected sizes >= 0"}},
      {"shape overflows",
       OneTensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
       {"tensor \"w\"", "overflows; expected at most 2^63 bytes"}},
      {"shape past int64",
       OneTensor(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"),
       {"tensor \"w\"", "expected sizes >= 0"}},
      {"offsets of one",
       OneTensor(R"("dtype":"F32","shape":[1],"data_offsets":[0])"),
       {"tensor \"w\"", "data_offsets: expected [begin, end]"}},
      {"offsets negative",
       OneTensor(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"),
       {"tensor \"w\"", "data_offsets: expected [begin, end]"}},
      {"offsets reversed",
       OneTensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"),
       {"tensor \"w\"", "out of range; expected begin <= end <= 4"}},
      {"offsets past the data",
       OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"),
       {"tensor \"w\"", "data_offsets [0, 8] out of range", "expected begin <= end <= 4", "truncated"}},
      {"offsets do not match the shape",
       OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       {"tensor \"w\"", "4 bytes of data; expected 8 for F32 [2]"}},
      {"overlap",
       RawSafetensors(R"({"u":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                      R"("w":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                      "123456"),
       {"tensor \"w\"", "overlaps tensor \"u\"; expected data_offsets to begin at 4"}},
      {"same bytes twice",
       RawSafetensors("{\"u\":{" + good + "},\"w\":{" + good + "}}", "1234"),
       {"overlaps tensor", "expected data_offsets to begin at 4"}},
      {"gap",
       RawSafetensors(R"({"u":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                      R"("w":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}})",
                      "1234567890"),
       {"tensor \"w\"", "begin at 6 and leave a gap; expected 4"}},
      {"bytes left over",
       RawSafetensors("{\"w\":{" + good + "}}", "123456"),
       {"2 bytes of data belong to no tensor; expected the file to end at byte 4"}},
      {"control characters in a name",
       RawSafetensors(R"({"a\u001b[31m\n":7})", ""),
       {R"(tensor "a\x1b[31m\n")", "expected an object"}},
  };
}

TEST(Safetensors, HostileFiles_AreRefusedNamingFileTensorAndExpectation) {
  for (const Hostile& hostile : HostileFiles()) {
    SCOPED_TRACE(hostile.name);
    TempDir dir;
    WriteFile(dir / "hostile.safetensors", hostile.bytes);
    const auto file = Safetensors::Open(dir / "hostile.safetensors");
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
    const std::string message(file.status().message());
    EXPECT_THAT(message, HasSubstr((dir / "hostile.safetensors").string()));
    for (const std::string& part : hostile.message) EXPECT_THAT(message, HasSubstr(part));
  }
}

TEST(Safetensors, EveryTruncation_IsRefused) {
  const std::string whole = SafetensorsBytes({{"a", PatternF32({3}, 1)}, {"b", PatternF32({2, 2}, 2)}});
  TempDir dir;
  for (size_t size = 0; size < whole.size(); ++size) {
    WriteFile(dir / "cut.safetensors", std::string_view(whole).substr(0, size));
    EXPECT_FALSE(Safetensors::Open(dir / "cut.safetensors").ok()) << "cut to " << size << " of " << whole.size();
  }
  WriteFile(dir / "cut.safetensors", whole);
  EXPECT_TRUE(Safetensors::Open(dir / "cut.safetensors").ok());
}

// Whatever a damaged header still says, no view may leave the file (a sanitizer build sees every byte read).
TEST(Safetensors, RandomlyDamagedFiles_AreRefusedOrStayWithinTheirData) {
  const std::string whole = SafetensorsBytes({{"a", PatternF32({3}, 1)}, {"b", PatternF32({2, 2}, 2)}});
  constexpr char kReplacements[] = "0123456789[]{},:\"-.eEabFB1632\x00\xff";
  TempDir dir;
  std::mt19937 random(20);
  int opened = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string damaged = whole;
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      damaged[random() % damaged.size()] = kReplacements[random() % sizeof(kReplacements)];
    }
    WriteFile(dir / "damaged.safetensors", damaged);
    const auto file = Safetensors::Open(dir / "damaged.safetensors");
    if (!file.ok()) continue;
    ++opened;
    int64_t total = 0;
    unsigned sum = 0;
    for (const auto& [name, view] : file->tensors()) {
      for (int64_t i = 0; i < view.num_bytes; ++i) sum += std::to_integer<unsigned>(view.data[i]);
      total += view.num_bytes;
    }
    EXPECT_LE(total, static_cast<int64_t>(damaged.size()));
    EXPECT_LE(sum, 255u * damaged.size());
  }
  EXPECT_GT(opened, 0) << "the damage should sometimes hit only data";
}

TEST(Safetensors, MissingFileAndDirectory_SayWhatTheyAre) {
  TempDir dir;
  EXPECT_EQ(Safetensors::Open(dir / "none.safetensors").status().code(), absl::StatusCode::kNotFound);
  const absl::Status directory = Safetensors::Open(dir.path()).status();
  EXPECT_THAT(std::string(directory.message()), HasSubstr("not a regular file"));
}

// A pipe would block its reader for ever.
TEST(Safetensors, NamedPipe_IsRefusedAtOnce) {
  TempDir dir;
  ASSERT_EQ(mkfifo((dir / "pipe.safetensors").c_str(), 0600), 0);
  const absl::Status status = Safetensors::Open(dir / "pipe.safetensors").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace statehouse
