// Snapshot files on a real model: out, in and on with the same bits; damaged and foreign ones never load.
#include "engine/state/snapshot_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_format.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/canonical.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/snapshot_file_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(SnapshotFileTest, OutAndInAtAnyPosition_GoesOnWithTheSameBits) {
  for (const char* golden : {"powercoder-tiny", "brumby-tiny"}) {
    for (const int64_t switch_over : {int64_t{0}, int64_t{48}, kernels::kSwitchOverAuto}) {
      Load(golden, switch_over);
      const int32_t vocab = static_cast<int32_t>(model_->config().vocab_size);
      const std::vector<int32_t> prompt = MakePrompt(150, 3, vocab);
      const ReadStream uninterrupted = Run(MakeRequest(prompt, 20));
      for (const int64_t position : {1, 15, 16, 31, 47, 48, 49, 64, 100, 149, 150}) {
        SCOPED_TRACE(absl::StrCat(golden, ", switch-over ", switch_over, ", position ", position));
        const auto loaded = Read(Written(*SnapshotAt(prompt, position)));
        ASSERT_TRUE(loaded.ok()) << loaded.status();
        EXPECT_EQ(loaded->exactness, Exactness::kExact);
        auto request = MakeRequest(prompt, 20);
        request->from = loaded->snapshot;
        ASSERT_TRUE(SameBits(Run(std::move(request)), uninterrupted));
      }
    }
  }
}

TEST_F(SnapshotFileTest, TakenBackAsFarAsIsExact_GoesOnWithTheSameBits) {
  for (const int64_t switch_over : {int64_t{0}, int64_t{48}}) {
    Load("powercoder-tiny", switch_over);
    const std::vector<int32_t> prompt = MakePrompt(150, 3, kVocab);
    const ReadStream uninterrupted = Run(MakeRequest(prompt, 20));
    for (const int64_t position : {5, 17, 40, 48, 49, 64, 65, 80, 96, 97, 111, 150}) {
      const auto later = SnapshotAt(prompt, position);
      for (int64_t earlier = later->exact_from(); earlier < position; ++earlier) {
        // Through a file too: what was forgotten is not in it.
        const auto loaded = Read(Written(*later->TakenBackTo(earlier)));
        ASSERT_TRUE(loaded.ok()) << loaded.status() << ", from " << position << " to " << earlier;
        for (const auto& from : {later->TakenBackTo(earlier), loaded->snapshot}) {
          auto request = MakeRequest(prompt, 20);
          request->from = from;
          ASSERT_TRUE(SameBits(Run(std::move(request)), uninterrupted))
              << "switch-over " << switch_over << ", from " << position << " to " << earlier;
        }
      }
    }
  }
}

TEST_F(SnapshotFileTest, AnyBitFlipped_IsSeen) {
  Load("powercoder-tiny", 48);
  const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  for (const SnapshotFileOptions& options : kAllOptions) {
    const File whole = Written(*snapshot, options);
    ASSERT_TRUE(Read(whole, true).ok());
    int64_t used = 0;
    for (size_t at = 0; at < whole.size(); at += at < 1024 || at + 4096 > whole.size() ? 1 : 37) {
      File damaged = whole;
      damaged[at] ^= std::byte{1} << (at % 8);
      const auto loaded = Read(damaged, true);
      if (loaded.ok()) {
        // Only the zeros between sections carry nothing.
        ASSERT_EQ(whole[at], std::byte{0}) << "byte " << at;
        ASSERT_EQ(std::memcmp(loaded->snapshot->regions(), Read(whole, true)->snapshot->regions(),
                              static_cast<size_t>(loaded->snapshot->num_region_floats()) * sizeof(float)),
                  0);
        continue;
      }
      ++used;
      ASSERT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss) << "byte " << at << ": " << loaded.status();
    }
    EXPECT_GT(used, 1000);
  }
}

TEST_F(SnapshotFileTest, FileCutOffAnywhere_IsDamaged) {
  Load("powercoder-tiny", 48);
  const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  for (const SnapshotFileOptions& options : kAllOptions) {
    const File whole = Written(*snapshot, options);
    for (size_t size = 0; size < whole.size(); size += size < 200 ? 1 : 211) {
      const auto loaded = Read(File(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)), true);
      ASSERT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss) << size;
    }
  }
}

