// The moves of one snapshot, each beside what its tier can do with as many bytes.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/byte_buffer.h"
#include "engine/state/slot_pool.h"
#include "engine/state/snapshot_file.h"
#include "server/commands/bench.h"  // Median, SteadySeconds
#include "server/commands/bench_sessions.h"

namespace statehouse {
namespace {

// Everything in one slice: what the engine copies over several steps.
constexpr int64_t kAtOnce = int64_t{1} << 60;

class MoveBench {
 public:
  MoveBench(const Snapshot& snapshot, const SessionsBenchOptions& options, std::vector<MoveFigure>* figures)
      : snapshot_(snapshot), options_(options), figures_(figures) {}

  // Measures `once`, and `ideal`, which moves as many bytes as plainly as the tier allows, run by run in turn, since a
  // shared machine changes from second to second. `prepare` (may be empty) comes before each run and is not measured.
  absl::Status Add(const char* move, const std::string& tier, int64_t bytes, const std::function<absl::Status()>& once,
                   const std::function<absl::Status()>& ideal, const std::function<absl::Status()>& prepare = {}) {
    std::vector<double> seconds, ideals;
    const double start = SteadySeconds();
    while (static_cast<int64_t>(seconds.size()) <= options_.min_runs ||
           SteadySeconds() - start < options_.max_seconds) {
      for (const bool is_ideal : {false, true}) {
        if (absl::Status status = prepare ? prepare() : absl::OkStatus(); !status.ok()) return status;
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

// A slot to memory, memory to a slot, a slot to another: what the engine thread does in slices between steps. Where
// slots are on a device, the ceiling is one move of as many bytes in one piece.
class SlotMoves {
 public:
  SlotMoves(const Snapshot& snapshot, SnapshotMemory* memory) : snapshot_(snapshot), memory_(memory) {}

  absl::Status Open(Model* model) {
    auto pool = SlotPool::Create(snapshot_.shape(), 2, model);
    if (!pool.ok()) return pool.status();
    pool_ = *std::move(pool);
    first_ = pool_->Take(), second_ = pool_->Take();
    on_device_ = model->device() != "cpu";
    if (on_device_) {
      auto plain = model->AllocateSlots(snapshot_.shape().bytes(), 2);
      if (!plain.ok()) return plain.status();
      plain_ = *std::move(plain);
    }
    // The ceiling is the link's, whatever the snapshot lies in.
    const int64_t plain_bytes = on_device_ ? snapshot_.shape().bytes() : bytes();
    if (!TakeBuffer(bytes(), &buffer_) || !TakeBuffer(bytes(), &other_) || !TakeBuffer(plain_bytes, &ceiling_)) {
      return absl::ResourceExhaustedError(absl::StrCat("bench: too little memory for buffers of ", bytes(), " bytes"));
    }
    std::memcpy(buffer_.as<float>(), snapshot_.regions(), static_cast<size_t>(bytes()));
    return absl::OkStatus();
  }
  int64_t bytes() const { return floats() * static_cast<int64_t>(sizeof(float)); }

  absl::Status Restore() {
    int64_t progress = 0;
    pool_->RestoreSlice(buffer_.as<float>(), snapshot_.point().used_floats, first_, kAtOnce, &progress);
    return pool_->status();
  }
  absl::Status Save() {
    int64_t progress = 0;
    pool_->SaveSlice(first_, other_.as<float>(), kAtOnce, &progress);
    return pool_->status();
  }
  absl::Status Fork() {
    int64_t progress = 0;
    pool_->CopySlice(first_, second_, snapshot_.position(), kAtOnce, &progress);
    int64_t after = 0;
    float ignored = 0;
    if (on_device_) pool_->SaveSlice(second_, &ignored, sizeof(ignored), &after);  // waits for the copy
    return pool_->status();
  }
  bool IsSame() const {
    return std::memcmp(other_.as<float>(), snapshot_.regions(), static_cast<size_t>(bytes())) == 0;
  }

  absl::Status PlainIn() {
    if (!on_device_) return PlainCopy();
    plain_->Write(ceiling_.as<float>(), plain_->slot(0), floats());
    return plain_->status();
  }
  absl::Status PlainOut() {
    if (!on_device_) return PlainCopy();
    plain_->Read(plain_->slot(0), ceiling_.as<float>(), floats());
    return plain_->status();
  }
  absl::Status PlainFork() {
    if (!on_device_) return PlainCopy();
    plain_->Copy(plain_->slot(0), plain_->slot(1), floats());
    float ignored = 0;
    plain_->Read(plain_->slot(1), &ignored, 1);  // waits for the copy
    return plain_->status();
  }

 private:
  int64_t floats() const { return snapshot_.num_region_floats(); }
  bool TakeBuffer(int64_t bytes, SnapshotBuffer* buffer) {
    *buffer = SnapshotMemory::TakeFrom(memory_, bytes, SnapshotMemory::Contents::kUndefined);
    return !buffer->empty();
  }
  absl::Status PlainCopy() {
    std::memcpy(ceiling_.as<float>(), buffer_.as<float>(), static_cast<size_t>(bytes()));
    return absl::OkStatus();
  }

  const Snapshot& snapshot_;
  SnapshotMemory* const memory_;
  bool on_device_ = false;
  std::unique_ptr<SlotPool> pool_;
  std::unique_ptr<SlotMemory> plain_;  // on a device
  int32_t first_ = 0, second_ = 0;
  SnapshotBuffer buffer_, other_, ceiling_;
};

absl::Status MeasureSlots(Model* model, SnapshotMemory* memory, const Snapshot& snapshot, MoveBench* bench) {
  SlotMoves moves(snapshot, memory);
  if (absl::Status status = moves.Open(model); !status.ok()) return status;
  absl::Status status = bench->Add(
      "restore", "slot", moves.bytes(), [&] { return moves.Restore(); }, [&] { return moves.PlainIn(); });
  if (!status.ok()) return status;
  status = bench->Add(
      "save", "slot", moves.bytes(), [&] { return moves.Save(); }, [&] { return moves.PlainOut(); });
  if (!status.ok()) return status;
  if (status = moves.Save(); !status.ok()) return status;
  if (!moves.IsSame()) return NotTheSame("slot");
  return bench->Add(
      "fork", "slot", moves.bytes(), [&] { return moves.Fork(); }, [&] { return moves.PlainFork(); });
}

// As many bytes in memory that is taken for them, as every move takes it that ends in a new snapshot or file.
absl::Status CopyIntoNewMemory(std::span<const std::byte> bytes) {
  ByteBuffer copy;
  return copy.Append(bytes) ? absl::OkStatus() : absl::ResourceExhaustedError("bench: too little memory for a copy");
}

// To the bytes of a file and back, in memory.
absl::Status MeasureFormat(SnapshotMemory* memory, const Snapshot& snapshot, const Fingerprint& fingerprint,
                           MoveBench* bench, ByteBuffer* file) {
  const auto write = [&] {
    *file = ByteBuffer();
    return WriteSnapshotInto(snapshot, fingerprint, file);
  };
  if (absl::Status status = write(); !status.ok()) return status;
  const int64_t bytes = file->size();
  const auto copy = [&] { return CopyIntoNewMemory(file->bytes()); };
  if (absl::Status status = bench->Add("export", "host", bytes, write, copy); !status.ok()) return status;
  std::shared_ptr<const Snapshot> back;
  const auto read = [&]() -> absl::Status {
    back = nullptr;
    auto loaded = ReadSnapshot(file->bytes(), "bench", fingerprint, snapshot.shape(), false, memory);
    if (loaded.ok()) back = loaded->snapshot;
    return loaded.status();
  };
  if (absl::Status status = bench->Add("import", "host", bytes, read, copy); !status.ok()) return status;
  ByteBuffer again;
  if (absl::Status status = WriteSnapshotInto(*back, fingerprint, &again); !status.ok()) return status;
  return std::ranges::equal(again.bytes(), file->bytes()) ? absl::OkStatus() : NotTheSame("host");
}

// The next read finds nothing of the file in memory.
absl::Status DropFromPageCache(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return absl::InternalError(absl::StrCat(path, ": ", std::strerror(errno)));
  const int error = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  close(descriptor);
  return error == 0 ? absl::OkStatus() : absl::InternalError(absl::StrCat(path, ": ", std::strerror(error)));
}

// Into a store, synced, and back. The ceiling is the same store with bytes that are ready, or read in one piece into
// memory that is taken for them. `folder` is where the store's files lie; empty: not known.
absl::Status MeasureStore(SnapshotMemory* memory, const Snapshot& snapshot, const Fingerprint& fingerprint,
                          BlobStore* store, const std::string& folder, std::span<const std::byte> file,
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
    const auto stored = store->Open(key);
    if (!stored.ok()) return stored.status();
    return ReadSnapshot(**stored, key, fingerprint, snapshot.shape(), false, memory).status();
  };
  const auto read_plain = [&]() -> absl::Status {
    auto stored = store->Open(plain_key);
    if (!stored.ok()) return stored.status();
    return ReadIntoMemory(*std::move(stored)).status();
  };
  const std::string& tier = store->name();
  if (absl::Status status = bench->Add("write", tier, bytes, write, write_plain); !status.ok()) return status;
  if (!folder.empty()) {
    const auto drop = [&] {
      const absl::Status status = DropFromPageCache(absl::StrCat(folder, "/", key));
      return status.ok() ? DropFromPageCache(absl::StrCat(folder, "/", plain_key)) : status;
    };
    if (absl::Status status = bench->Add("read", tier, bytes, read, read_plain, drop); !status.ok()) return status;
  }
  if (absl::Status status = bench->Add("reread", tier, bytes, read, read_plain); !status.ok()) return status;
  return store->Remove(plain_key);
}

}  // namespace

std::string BenchKey(int64_t context) { return absl::StrCat("bench/", context); }

absl::Status MeasureMoves(Model* model, SnapshotMemory* memory, const Snapshot& snapshot,
                          const Fingerprint& fingerprint, const SessionsBenchOptions& options,
                          const BenchStores& stores, std::vector<MoveFigure>* figures) {
  MoveBench bench(snapshot, options, figures);
  if (absl::Status status = MeasureSlots(model, memory, snapshot, &bench); !status.ok()) return status;
  ByteBuffer file;
  if (absl::Status status = MeasureFormat(memory, snapshot, fingerprint, &bench, &file); !status.ok()) return status;
  for (const auto& [store, folder] :
       {std::pair{stores.disk, stores.disk_folder}, std::pair{stores.store, stores.store_folder}}) {
    if (store == nullptr) continue;
    if (absl::Status status = MeasureStore(memory, snapshot, fingerprint, store, folder, file.bytes(), &bench);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace statehouse
