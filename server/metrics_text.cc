#include "server/metrics_text.h"

#include "absl/strings/str_cat.h"
#include "engine/state/host_memory.h"
#include "server/metrics_writer.h"

namespace statehouse {
namespace {

double Load(const std::atomic<int64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

// Meanings as in vLLM; a slot is what a sequence's blocks are there.
void AddVllmNow(const EngineStatus& now, MetricsWriter* out) {
  out->Gauge("vllm:num_requests_running", "Requests that hold a slot.", static_cast<double>(now.requests_running));
  out->Gauge("vllm:num_requests_waiting", "Requests that wait for a slot.", static_cast<double>(now.requests_queued));
  const int64_t taken = now.slots_used + now.slots_zeroing;
  out->Gauge("vllm:kv_cache_usage_perc",
             "Slots in use, 0 to 1. There is no KV cache: a slot is a sequence's whole memory.",
             now.slots_total == 0 ? 0.0 : static_cast<double>(taken) / static_cast<double>(now.slots_total));
  out->Gauge("vllm:engine_healthy", "1 unless a step has failed.", now.healthy ? 1 : 0);
  out->Counter("vllm:num_preemptions_total", "Always 0: a running sequence is never pushed out.", 0);
}

void AddVllmCounters(const ServerMetrics& metrics, const ServedModel& model, MetricsWriter* out) {
  const EngineStats& stats = model.engine->stats();
  out->Counter("vllm:prompt_tokens_total", "Prompt tokens of admitted requests.", Load(metrics.prompt_tokens));
  out->Counter("vllm:generation_tokens_total", "Tokens generated and passed on.", Load(metrics.generation_tokens));
  out->Family("vllm:iteration_tokens_total", "Rows of a step, of prompts and of outputs.", "histogram");
  out->Sample("vllm:iteration_tokens_total", "", stats.step_tokens);
  out->Family("vllm:request_success_total", "Outputs that ended, by reason.", "counter");
  const auto finished = [&](FinishReason reason) {
    const size_t idx = static_cast<size_t>(reason);
    return Load(stats.finished[idx]) - static_cast<double>(model.warm_up_outputs[idx]);
  };
  out->Sample("vllm:request_success_total", "finished_reason=\"stop\"", finished(FinishReason::kStop));
  out->Sample("vllm:request_success_total", "finished_reason=\"length\"", finished(FinishReason::kLength));
  out->Sample("vllm:request_success_total", "finished_reason=\"abort\"",
              finished(FinishReason::kCancelled) + finished(FinishReason::kDeadline));
  out->Sample("vllm:request_success_total", "finished_reason=\"error\"", finished(FinishReason::kError));
}

void AddVllmHistograms(const ServerMetrics& metrics, MetricsWriter* out) {
  out->Add("vllm:time_to_first_token_seconds", "Submission to the first token.", metrics.time_to_first_token);
  out->Add("vllm:inter_token_latency_seconds", "Time between tokens of an output, as passed on.",
           metrics.inter_token_latency);
  out->Add("vllm:request_time_per_output_token_seconds", "Mean time per token after the first, by output.",
           metrics.time_per_output_token);
  out->Add("vllm:e2e_request_latency_seconds", "Submission to the end.", metrics.e2e_latency);
  out->Add("vllm:request_queue_time_seconds", "Submission to admission.", metrics.queue_time);
  out->Add("vllm:request_prefill_time_seconds", "Admission to the first token.", metrics.prefill_time);
  out->Add("vllm:request_decode_time_seconds", "First token to the end.", metrics.decode_time);
  out->Add("vllm:request_inference_time_seconds", "Admission to the end.", metrics.inference_time);
  out->Add("vllm:request_prompt_tokens", "Prompt tokens by request.", metrics.request_prompt_tokens);
  out->Add("vllm:request_generation_tokens", "Generated tokens by request.", metrics.request_generation_tokens);
}

void AddEngine(const EngineStatus& now, const EngineStats& stats, MetricsWriter* out) {
  out->Gauge("statehouse_slots_total", "Sequences that can run at once, whatever their length.",
             static_cast<double>(now.slots_total));
  out->Gauge("statehouse_slots_used", "Slots held by running sequences.", static_cast<double>(now.slots_used));
  out->Gauge("statehouse_slots_zeroing", "Slots freed and not yet zeroed.", static_cast<double>(now.slots_zeroing));
  out->Gauge("statehouse_slot_bytes", "Memory of one sequence.", static_cast<double>(now.slot_bytes));
  out->Gauge("statehouse_state_bytes", "Memory of all slots.", static_cast<double>(now.state_bytes));
  out->Gauge("statehouse_weight_bytes", "Memory of the weights.", static_cast<double>(now.weight_bytes));
  out->Gauge("statehouse_workspace_bytes", "Memory of step buffers.", static_cast<double>(now.workspace_bytes));
  out->Gauge("statehouse_queued_tokens", "Prompt tokens that wait for a slot.", static_cast<double>(now.tokens_queued));
  out->Gauge("statehouse_accepting", "1 unless draining.", now.accepting ? 1 : 0);
  out->Counter("statehouse_steps_total", "Forward passes.", Load(stats.steps));
  out->Counter("statehouse_folds_total", "Chunks folded into states.", Load(stats.folds));
  out->Counter("statehouse_switch_overs_total", "Sequences whose rows became a state.", Load(stats.switch_overs));
  out->Counter("statehouse_forks_total", "Sequences forked from a prompt.", Load(stats.forks));
  out->Counter("statehouse_slow_reader_pauses_total", "Times a sequence paused because its events were not read.",
               Load(stats.slow_reader_pauses));
  out->Family("statehouse_rejected_total", "Requests refused for overload, by reason.", "counter");
  out->Sample("statehouse_rejected_total", "reason=\"queue_full\"", Load(stats.rejected_queue_full));
  out->Sample("statehouse_rejected_total", "reason=\"principal_limit\"", Load(stats.rejected_principal_limit));
  out->Family("statehouse_tokens_total", "Rows computed, by phase.", "counter");
  out->Sample("statehouse_tokens_total", "phase=\"prefill\"", Load(stats.prefill_tokens));
  out->Sample("statehouse_tokens_total", "phase=\"decode\"", Load(stats.decode_tokens));
  out->Family("statehouse_step_seconds", "Time of a step, by what its rows were.", "histogram");
  out->Sample("statehouse_step_seconds", "phase=\"decode\"", stats.step_decode_seconds);
  out->Sample("statehouse_step_seconds", "phase=\"prefill\"", stats.step_prefill_seconds);
  out->Sample("statehouse_step_seconds", "phase=\"mixed\"", stats.step_mixed_seconds);
}

void AddSessions(const ServerMetrics& metrics, const ServedModel& model, MetricsWriter* out) {
  const SessionTotals totals = model.sessions->totals();
  out->Family("statehouse_sessions", "Sessions in memory, in a turn, found damaged.", "gauge");
  out->Sample("statehouse_sessions", "state=\"open\"", static_cast<double>(totals.open));
  out->Sample("statehouse_sessions", "state=\"busy\"", static_cast<double>(totals.busy));
  out->Sample("statehouse_sessions", "state=\"damaged\"", static_cast<double>(totals.damaged));
  out->Family("statehouse_session_upkeep_failures_total",
              "What failed beside turns, and is tried again: writing behind, leases, entries, ends of lives.",
              "counter");
  out->Sample("statehouse_session_upkeep_failures_total", "", static_cast<double>(totals.upkeep_failures));
  out->Family("statehouse_turns_total", "Turns of sessions that ended, by what became of them.", "counter");
  out->Sample("statehouse_turns_total", "outcome=\"committed\"", Load(metrics.turns_committed));
  out->Sample("statehouse_turns_total", "outcome=\"repeated\"", Load(metrics.turns_repeated));
  out->Sample("statehouse_turns_total", "outcome=\"dropped\"", Load(metrics.turns_dropped));
  out->Add("statehouse_turn_settling_seconds", "From a turn's last token to its acknowledgement.",
           metrics.turn_settling);
  if (model.vault == nullptr) return;
  const auto tiers = model.vault->totals();
  const auto add = [&](const char* name, const char* help, const char* type, const auto& value) {
    out->Family(name, help, type);
    for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kStore}) {
      out->Sample(name, absl::StrCat("tier=\"", TierName(tier), "\""),
                  static_cast<double>(value(tiers[static_cast<size_t>(tier)])));
    }
  };
  add("statehouse_snapshots", "Snapshots that a tier holds.", "gauge", [](const auto& tier) { return tier.snapshots; });
  add("statehouse_snapshot_bytes", "Bytes of them.", "gauge", [](const auto& tier) { return tier.bytes; });
  add("statehouse_snapshot_hits_total", "Snapshots fetched from a tier.", "counter",
      [](const auto& tier) { return tier.hits; });
  add("statehouse_snapshot_errors_total", "Attempts at a tier that failed.", "counter",
      [](const auto& tier) { return tier.errors; });
  add("statehouse_snapshot_tier_available", "0 while a tier is left alone.", "gauge",
      [](const auto& tier) { return tier.available ? 1 : 0; });
}

// The first two are vLLM's: tokens of prompts that were looked up, and of those that were found.
void AddPrefixes(const PrefixCache& cache, MetricsWriter* out) {
  const PrefixCache::Totals totals = cache.totals();
  out->Counter("vllm:prefix_cache_queries_total", "Prompt tokens that were looked up.",
               static_cast<double>(totals.queried_tokens));
  out->Counter("vllm:prefix_cache_hits_total", "Prompt tokens that were restored instead of computed.",
               static_cast<double>(totals.cached_tokens));
  out->Family("statehouse_prefix_cache_hits_total", "Requests that restored a prefix, by where it was.", "counter");
  for (const Tier tier : {Tier::kDevice, Tier::kHost, Tier::kDisk, Tier::kStore}) {
    out->Sample("statehouse_prefix_cache_hits_total", absl::StrCat("tier=\"", TierName(tier), "\""),
                static_cast<double>(totals.hits[static_cast<size_t>(tier)]));
  }
  out->Family("statehouse_prefix_cache_misses_total",
              "Requests by why no more of their prompt was restored; \"none\": all of it was.", "counter");
  for (int reason = 0; reason < kNumMissReasons; ++reason) {
    out->Sample("statehouse_prefix_cache_misses_total",
                absl::StrCat("reason=\"", MissReasonName(static_cast<MissReason>(reason)), "\""),
                static_cast<double>(totals.misses[static_cast<size_t>(reason)]));
  }
  out->Counter("statehouse_prefix_cache_evictions_total", "Snapshots that had to make room.",
               static_cast<double>(totals.kept.evictions));
  out->Counter("statehouse_prefix_cache_not_taken_total", "Snapshots that were not taken for want of memory.",
               static_cast<double>(totals.not_taken));
  out->Gauge("statehouse_prefix_cache_snapshots", "Snapshots that are kept.",
             static_cast<double>(totals.kept.snapshots));
  out->Gauge("statehouse_prefix_cache_bytes", "Memory of snapshots that are kept.",
             static_cast<double>(totals.kept.bytes));
  out->Gauge("statehouse_prefix_cache_taking_bytes", "Memory set aside for snapshots that are being taken.",
             static_cast<double>(totals.taking_bytes));
  out->Gauge("statehouse_prefix_cache_limit_bytes", "--prefix-cache-memory.",
             static_cast<double>(cache.memory_bytes()));
  out->Gauge("statehouse_prefix_cache_spilled_snapshots", "Snapshots that left memory for the disk.",
             static_cast<double>(totals.kept.spilled));
  out->Gauge("statehouse_prefix_cache_spilled_bytes", "Their size, as in memory; on disk they take less.",
             static_cast<double>(totals.kept.spilled_bytes));
  out->Gauge("statehouse_prefix_cache_spilled_limit_bytes", "The most that it may be.",
             static_cast<double>(cache.disk_bytes()));
}

void AddSnapshotMemory(const SnapshotMemory& memory, MetricsWriter* out) {
  const SnapshotMemory::Totals totals = memory.totals();
  out->Gauge("statehouse_snapshot_page_locked_bytes", "Page-locked memory for snapshots.",
             static_cast<double>(totals.locked_bytes));
  out->Gauge("statehouse_snapshot_page_locked_free_bytes", "Of it, what no snapshot uses now.",
             static_cast<double>(totals.free_bytes));
  out->Counter("statehouse_snapshot_page_locked_misses_total",
               "Drafts and loads of long snapshots that found none free, and move more slowly.",
               static_cast<double>(totals.no_block));
}

}  // namespace

