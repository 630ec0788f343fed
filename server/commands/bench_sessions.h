// `statehouse bench sessions`: what it costs to keep a sequence and to go on from it, beside what the machine could at
// best.
//
// Moves of a snapshot by tier against context length, each beside the bandwidth measured for as many bytes of the same
// tier in the same run; the first token of a restored context against prefilling it; two workloads of prompts that
// begin alike, with and without the prefix cache; memory by purpose. Drives an engine step by step in the caller's
// thread. Thread-safety: one run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/state/blob_store.h"
#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"
#include "models/model.h"

namespace statehouse {

struct SessionsBenchOptions {
  std::vector<int64_t> contexts = {1024, 4096, 16384, 102400};  // tokens, ascending
  int64_t step_tokens = 512;                                    // rows of a prompt step
  int64_t min_runs = 20;                                        // of each figure
  double max_seconds = 2;                                       // for each figure, once it has min_runs
  int64_t requests = 120;                                       // of each workload; 0: leave them out
  int64_t cache_states = 16;                                    // memory of the prefix cache, in slots
  // States hold numbers that nobody computed: moves only, at any context.
  bool made_up_states = false;
};

// INVALID_ARGUMENT names flag, value and what is allowed.
absl::Status Validate(const SessionsBenchOptions& options);

// One way that a snapshot goes. Seconds.
struct MoveFigure {
  // "save", "restore", "fork", "export", "import", "write", "read" (nothing of it in the page cache), "reread" (all)
  std::string move;
  std::string tier;  // what it goes to or comes from: "slot" (on a GPU: in its memory), "host", "disk", "store"
  int64_t context = 0;
  int64_t bytes = 0;
  int64_t runs = 0;
  double median = 0, min = 0;
  double ceiling = 0;  // bytes per second of that tier, for as many bytes
  double rate() const { return median > 0 ? static_cast<double>(bytes) / median : 0; }
  double share() const { return ceiling > 0 ? rate() / ceiling : 0; }
};

// From submission to the first token.
struct FirstTokenFigure {
  int64_t context = 0;
  double prefill = 0;  // all of it computed
  double host = 0;     // restored from memory, median
  double disk = 0;     // read from the disk first, median; 0: not measured
};

struct WorkloadFigure {
  std::string name;    // "shared prefixes", "conversations"
  std::string policy;  // "no cache", "least recently used", "prefix cache"
  int64_t requests = 0, prompt_tokens = 0, cached_tokens = 0;
  double first_token_p50 = 0, first_token_p95 = 0;
  double hit_rate() const {
    return prompt_tokens > 0 ? static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens) : 0;
  }
};

struct PurposeFigure {
  std::string purpose;
  int64_t bytes = 0;
};

struct SessionsBenchReport {
  std::string model, dtype, device;
  int64_t switch_over = 0;  // tokens; -1: never
  int64_t slot_bytes = 0;
  bool made_up_states = false;
  std::string why_ordinary;  // why less memory than wanted could be page-locked for the moves; empty: all of it was
  std::vector<MoveFigure> moves;
  std::vector<FirstTokenFigure> first_tokens;
  std::vector<WorkloadFigure> workloads;
  std::vector<PurposeFigure> memory;
};

// Where snapshots are written to and read from. Neither is owned; null: left out.
struct BenchStores {
  BlobStore* disk = nullptr;
  BlobStore* store = nullptr;
  // Where their files lie, so that they can be dropped from the page cache; empty: "read" is left out.
  std::string disk_folder = {};
  std::string store_folder = {};
};

struct SessionsBenchObserver {
  std::function<void(const char* what, int64_t done, int64_t total)> on_progress;  // may be empty
};

absl::StatusOr<SessionsBenchReport> RunSessionsBench(Model* model, uint64_t tokenizer_fingerprint,
                                                     const SessionsBenchOptions& options, const BenchStores& stores,
                                                     const SessionsBenchObserver& observer);

// --- its parts ---
// Moves of one snapshot, between the model's slots, `memory` (null: ordinary memory) and what lies below. What comes
// back is compared with it: INTERNAL if it is not the same.
absl::Status MeasureMoves(Model* model, SnapshotMemory* memory, const Snapshot& snapshot,
                          const Fingerprint& fingerprint, const SessionsBenchOptions& options,
                          const BenchStores& stores, std::vector<MoveFigure>* figures);
absl::StatusOr<std::vector<WorkloadFigure>> MeasureWorkloads(Model* model, const SessionsBenchOptions& options,
                                                             const SessionsBenchObserver& observer);
// The name under which a snapshot of this context lies in a store during the run.
std::string BenchKey(int64_t context);

std::string SessionsBenchText(const SessionsBenchReport& report);
std::string SessionsBenchJson(const SessionsBenchReport& report, const SessionsBenchOptions& options);
// Moves and first tokens against context, and the workloads' hit rates, as SVG.
std::string SessionsBenchPlot(const SessionsBenchReport& report);

}  // namespace statehouse