// A forger has the checksum right. Whatever field he takes away or changes, the file says something that cannot be.
TEST_F(SnapshotFileTest, AnyFieldOfTheFooterMissingOrChanged_IsRefused) {
  using Json = nlohmann::ordered_json;
  Load("powercoder-tiny", 48);
  const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  for (const SnapshotFileOptions& options : kAllOptions) {
    const File whole = Written(*snapshot, options);
    const Json footer = FooterOf(whole);
    // What is stored with loss would be refused anyway, were it not allowed.
    const bool allow = options.encoding != StateEncoding::kF32;
    ASSERT_TRUE(Read(WithFooter(whole, footer), allow).ok());
    int64_t tried = 0;
    const Json fields = footer.flatten();
    for (const auto& [path, value] : fields.items()) {
      // What the noise was is told for the record: nothing depends on it.
      if (path == "/encoding/seed") continue;
      const Json::json_pointer pointer(path);
      std::vector<Json> others = {nullptr, "x", 1e300, -1, Json::array(), uint64_t{1} << 63};
      if (value.is_number()) others.push_back(value.get<double>() + 1);
      if (value.is_number_integer()) others.push_back(value.get<int64_t>() + 1);
      if (value.is_boolean()) others.push_back(!value.get<bool>());
      if (value.is_string()) others.push_back(value.get<std::string>() + "0");
      for (const Json& other : others) {
        Json changed = footer;
        changed[pointer] = other;
        // Another numeric mode may be allowed, and version 2 says all that version 1 does.
        if (allow && path.starts_with("/numeric/") && other.is_string()) continue;
        if (path == "/format" && other == 2) continue;
        ASSERT_FALSE(Read(WithFooter(whole, changed), allow).ok()) << path << " = " << other;
        ++tried;
      }
      if (path.find("/extents") == 0) continue;
      Json removed = footer;
      removed[pointer.parent_pointer()].erase(pointer.back());
      ASSERT_FALSE(Read(WithFooter(whole, removed), allow).ok()) << path << " is missing";
    }
    EXPECT_GT(tried, 300);
  }
}

TEST_F(SnapshotFileTest, ExactFileThatIsNotCompressed_IsOneThatEveryReaderKnows) {
  Load("powercoder-tiny", 48);
  const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  const auto footer = FooterOf(Written(*snapshot));
  EXPECT_EQ(footer["format"], 1);
  EXPECT_FALSE(footer.contains("encoding"));
  for (const auto& section : footer["sections"]) EXPECT_FALSE(section.contains("codec"));
  EXPECT_EQ(FooterOf(Written(*snapshot, {.zstd_level = 3}))["format"], 2);
}

TEST_F(SnapshotFileTest, Compressed_IsSmallerAndGoesOnWithTheSameBits) {
  for (const int64_t switch_over : {int64_t{0}, int64_t{48}}) {
    Load("powercoder-tiny", switch_over);
    const std::vector<int32_t> prompt = MakePrompt(150, 3, kVocab);
    const ReadStream uninterrupted = Run(MakeRequest(prompt, 20));
    for (const int64_t position : {1, 47, 70, 150}) {
      const auto snapshot = SnapshotAt(prompt, position);
      const File packed = Written(*snapshot, {.zstd_level = 3});
      EXPECT_LT(packed.size(), Written(*snapshot).size() + (position == 1 ? 1 : 0)) << position;
      const auto loaded = Read(packed);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      EXPECT_EQ(loaded->exactness, Exactness::kExact);
      auto request = MakeRequest(prompt, 20);
      request->from = loaded->snapshot;
      ASSERT_TRUE(SameBits(Run(std::move(request)), uninterrupted)) << position;
    }
  }
}

TEST_F(SnapshotFileTest, StoredWithLoss_LoadsOnlyWhereAllowed_IsNear_AndDoesNotDrift) {
  Load("powercoder-tiny", 48);
  for (const int64_t position : {20, 70, 150}) {
    const auto snapshot = SnapshotAt(MakePrompt(150, 3, kVocab), position);
    const std::vector<float> exact = Canonical(*snapshot);
    const size_t exact_size = Written(*snapshot).size();
    for (const StateEncoding encoding : {StateEncoding::kBf16, StateEncoding::kInt8}) {
      const File file = Written(*snapshot, {.encoding = encoding});
      EXPECT_LT(file.size(), exact_size);
      EXPECT_EQ(file, Written(*snapshot, {.encoding = encoding})) << "the same snapshot gave two files";
      const auto refused = Read(file);
      EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr(StateEncodingName(encoding)));
      const auto loaded = Read(file, true);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      EXPECT_EQ(loaded->exactness, Exactness::kContinued);
      EXPECT_EQ(loaded->encoding, encoding);
      EXPECT_EQ(loaded->numeric_difference, absl::StrCat("the state was stored as ", StateEncodingName(encoding)));
      const std::vector<float> near = Canonical(*loaded->snapshot);
      ASSERT_EQ(near.size(), exact.size());
      double error = 0, bias = 0, norm = 0;
      for (size_t idx = 0; idx < exact.size(); ++idx) {
        const double difference = static_cast<double>(near[idx]) - static_cast<double>(exact[idx]);
        error += difference * difference;
        bias += difference;
        norm += static_cast<double>(exact[idx]) * static_cast<double>(exact[idx]);
      }
      const double count = static_cast<double>(exact.size());
      const double relative = std::sqrt(error / norm);
      EXPECT_GT(relative, 0);
      EXPECT_LT(relative, encoding == StateEncoding::kBf16 ? 0x1p-7 : 0.02);
      // Independent errors of either sign: their sum is about the root of their number times one of them.
      EXPECT_LT(std::abs(bias) / std::sqrt(count), 5 * std::sqrt(error / count)) << "rounding leans to one side";
    }
  }
}

