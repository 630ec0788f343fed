#include "server/hosted_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/admission.h"
#include "engine/state/host_memory.h"
#include "models/device.h"
#include "models/sizing.h"
#include "server/machine_rates.h"

namespace statehouse {
namespace {

// FNV-1a over what decides an answer beside the weights.
uint64_t Mix(uint64_t hash, uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) hash = (hash ^ ((value >> (8 * byte)) & 0xFF)) * 0x100000001b3u;
  return hash;
}

std::string FingerprintText(const LoadedCheckpoint& checkpoint) {
  const kernels::RetentionShape& shape = checkpoint.model->retention().shape();
  uint64_t hash = Mix(0xcbf29ce484222325u, checkpoint.model->fingerprint());
  hash = Mix(hash, checkpoint.tokenizer == nullptr ? 0 : checkpoint.tokenizer->fingerprint());
  hash = Mix(hash, static_cast<uint64_t>(shape.degree));
  hash = Mix(hash, static_cast<uint64_t>(shape.chunk));
  hash = Mix(hash, static_cast<uint64_t>(shape.switch_over));
  return absl::StrFormat("%016x", hash);
}

// Longer texts have more tokens for certain, and need not be encoded to be refused. A normalizer may shorten a text:
// full-width letters to a third.
int64_t MaxPromptBytes(int64_t max_tokens, const Tokenizer* tokenizer) {
  constexpr int64_t kMostShortened = 4;
  if (tokenizer == nullptr) return 0;
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer->size(); ++id) {
    longest = std::max({longest, tokenizer->TokenBytes(id).size(), tokenizer->TokenName(id).size()});
  }
  const int64_t per_token = kMostShortened * static_cast<int64_t>(longest);
  return max_tokens > INT64_MAX / per_token ? 0 : max_tokens * per_token;
}

ServedModel MakeServed(const std::string& name, const LoadedCheckpoint& checkpoint, Engine* engine) {
  ServedModel served;
  served.name = name;
  served.vocab_size = checkpoint.config.vocab_size;
  served.tokenizer = checkpoint.tokenizer.get();
  served.why_no_tokenizer = checkpoint.why_no_tokenizer;
  served.chat_template = checkpoint.chat_template;
  served.why_no_chat_template = checkpoint.why_no_chat_template;
  if (checkpoint.tokenizer != nullptr) {
    auto fim = FillInTheMiddle::For(*checkpoint.tokenizer);
    if (fim.ok()) {
      served.fim = *std::move(fim);
    } else {
      served.why_no_fim = std::string(fim.status().message());
    }
  }
  const EngineOptions& limits = engine->options();
  served.max_prompt_tokens = limits.max_prompt_tokens > 0 ? limits.max_prompt_tokens : limits.max_num_queued_tokens;
  served.max_prompt_bytes = MaxPromptBytes(served.max_prompt_tokens, served.tokenizer);
  served.defaults = checkpoint.generation;
  served.card = DescribeModel(name, checkpoint, *engine);
  served.engine = engine;
  return served;
}

// Snapshots are of slots, so as much memory again is a fair guess, where the host has it.
int64_t DefaultPrefixMemory(const Engine& engine, std::optional<int64_t> available) {
  const int64_t slots = engine.options().state_memory_bytes;
  return available.has_value() ? std::min(slots, *available / 4) : slots;
}

v1::StepCost CostOfStep(const Model& model) {
  const ModelConfig& config = model.config();
  v1::StepCost cost;
  cost.set_weight_bytes(model.step_weight_bytes());
  if (model.retention().has_state()) cost.set_state_bytes(DecodeFloorBytes(config, 0, 1, StateType::kF32));
  // Of each row: k, v and a gate sum, float32; a score and a weighted value per query head.
  cost.set_row_bytes(config.num_layers * config.heads_kv * (2 * config.head_dim + 1) * 4);
  cost.set_row_flops(static_cast<double>(config.num_layers) * 4 * config.head_dim * config.heads_q);
  cost.set_linear_flops(LinearFlopsPerToken(config));
  cost.set_retention_flops(RetentionFlopsPerToken(config));
  cost.set_head_flops(HeadFlopsPerRow(config));
  return cost;
}

}  // namespace

