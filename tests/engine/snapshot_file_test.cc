// Snapshot files on a real model: out, in and on with the same bits; damaged and foreign ones never load.
#include "engine/state/snapshot_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
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

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 300;
using File = std::vector<std::byte>;
const SnapshotFileOptions kAllOptions[] = {
    {}, {.zstd_level = 3}, {.encoding = StateEncoding::kBf16}, {.encoding = StateEncoding::kInt8, .zstd_level = 3}};

class SnapshotFileTest : public ::testing::Test {
 protected:
  // Chunks of 16 and a switch-over that short prompts reach.
  void Load(const char* golden, int64_t switch_over) {
    engine_.reset();
    LoadOptions load;
    load.chunk = 16;
    load.switch_over = switch_over;
    auto model = LoadModel(std::string(STATEHOUSE_SOURCE_DIR "/tests/golden/models/") + golden, load, &pool_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto engine = Engine::Create(model_.get(), nullptr, {.max_num_seqs = 2, .max_num_batched_tokens = 64});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  SlotShape shape() const { return {model_->retention(), model_->config().num_layers}; }
  Fingerprint fingerprint() const { return Fingerprint::Of(*model_, 7); }

  ReadStream Run(std::unique_ptr<Request> request) {
    request->num_logprobs = 2;
    auto stream = engine_->Submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status();
    ReadStream read;
    while (stream.ok() && !read.done && engine_->RunStep()) Drain(stream->get(), &read);
    return read;
  }
  std::shared_ptr<const Snapshot> SnapshotAt(const std::vector<int32_t>& prompt, int64_t position) {
    auto request = MakeRequest(prompt, 1);
    auto draft = *SnapshotDraft::Reserve(shape(), model_->config().vocab_size);
    request->snapshots = {{position, draft}};
    Run(std::move(request));
    EXPECT_TRUE(draft->filled());
    return draft->Seal(prompt);
  }
  File Written(const Snapshot& snapshot, const SnapshotFileOptions& options = {}) {
    File file;
    const ByteSink sink = [&file](std::span<const std::byte> bytes) {
      file.insert(file.end(), bytes.begin(), bytes.end());
      return absl::OkStatus();
    };
    const absl::Status status = WriteSnapshot(snapshot, fingerprint(), sink, options);
    EXPECT_TRUE(status.ok()) << status;
    return file;
  }
  absl::StatusOr<LoadedSnapshot> Read(const File& file, bool allow_other_numeric = false) {
    return ReadSnapshot(file, "test.snapshot", fingerprint(), shape(), allow_other_numeric);
  }
  // Each head's canonical floats, layer after layer.
  std::vector<float> Canonical(const Snapshot& snapshot) {
    std::vector<float> all;
    const kernels::RetentionLayout& layout = model_->retention();
    for (int64_t region = 0; region < shape().num_regions(); ++region) {
      const float* const from = snapshot.regions() + region * snapshot.point().used_floats;
      const kernels::HeadExtent extent = kernels::ExtentOf(layout, from, snapshot.position());
      const size_t begin = all.size();
      all.resize(begin + static_cast<size_t>(kernels::CanonicalFloats(layout, extent)));
      kernels::ExportHead(layout, from, extent, all.data() + begin);
    }
    return all;
  }
  static nlohmann::ordered_json FooterOf(const File& file) {
    uint64_t size = 0;
    std::memcpy(&size, file.data() + file.size() - 24, sizeof(size));
    const char* const end = reinterpret_cast<const char*>(file.data()) + file.size() - 24;
    return nlohmann::ordered_json::parse(end - size, end);
  }
  // The file with another footer, whose size and checksum fit.
  static File WithFooter(const File& file, const nlohmann::ordered_json& footer) {
    uint64_t size = 0;
    std::memcpy(&size, file.data() + file.size() - 24, sizeof(size));
    File changed(file.begin(), file.end() - 24 - static_cast<ptrdiff_t>(size));
    const std::string text = footer.dump();
    const uint64_t numbers[2] = {text.size(), snapshot_format::Checksum(std::as_bytes(std::span(text)))};
    const auto append = [&changed](std::span<const std::byte> bytes) {
      changed.insert(changed.end(), bytes.begin(), bytes.end());
    };
    append(std::as_bytes(std::span(text)));
    append(std::as_bytes(std::span(numbers)));
    append(std::as_bytes(std::span(snapshot_format::kEndMagic)));
    return changed;
  }

  void ExpectPythonReads(const SnapshotFileOptions& options) {
    const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
    const File file = Written(*snapshot, options);
    const std::string path = absl::StrCat(::testing::TempDir(), "python.", getpid(), ".snapshot");
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(file.data()), static_cast<int64_t>(file.size()));
    const std::string command =
        absl::StrCat("/usr/bin/python3 " STATEHOUSE_SOURCE_DIR "/clients/python/snapshot.py ", path);
    FILE* const pipe = popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string output;
    for (char line[1024]; std::fgets(line, sizeof line, pipe) != nullptr;) output += line;
    EXPECT_EQ(pclose(pipe), 0);
    std::remove(path.c_str());
    EXPECT_THAT(output, HasSubstr("position 70, 2 layers, made on cpu"));
    const kernels::RetentionLayout& layout = model_->retention();
    const kernels::HeadExtent extent = kernels::ExtentOf(layout, snapshot->regions(), 70);
    const int64_t d = layout.shape().head_dim;
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'S': ([", layout.expanded(), ", ", d, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'K': ([", extent.num_rows, ", ", d, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'L': ([", extent.num_rows, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("state as ", StateEncodingName(options.encoding))));
    // It prints the sum of magnitudes of each array: that of the first head's keys.
    const auto loaded = Read(file, true);
    ASSERT_TRUE(loaded.ok());
    const std::vector<float> canonical = Canonical(*loaded->snapshot);
    const int64_t keys_from = extent.folded > 0 ? layout.expanded() * (d + 1) : 0;
    double sum = 0;
    for (int64_t idx = 0; idx < extent.num_rows * d; ++idx)
      sum += std::abs(canonical[static_cast<size_t>(keys_from + idx)]);
    const size_t at = output.find("'K': (");
    ASSERT_NE(at, std::string::npos);
    const double printed = std::strtod(output.c_str() + output.find("], ", at) + 3, nullptr);
    EXPECT_NEAR(printed, sum, 1e-4 * sum);
  }

  kernels::ThreadPool pool_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

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

TEST_F(SnapshotFileTest, PythonReader_FindsEveryArray) {
  if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0)
    GTEST_SKIP() << "no NumPy for /usr/bin/python3";
  Load("powercoder-tiny", 48);
  for (const SnapshotFileOptions& options : kAllOptions) ExpectPythonReads(options);
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
