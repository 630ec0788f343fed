// What tests of snapshot files share: a model, its snapshots, and their files in memory.
#ifndef STATEHOUSE_TESTS_ENGINE_SNAPSHOT_FILE_FIXTURE_H_
#define STATEHOUSE_TESTS_ENGINE_SNAPSHOT_FILE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_format.h"
#include "kernels/parallel/thread_pool.h"
#include "kernels/power_retention/canonical.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"

namespace statehouse::testing {

inline constexpr int32_t kVocab = 300;
using File = std::vector<std::byte>;
inline const SnapshotFileOptions kAllOptions[] = {
    {}, {.zstd_level = 3}, {.encoding = StateEncoding::kBf16}, {.encoding = StateEncoding::kInt8, .zstd_level = 3}};

// A small model on an engine of its own, snapshots of it, and files of those.
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

  kernels::ThreadPool pool_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace statehouse::testing

#endif  // STATEHOUSE_TESTS_ENGINE_SNAPSHOT_FILE_FIXTURE_H_