v1::Model DescribeModel(const std::string& name, const LoadedCheckpoint& checkpoint, const Engine& engine) {
  const ModelConfig& config = checkpoint.config;
  const kernels::RetentionShape& shape = checkpoint.model->retention().shape();
  v1::Model card;
  card.set_name(name);
  card.set_family(FamilyName(config.family));
  card.set_parameters(checkpoint.model->num_parameters());
  card.set_num_layers(config.num_layers);
  card.set_hidden_size(config.hidden_size);
  card.set_vocab_size(config.vocab_size);
  card.set_heads_q(config.heads_q);
  card.set_heads_kv(config.heads_kv);
  card.set_head_dim(config.head_dim);
  card.set_degree(shape.degree);
  card.set_chunk(shape.chunk);
  if (checkpoint.model->retention().has_state()) {
    card.set_switch_over(shape.switch_over);
  } else {
    card.set_max_tail_tokens(shape.max_tail_tokens);
  }
  card.set_dtype(kernels::WeightTypeName(checkpoint.model->weight_type()));
  card.set_state_bytes_per_sequence(engine.GetStatus().slot_bytes);
  card.set_weight_bytes(checkpoint.model->weight_bytes());
  card.set_max_position_embeddings(config.max_position_embeddings);
  if (checkpoint.chat_template.has_value()) card.set_chat_template(std::string(checkpoint.chat_template->name()));
  if (checkpoint.tokenizer != nullptr) card.set_tokenizer(std::string(checkpoint.tokenizer->kind()));
  card.mutable_eos_token_ids()->Add(config.eos_ids.begin(), config.eos_ids.end());
  card.set_fingerprint(FingerprintText(checkpoint));
  *card.mutable_step_cost() = CostOfStep(*checkpoint.model);
  return card;
}

absl::StatusOr<std::unique_ptr<HostedModel>> HostedModel::Load(const HostedModelOptions& options) {
  if (absl::Status status = CheckOptions(options.engine); !status.ok()) return status;  // loading may take minutes
  std::unique_ptr<HostedModel> hosted(new HostedModel);
  hosted->pool_ = std::make_unique<kernels::ThreadPool>(options.threads);
  const absl::StatusOr<DeviceChoice> device = ChooseDevice(options.checkpoint.load.device);
  if (!device.ok()) return device.status();
  const bool is_cpu = device->gpu < 0;
  // Before there is a model, so that the memory which this takes adds nothing to the most that is ever used.
  std::optional<v1::Machine> machine;
  if (options.measure_machine && is_cpu) machine = MeasureMachine(*hosted->pool_);
  auto checkpoint = LoadCheckpoint(options.directory, options.checkpoint, hosted->pool_.get());
  if (!checkpoint.ok()) return checkpoint.status();
  hosted->checkpoint_ = *std::move(checkpoint);
  auto engine = Engine::Create(hosted->checkpoint_.model.get(), hosted->checkpoint_.tokenizer.get(), options.engine);
  if (!engine.ok()) return engine.status();
  hosted->engine_ = *std::move(engine);
  hosted->served_ = MakeServed(options.served_name.empty() ? hosted->checkpoint_.name : options.served_name,
                               hosted->checkpoint_, hosted->engine_.get());
  hosted->served_.machine = std::move(machine);
  const int threads = hosted->pool_->num_threads();
  hosted->served_.device = is_cpu ? absl::StrCat("cpu, ", threads, threads == 1 ? " thread" : " threads")
                                  : hosted->checkpoint_.model->device_name();
  if (absl::Status status = hosted->MakeSnapshotMemory(options); !status.ok()) return status;
  if (options.sessions.has_value()) {
    if (absl::Status status = hosted->OpenSessions(*options.sessions); !status.ok()) return status;
  }
  if (absl::Status status = hosted->OpenPrefixCache(options); !status.ok()) return status;
  hosted->WarnOfMemory(options);
  hosted->engine_->Start();
  if (absl::Status status = hosted->WarmUp(); !status.ok()) return status;
  return hosted;
}

HostedModel::~HostedModel() = default;

// Only where snapshots can be taken at all.
absl::Status HostedModel::MakeSnapshotMemory(const HostedModelOptions& options) {
  constexpr char kFlag[] = "--snapshot-page-locked-memory: ";
  const Model& model = *checkpoint_.model;
  std::shared_ptr<PageLocker> locker = model.page_locker();
  if (locker == nullptr && options.page_locked_bytes > 0) {
    warnings_.push_back(absl::StrCat(kFlag, options.page_locked_bytes,
                                     " bytes are not used: states are in host memory on this device"));
  }
  if (locker == nullptr || (!options.sessions.has_value() && !options.enable_prefix_caching)) return absl::OkStatus();
  const int64_t block_bytes = SlotShape{model.retention(), model.config().num_layers}.bytes();
  const auto blocks = SnapshotMemory::NumBlocks(options.page_locked_bytes, block_bytes, AvailableHostBytes());
  if (!blocks.ok()) return absl::InvalidArgumentError(absl::StrCat(kFlag, std::string(blocks.status().message())));
  served_.snapshot_memory =
      SnapshotMemory::Make({.block_bytes = block_bytes, .num_blocks = *blocks}, std::move(locker));
  if (const absl::Status& why = served_.snapshot_memory->why_fewer(); !why.ok()) {
    warnings_.push_back(absl::StrCat(kFlag, "snapshots move more slowly where they find none of the ",
                                     served_.snapshot_memory->locked_bytes(),
                                     " bytes free; no more could be page-locked: ", std::string(why.message())));
  }
  return absl::OkStatus();
}

