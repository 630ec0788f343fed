#include "server/commands/startup_summary.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/commands/figures.h"
#include "server/listen_error.h"

namespace statehouse {
namespace {

std::string Bytes(int64_t bytes) { return WithPrefix(static_cast<double>(bytes), "B"); }

std::string PrefixText(const PrefixCache* prefixes) {
  if (prefixes == nullptr) return "not shared";
  std::string text = absl::StrCat("shared, in up to ", Bytes(prefixes->memory_bytes()), " of memory");
  if (prefixes->disk_bytes() > 0) absl::StrAppend(&text, " and ", Bytes(prefixes->disk_bytes()), " of disk");
  return text;
}

std::string Text(const HostedModel& model, const Server& server, const ServeOptions& options) {
  const v1::Model& card = model.served().card;
  const EngineStatus now = model.engine().GetStatus();
  std::string text =
      absl::StrFormat("model      %s (%s, %s parameters as %s), chat template: %s\n", card.name(), card.family(),
                      WithPrefix(static_cast<double>(card.parameters()), ""), card.dtype(),
                      card.chat_template().empty() ? "none, so chat is refused" : card.chat_template().c_str());
  absl::StrAppendFormat(&text, "device     %s\n", model.served().device);
  const std::string length = card.has_max_tail_tokens()
                                 ? absl::StrCat(", of at most ", card.max_tail_tokens(), " tokens each")
                                 : ", whatever their length";
  absl::StrAppendFormat(&text, "capacity   %d sequences%s (%s each)\n", now.slots_total, length, Bytes(now.slot_bytes));
  absl::StrAppendFormat(&text, "memory     weights %s, states %s, step buffers %s", Bytes(now.weight_bytes),
                        Bytes(now.state_bytes), Bytes(now.workspace_bytes));
  if (model.sessions() != nullptr) {
    absl::StrAppendFormat(&text, ", sessions' snapshots up to %s", Bytes(model.sessions()->host_bytes()));
  }
  if (const auto& memory = model.served().snapshot_memory; memory != nullptr) {
    absl::StrAppendFormat(&text, ", page-locked for snapshots %s", Bytes(memory->locked_bytes()));
  }
  text += "\n";
  if (model.sessions() != nullptr) absl::StrAppendFormat(&text, "sessions   %s\n", model.sessions()->Describe());
  const PrefixCache* const prefixes = model.served().prefix_cache;
  absl::StrAppendFormat(&text, "prefixes   %s\n", PrefixText(prefixes));
  absl::StrAppendFormat(&text, "address    %s\n", server.addresses());
  if (server.metrics_port() != 0) {
    absl::StrAppendFormat(&text, "metrics    http://%s/metrics\n",
                          TcpAddress(options.metrics_host, server.metrics_port()));
  }
  return text;
}

}  // namespace

void PrintStartupSummary(const HostedModel& model, const Server& server, const ServeOptions& options, Log* log) {
  const EngineStatus now = model.engine().GetStatus();
  if (log->format() == Log::Format::kText) {
    std::fputs(Text(model, server, options).c_str(), stderr);
    std::fflush(stderr);
  }
  log->Info("ready",
            {{"model", model.served().name},
             {"device", model.served().device},
             {"sequences", now.slots_total},
             {"slot_bytes", now.slot_bytes},
             {"state_bytes", now.state_bytes},
             {"weight_bytes", now.weight_bytes},
             {"workspace_bytes", now.workspace_bytes},
             {"prefix_cache_bytes",
              model.served().prefix_cache == nullptr ? int64_t{0} : model.served().prefix_cache->memory_bytes()},
             {"prefix_cache_disk_bytes",
              model.served().prefix_cache == nullptr ? int64_t{0} : model.served().prefix_cache->disk_bytes()},
             {"snapshot_bytes", model.sessions() == nullptr ? int64_t{0} : model.sessions()->host_bytes()},
             {"snapshot_page_locked_bytes",
              model.served().snapshot_memory == nullptr ? int64_t{0} : model.served().snapshot_memory->locked_bytes()},
             {"sessions", model.sessions() == nullptr ? std::string() : model.sessions()->Describe()},
             {"address", server.addresses()},
             {"metrics_port", int64_t{server.metrics_port()}}});
}

}  // namespace statehouse
