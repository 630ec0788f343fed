// The moves of one snapshot, each beside what its tier can do with as many bytes.
#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_file.h"
#include "server/commands/bench.h"  // Median, SteadySeconds
#include "server/commands/bench_sessions.h"

namespace statehouse {
namespace {

using Bytes = std::vector<std::byte>;

// Everything in one slice: what the engine copies over several steps.
constexpr int64_t kAtOnce = int64_t{1} << 60;

class MoveBench {
 public:
  MoveBench(const Snapshot& snapshot, const SessionsBenchOptions& options, std::vector<MoveFigure>* figures)
      : snapshot_(snapshot), options_(options), figures_(figures) {}

  // Measures `once`, and `ideal`, which moves as many bytes as plainly as the tier allows, run by run in turn, since a
  // shared machine changes from second to second.
  absl::Status Add(const char* move, const std::string& tier, int64_t bytes, const std::function<absl::Status()>& once,
                   const std::function<absl::Status()>& ideal) {
    std::vector<double> seconds, ideals;
    const double start = SteadySeconds();
    while (static_cast<int64_t>(seconds.size()) <= options_.min_runs ||
           SteadySeconds() - start < options_.max_seconds) {
      for (const bool is_ideal : {false, true}) {
        const double before = SteadySeconds();
        if (absl::Status status = is_ideal ? ideal() : once(); !status.ok()) return status;
        (is_ideal ? ideals : seconds).push_back(SteadySeconds() - before);
      }
    }
    // The first run of each finds everything cold.
    seconds.erase(seconds.begin());
    ideals.erase(ideals.begin());
    MoveFigure figure = {.move = move, .tier = tier, .context = snapshot_.position(), .bytes = bytes};
    figure.runs = static_cast<int64_t>(seconds.size());
    figure.min = *std::min_element(seconds.begin(), seconds.end());
    figure.median = Median(std::move(seconds));
    figure.ceiling = static_cast<double>(bytes) / Median(std::move(ideals));
    figures_->push_back(std::move(figure));
    return absl::OkStatus();
  }

 private:
  const Snapshot& snapshot_;
  const SessionsBenchOptions& options_;
  std::vector<MoveFigure>* const figures_;
};

absl::Status NotTheSame(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": what came back is not what was saved; these figures mean nothing"));
}

// A slot to memory, memory to a slot, a slot to another: what the engine thread does in slices between steps.
absl::Status MeasureSlots(const Snapshot& snapshot, MoveBench* bench) {
  auto pool = SlotPool::Create(snapshot.shape(), 2);
  if (!pool.ok()) return pool.status();
  SlotPool& slots = **pool;
  const int64_t used = snapshot.point().used_floats;
  const int64_t bytes = snapshot.num_region_floats() * static_cast<int64_t>(sizeof(float));
  kernels::AlignedBuffer buffer, other;
  if (!buffer.Allocate(bytes) || !other.Allocate(bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("bench: too little memory for two buffers of ", bytes, " bytes"));
  }
  const int32_t first = slots.Take(), second = slots.Take();
  const auto copy = [&] {
    std::memcpy(other.data(), buffer.data(), static_cast<size_t>(bytes));
    return absl::OkStatus();
  };
  const auto restore = [&] {
    int64_t progress = 0;
    slots.RestoreSlice(snapshot.regions(), used, first, kAtOnce, &progress);
    return absl::OkStatus();
  };
  const auto save = [&] {
    int64_t progress = 0;
    slots.SaveSlice(first, buffer.as<float>(), kAtOnce, &progress);
    return absl::OkStatus();
  };
  const auto fork = [&] {
    int64_t progress = 0;
    slots.CopySlice(first, second, snapshot.position(), kAtOnce, &progress);
    return absl::OkStatus();
  };
  if (absl::Status status = bench->Add("restore", "slot", bytes, restore, copy); !status.ok()) return status;
  if (absl::Status status = bench->Add("save", "slot", bytes, save, copy); !status.ok()) return status;
  if (std::memcmp(buffer.data(), snapshot.regions(), static_cast<size_t>(bytes)) != 0) return NotTheSame("slot");
  return bench->Add("fork", "slot", bytes, fork, copy);
}