TEST_F(SnapshotFileTest, NumberThatIsNotFinite_IsStoredExactlyOrNotAtAll) {
  Load("powercoder-tiny", 0);
  auto good = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  kernels::AlignedBuffer regions;
  ASSERT_TRUE(regions.Allocate(good->num_region_floats() * static_cast<int64_t>(sizeof(float))));
  std::memcpy(regions.data(), good->regions(), static_cast<size_t>(regions.size()));
  kernels::RetentionLayout layout = model_->retention();
  *layout.State(regions.as<float>(), 0) = std::numeric_limits<float>::infinity();
  const Snapshot broken(shape(), good->point(), std::move(regions), {},
                        std::vector<int32_t>(good->tokens().begin(), good->tokens().end()));
  const ByteSink sink = [](std::span<const std::byte>) { return absl::OkStatus(); };
  EXPECT_EQ(WriteSnapshot(broken, fingerprint(), sink, {.encoding = StateEncoding::kInt8}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(WriteSnapshot(broken, fingerprint(), sink).ok());
  EXPECT_EQ(WriteSnapshot(broken, fingerprint(), sink, {.zstd_level = 20}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SnapshotFileTest, AnotherIdentity_IsRefusedByField) {
  Load("powercoder-tiny", 48);
  const File file = Written(*SnapshotAt(MakePrompt(20, 3, kVocab), 20));
  const std::vector<std::pair<const char*, std::function<void(Identity*)>>> changes = {
      {"weights", [](Identity* identity) { ++identity->weights; }},
      {"tokenizer", [](Identity* identity) { ++identity->tokenizer; }},
      {"adapter", [](Identity* identity) { identity->adapter = "x"; }},
      {"num_layers", [](Identity* identity) { ++identity->num_layers; }},
      {"vocab_size", [](Identity* identity) { ++identity->vocab_size; }},
      {"heads_q", [](Identity* identity) { ++identity->heads_q; }},
      {"heads_kv", [](Identity* identity) { ++identity->heads_kv; }},
      {"head_dim", [](Identity* identity) { ++identity->head_dim; }},
      {"degree", [](Identity* identity) { identity->degree = 4; }},
      {"scale", [](Identity* identity) { identity->scale *= 2; }},
      {"rope_theta", [](Identity* identity) { identity->rope_theta *= 2; }},
      {"chunk", [](Identity* identity) { identity->chunk = 32; }},
      {"switch_over", [](Identity* identity) { identity->switch_over = 96; }},
  };
  for (const auto& [field, change] : changes) {
    Fingerprint other = fingerprint();
    change(&other.identity);
    const auto loaded = ReadSnapshot(file, "test.snapshot", other, shape(), true);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kFailedPrecondition) << field;
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(absl::StrCat(field, " is "))) << field;
  }
}

TEST_F(SnapshotFileTest, AnotherNumericMode_GoesOnOnlyWhereAllowedAndSaysSo) {
  Load("powercoder-tiny", 48);
  const File file = Written(*SnapshotAt(MakePrompt(20, 3, kVocab), 20));
  Fingerprint other = fingerprint();
  other.numeric.device = "cuda sm_90";
  EXPECT_EQ(ReadSnapshot(file, "test.snapshot", other, shape(), false).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const auto loaded = ReadSnapshot(file, "test.snapshot", other, shape(), true);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->exactness, Exactness::kContinued);
  EXPECT_THAT(loaded->numeric_difference, HasSubstr("device cpu, here cuda sm_90"));
}

TEST_F(SnapshotFileTest, SinkThatFails_EndsTheWrite) {
  Load("powercoder-tiny", 48);
  const auto snapshot = SnapshotAt(MakePrompt(20, 3, kVocab), 20);
  int64_t left = 3;
  const absl::Status status = WriteSnapshot(*snapshot, fingerprint(), [&left](std::span<const std::byte>) {
    return --left < 0 ? absl::ResourceExhaustedError("disk full") : absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace statehouse::testing