std::string MetricsText(const ServerMetrics& metrics, const ServedModel* model) {
  // Of the process, which is there before the model: the same labels all the time.
  MetricsWriter process("");
  process.Gauge("statehouse_ready", "1 once the model is loaded.", model == nullptr ? 0 : 1);
  process.Gauge("statehouse_live_calls", "Generate and GenerateOnce calls in progress.", Load(metrics.live_calls));
  process.Gauge("process_resident_memory_bytes", "Resident memory of the process.",
                static_cast<double>(ResidentBytes()));
  process.Family("statehouse_calls_total", "Calls that ended, by method and status.", "counter");
  for (const auto& [key, count] : metrics.calls()) {
    process.Sample("statehouse_calls_total", absl::StrCat("method=\"", key.first, "\",status=\"", key.second, "\""),
                   static_cast<double>(count));
  }
  if (model == nullptr) return process.text();
  MetricsWriter out(absl::StrCat("model_name=\"", MetricsWriter::Escape(model->name), "\",engine=\"0\""));
  const EngineStatus now = model->engine->GetStatus();
  AddVllmNow(now, &out);
  AddVllmCounters(metrics, *model, &out);
  AddVllmHistograms(metrics, &out);
  AddEngine(now, model->engine->stats(), &out);
  if (model->sessions != nullptr) AddSessions(metrics, *model, &out);
  if (model->prefix_cache != nullptr) AddPrefixes(*model->prefix_cache, &out);
  if (model->snapshot_memory != nullptr) AddSnapshotMemory(*model->snapshot_memory, &out);
  return absl::StrCat(process.text(), out.text());
}

}  // namespace statehouse