absl::Status HostedModel::OpenSessions(const SessionSettings& settings) {
  const Model& model = *checkpoint_.model;
  const uint64_t tokenizer = checkpoint_.tokenizer == nullptr ? 0 : checkpoint_.tokenizer->fingerprint();
  served_.fingerprint = Fingerprint::Of(model, tokenizer);
  served_.slot_shape = SlotShape{model.retention(), model.config().num_layers};
  auto sessions = HostedSessions::Open(settings, served_.fingerprint, *served_.slot_shape,
                                       model.retention().shape().chunk, served_.snapshot_memory);
  if (!sessions.ok()) return sessions.status();
  sessions_ = *std::move(sessions);
  served_.sessions = &sessions_->store();
  served_.vault = &sessions_->vault();
  return absl::OkStatus();
}

absl::Status HostedModel::OpenPrefixCache(const HostedModelOptions& options) {
  if (!options.enable_prefix_caching) return absl::OkStatus();
  PrefixCacheOptions prefixes = options.prefix_cache;
  const int64_t least = PrefixCache::LeastMemory(*checkpoint_.model);
  if (prefixes.memory_bytes > 0 && prefixes.memory_bytes < least) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prefix-cache-memory: ", prefixes.memory_bytes, " bytes; expected 0 or at least ", least,
                     ", in which the shortest prefix can be kept; --no-enable-prefix-caching turns it off"));
  }
  if (prefixes.memory_bytes == 0) prefixes.memory_bytes = DefaultPrefixMemory(*engine_, BytesForSnapshots());
  // Host memory below the cache's own would be memory beyond what was said; only a disk is another place.
  if (sessions_ != nullptr && sessions_->has_disk()) prefixes.vault = served_.vault;
  if (options.sessions.has_value() && options.sessions->disk_bytes > 0) {
    prefixes.disk_bytes = options.sessions->disk_bytes;
  }
  prefixes.memory = served_.snapshot_memory;
  prefix_cache_ = std::make_unique<PrefixCache>(prefixes, *checkpoint_.model);
  served_.prefix_cache = prefix_cache_.get();
  return absl::OkStatus();
}

// What the host has left, and what is page-locked for them already.
std::optional<int64_t> HostedModel::BytesForSnapshots() const {
  std::optional<int64_t> available = AvailableHostBytes();
  if (available.has_value() && served_.snapshot_memory != nullptr) {
    *available += served_.snapshot_memory->totals().free_bytes;
  }
  return available;
}

void HostedModel::WarnOfMemory(const HostedModelOptions& options) {
  const EngineOptions& now = engine_->options();
  const int64_t fitting = options.engine.state_memory_bytes / engine_->GetStatus().slot_bytes;
  if (options.engine.max_num_seqs == 0 && fitting > now.max_num_seqs) {
    warnings_.push_back(absl::StrCat(
        "--state-memory: there is room for ", fitting, " sequences, and ", now.max_num_seqs,
        ", one for each row of a step (--max-num-batched-tokens), are served, in ", now.state_memory_bytes, " bytes"));
  }
  const std::optional<int64_t> available = BytesForSnapshots();
  if (!available.has_value()) return;
  const auto compare = [&](const char* flag, int64_t bytes) {
    if (bytes <= *available) return;
    warnings_.push_back(
        absl::StrCat(flag, ": ", bytes, " bytes are more than the ", *available, " that this host has left"));
  };
  compare("--prefix-cache-memory", options.enable_prefix_caching ? options.prefix_cache.memory_bytes : 0);
  compare("--snapshot-host-memory", options.sessions.has_value() ? options.sessions->host_bytes : 0);
}

absl::Status HostedModel::WarmUp() {
  auto request = std::make_unique<Request>();
  request->prompt = {0};
  request->sampling.temperature = 0;
  request->stop.max_tokens = 1;
  auto stream = engine_->Submit(std::move(request));
  if (!stream.ok()) return stream.status();
  Event event;
  while ((*stream)->Next(&event) && event.kind != Event::Kind::kDone) {
  }
  const EngineStats& stats = engine_->stats();
  for (size_t reason = 0; reason < stats.finished.size(); ++reason) {
    served_.warm_up_outputs[reason] = stats.finished[reason].load(std::memory_order_relaxed);
  }
  return (*stream)->status();
}

}  // namespace statehouse