absl::Status WriteInto(const Snapshot& snapshot, const Fingerprint& fingerprint, Bytes* file) {
  file->clear();
  return WriteSnapshot(snapshot, fingerprint, [file](std::span<const std::byte> bytes) {
    file->insert(file->end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  });
}

// To the bytes of a file and back, in memory.
absl::Status MeasureFormat(const Snapshot& snapshot, const Fingerprint& fingerprint, MoveBench* bench, Bytes* file) {
  const auto write = [&] { return WriteInto(snapshot, fingerprint, file); };
  if (absl::Status status = write(); !status.ok()) return status;
  Bytes other(file->size());
  const auto copy = [&] {
    std::memcpy(other.data(), file->data(), other.size());
    return absl::OkStatus();
  };
  const int64_t bytes = static_cast<int64_t>(file->size());
  if (absl::Status status = bench->Add("export", "host", bytes, write, copy); !status.ok()) return status;
  std::shared_ptr<const Snapshot> back;
  const auto read = [&]() -> absl::Status {
    auto loaded = ReadSnapshot(*file, "bench", fingerprint, snapshot.shape(), false);
    if (loaded.ok()) back = loaded->snapshot;
    return loaded.status();
  };
  if (absl::Status status = bench->Add("import", "host", bytes, read, copy); !status.ok()) return status;
  if (absl::Status status = WriteInto(*back, fingerprint, &other); !status.ok()) return status;
  return other == *file ? absl::OkStatus() : NotTheSame("host");
}

// Into a store, synced, and back. The ceiling is the same store with bytes that are ready.
absl::Status MeasureStore(const Snapshot& snapshot, const Fingerprint& fingerprint, BlobStore* store, const Bytes& file,
                          MoveBench* bench) {
  const std::string key = BenchKey(snapshot.position());
  const std::string plain_key = key + ".plain";
  const int64_t bytes = static_cast<int64_t>(file.size());
  const auto put = [&](const std::string& at, const auto& write) { return store->Put(at, write); };
  const auto write = [&] {
    return put(key, [&](const ByteSink& sink) { return WriteSnapshot(snapshot, fingerprint, sink); });
  };
  const auto write_plain = [&] { return put(plain_key, [&](const ByteSink& sink) { return sink(file); }); };
  const auto read = [&]() -> absl::Status {
    auto stored = store->Get(key);
    if (!stored.ok()) return stored.status();
    return ReadSnapshot(*stored, key, fingerprint, snapshot.shape(), false).status();
  };
  const auto read_plain = [&] { return store->Get(plain_key).status(); };
  if (absl::Status status = bench->Add("write", store->name(), bytes, write, write_plain); !status.ok()) return status;
  if (absl::Status status = bench->Add("read", store->name(), bytes, read, read_plain); !status.ok()) return status;
  return store->Remove(plain_key);
}

}  // namespace

std::string BenchKey(int64_t context) { return absl::StrCat("bench/", context); }

absl::Status MeasureMoves(const Snapshot& snapshot, const Fingerprint& fingerprint, const SessionsBenchOptions& options,
                          const BenchStores& stores, std::vector<MoveFigure>* figures) {
  MoveBench bench(snapshot, options, figures);
  if (absl::Status status = MeasureSlots(snapshot, &bench); !status.ok()) return status;
  Bytes file;
  if (absl::Status status = MeasureFormat(snapshot, fingerprint, &bench, &file); !status.ok()) return status;
  for (BlobStore* store : {stores.disk, stores.store}) {
    if (store == nullptr) continue;
    if (absl::Status status = MeasureStore(snapshot, fingerprint, store, file, &bench); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace statehouse
