// Snapshot files on a real model: out, in and on with the same bits; damaged and foreign ones never load.
#include "engine/state/snapshot_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/canonical.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 300;
using File = std::vector<std::byte>;

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
  File Written(const Snapshot& snapshot) {
    File file;
    const absl::Status status = WriteSnapshot(snapshot, fingerprint(), [&file](std::span<const std::byte> bytes) {
      file.insert(file.end(), bytes.begin(), bytes.end());
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return file;
  }
  absl::StatusOr<LoadedSnapshot> Read(const File& file) {
    return ReadSnapshot(file, "test.snapshot", fingerprint(), shape(), false);
  }

  kernels::ThreadPool pool_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

bool SameBits(const ReadStream& a, const ReadStream& b) {
  const ReadOutput& left = a.outputs.at(0);
  const ReadOutput& right = b.outputs.at(0);
  return left.tokens == right.tokens && left.logprobs.size() == right.logprobs.size() &&
         std::memcmp(left.logprobs.data(), right.logprobs.data(), left.logprobs.size() * sizeof(float)) == 0;
}

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
  const File whole = Written(*SnapshotAt(MakePrompt(70, 3, kVocab), 70));
  ASSERT_TRUE(Read(whole).ok());
  int64_t used = 0;
  for (size_t at = 0; at < whole.size(); at += at < 1024 || at + 4096 > whole.size() ? 1 : 37) {
    File damaged = whole;
    damaged[at] ^= std::byte{1} << (at % 8);
    const auto loaded = Read(damaged);
    if (loaded.ok()) {
      // Only the zeros between sections carry nothing.
      ASSERT_EQ(whole[at], std::byte{0}) << "byte " << at;
      ASSERT_EQ(std::memcmp(loaded->snapshot->regions(), Read(whole)->snapshot->regions(),
                            static_cast<size_t>(loaded->snapshot->num_region_floats()) * sizeof(float)),
                0);
      continue;
    }
    ++used;
    ASSERT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss) << "byte " << at << ": " << loaded.status();
  }
  EXPECT_GT(used, 1000);
}

TEST_F(SnapshotFileTest, FileCutOffAnywhere_IsDamaged) {
  Load("powercoder-tiny", 48);
  const File whole = Written(*SnapshotAt(MakePrompt(70, 3, kVocab), 70));
  for (size_t size = 0; size < whole.size(); size += size < 200 ? 1 : 211) {
    const auto loaded = Read(File(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)));
    ASSERT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss) << size;
  }
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
  const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
  const File file = Written(*snapshot);
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
