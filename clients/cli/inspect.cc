#include "clients/cli/inspect.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/printing.h"
#include "clients/cli/terminal.h"  // FormatBytes
#include "grpc/health/v1/health.grpc.pb.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/generation.grpc.pb.h"
#include "statehouse/v1/models.grpc.pb.h"
#include "statehouse/v1/tokenizer.grpc.pb.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

void AddRow(std::string* text, const char* name, const std::string& value) {
  absl::StrAppend(text, absl::StrFormat("%-18s %s\n", name, value));
}

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

Json ModelJson(const v1::Model& model) {
  return {{"name", model.name()},
          {"family", model.family()},
          {"parameters", model.parameters()},
          {"num_layers", model.num_layers()},
          {"hidden_size", model.hidden_size()},
          {"vocab_size", model.vocab_size()},
          {"heads_q", model.heads_q()},
          {"heads_kv", model.heads_kv()},
          {"head_dim", model.head_dim()},
          {"degree", model.degree()},
          {"chunk", model.chunk()},
          {"switch_over", model.has_switch_over() ? Json(model.switch_over()) : Json(nullptr)},
          {"max_tail_tokens", model.has_max_tail_tokens() ? Json(model.max_tail_tokens()) : Json(nullptr)},
          {"dtype", model.dtype()},
          {"state_bytes_per_sequence", model.state_bytes_per_sequence()},
          {"weight_bytes", model.weight_bytes()},
          {"max_position_embeddings", model.max_position_embeddings()},
          {"chat_template", model.chat_template()},
          {"tokenizer", model.tokenizer()},
          {"eos_token_ids", Json(std::vector<int32_t>(model.eos_token_ids().begin(), model.eos_token_ids().end()))},
          {"fingerprint", model.fingerprint()},
          {"step_cost",
           {{"weight_bytes", model.step_cost().weight_bytes()},
            {"state_bytes", model.step_cost().state_bytes()},
            {"row_bytes", model.step_cost().row_bytes()},
            {"linear_flops", model.step_cost().linear_flops()},
            {"retention_flops", model.step_cost().retention_flops()},
            {"row_flops", model.step_cost().row_flops()},
            {"head_flops", model.step_cost().head_flops()}}}};
}

std::string ModelText(const v1::Model& model) {
  std::string text;
  AddRow(&text, "model", model.name());
  AddRow(&text, "family", absl::StrCat(model.family(), ", ", model.dtype(), " weights, ", Bytes(model.weight_bytes())));
  AddRow(&text, "parameters",
         absl::StrFormat("%d in %d layers of %d", model.parameters(), model.num_layers(), model.hidden_size()));
  AddRow(&text, "retention",
         absl::StrFormat("%d query and %d key/value heads of %d, degree %d, chunks of %d", model.heads_q(),
                         model.heads_kv(), model.head_dim(), model.degree(), model.chunk()));
  AddRow(&text, "switch-over",
         model.has_switch_over() ? absl::StrFormat("at %d tokens", model.switch_over()) : "never");
  if (model.has_max_tail_tokens()) AddRow(&text, "tokens at most", absl::StrCat(model.max_tail_tokens()));
  AddRow(&text, "state", Bytes(model.state_bytes_per_sequence()) + " per sequence, however long");
  AddRow(&text, "tokenizer", model.tokenizer().empty() ? "none: token ids only" : model.tokenizer());
  AddRow(&text, "chat template", model.chat_template().empty() ? "none: chat is refused" : model.chat_template());
  AddRow(&text, "fingerprint", model.fingerprint());
  return text;
}

Json MachineJson(const v1::GetStatusResponse& status) {
  if (!status.has_machine()) return nullptr;
  Json read = Json::array();
  for (const v1::ReadRate& rate : status.machine().read()) {
    read.push_back({{"bytes", rate.bytes()}, {"bytes_per_second", rate.bytes_per_second()}});
  }
  return {{"read", std::move(read)}, {"flops_per_second", status.machine().flops_per_second()}};
}

Json SessionsJson(const v1::GetStatusResponse& status) {
  if (!status.has_sessions()) return nullptr;
  Json tiers = Json::array();
  for (const v1::SessionCounts::Tier& tier : status.sessions().tiers()) {
    tiers.push_back({{"name", tier.name()},
                     {"snapshots", tier.snapshots()},
                     {"bytes", tier.bytes()},
                     {"hits", tier.hits()},
                     {"errors", tier.errors()},
                     {"why_not", tier.why_not().empty() ? Json(nullptr) : Json(tier.why_not())}});
  }
  return {{"open", status.sessions().open()},
          {"busy", status.sessions().busy()},
          {"damaged", status.sessions().damaged()},
          {"tiers", std::move(tiers)}};
}

std::string SessionsText(const v1::SessionCounts& sessions) {
  std::string text = absl::StrFormat("%d in memory, %d in a turn", sessions.open(), sessions.busy());
  if (sessions.damaged() > 0) absl::StrAppend(&text, ", ", sessions.damaged(), " damaged");
  for (const v1::SessionCounts::Tier& tier : sessions.tiers()) {
    if (tier.snapshots() == 0 && tier.why_not().empty()) continue;
    absl::StrAppend(&text,
                    absl::StrFormat("; %s: %d snapshots, %s", tier.name(), tier.snapshots(), Bytes(tier.bytes())));
    if (!tier.why_not().empty()) absl::StrAppend(&text, " (left alone: ", tier.why_not(), ")");
  }
  return text;
}

Json StatusJson(const v1::GetStatusResponse& status) {
  return {{"build",
           {{"version", status.build().version()},
            {"commit", status.build().commit()},
            {"type", status.build().type()},
            {"device", status.build().device()}}},
          {"uptime", status.uptime()},
          {"serving", status.serving()},
          {"slots",
           {{"total", status.slots().total()},
            {"used", status.slots().used()},
            {"zeroing", status.slots().zeroing()},
            {"bytes", status.slots().bytes()}}},
          {"queue",
           {{"requests", status.queue().requests()},
            {"max_requests", status.queue().max_requests()},
            {"tokens", status.queue().tokens()},
            {"max_tokens", status.queue().max_tokens()}}},
          {"memory",
           {{"weights", status.memory().weights()},
            {"slots", status.memory().slots()},
            {"workspace", status.memory().workspace()},
            {"snapshots", status.memory().snapshots()},
            {"prefixes", status.memory().prefixes()},
            {"prefixes_taking", status.memory().prefixes_taking()},
            {"prefixes_limit", status.memory().prefixes_limit()},
            {"resident", status.memory().resident()}}},
          {"machine", MachineJson(status)},
          {"requests_running", status.requests_running()},
          {"prompt_tokens", status.prompt_tokens()},
          {"completion_tokens", status.completion_tokens()},
          {"sessions", SessionsJson(status)}};
}

std::string StatusText(const v1::GetStatusResponse& status) {
  std::string text;
  AddRow(&text, "serving", status.serving() ? "yes" : "no: loading or draining");
  AddRow(&text, "build",
         absl::StrFormat("%s (%s, %s) on %s", status.build().version(), status.build().commit(), status.build().type(),
                         status.build().device()));
  AddRow(&text, "up for", FormatSeconds(status.uptime()));
  AddRow(&text, "running", absl::StrFormat("%d requests", status.requests_running()));
  AddRow(&text, "slots",
         absl::StrFormat("%d of %d used, %d being zeroed, %s each", status.slots().used(), status.slots().total(),
                         status.slots().zeroing(), Bytes(status.slots().bytes())));
  AddRow(&text, "queue",
         absl::StrFormat("%d of %d requests, %d of %d tokens", status.queue().requests(), status.queue().max_requests(),
                         status.queue().tokens(), status.queue().max_tokens()));
  AddRow(&text, "memory",
         absl::StrFormat(
             "weights %s, slots %s, workspace %s, prefixes %s, resident %s", Bytes(status.memory().weights()),
             Bytes(status.memory().slots()), Bytes(status.memory().workspace()),
             Bytes(status.memory().prefixes() + status.memory().prefixes_taking()), Bytes(status.memory().resident())));
  if (status.has_sessions()) AddRow(&text, "sessions", SessionsText(status.sessions()));
  if (status.machine().read_size() > 0) {
    const v1::ReadRate& memory = *status.machine().read().rbegin();
    AddRow(&text, "machine",
           absl::StrFormat("at start read %s/s and did %.0f GFLOP/s", FormatBytes(memory.bytes_per_second()),
                           status.machine().flops_per_second() * 1e-9));
  }
  AddRow(&text, "tokens so far",
         absl::StrFormat("%d of prompts, %d generated", status.prompt_tokens(), status.completion_tokens()));
  return text;
}

}  // namespace

absl::Status ShowStatus(const Connection& connection, bool json, std::FILE* out) {
  v1::GetStatusResponse response;
  const auto stub = v1::Admin::NewStub(connection.channel());
  absl::Status status =
      Ask(connection, [&](grpc::ClientContext* context) { return stub->GetStatus(context, {}, &response); });
  if (!status.ok()) return status;
  json ? PrintJson(out, StatusJson(response)) : Print(out, StatusText(response));
  return absl::OkStatus();
}

absl::Status ShowModels(const Connection& connection, bool json, std::FILE* out) {
  v1::ListModelsResponse response;
  const auto stub = v1::Models::NewStub(connection.channel());
  absl::Status status =
      Ask(connection, [&](grpc::ClientContext* context) { return stub->ListModels(context, {}, &response); });
  if (!status.ok()) return status;
  Json list = Json::array();
  std::vector<std::string> texts;
  for (const v1::Model& model : response.models()) {
    list.push_back(ModelJson(model));
    texts.push_back(ModelText(model));
  }
  json ? PrintJson(out, {{"models", list}}) : Print(out, absl::StrJoin(texts, "\n"));
  return absl::OkStatus();
}

absl::Status ShowTokens(const Connection& connection, const std::string& text, const TokenizeOptions& options,
                        bool json, std::FILE* out) {
  v1::TokenizeRequest request;
  request.set_model(options.model);
  request.set_text(text);
  request.set_add_special_tokens(options.add_special_tokens);
  request.set_parse_special_tokens(options.parse_special_tokens);
  request.set_return_texts(options.show_texts);
  v1::TokenizeResponse response;
  const auto stub = v1::Tokenizer::NewStub(connection.channel());
  absl::Status status = Ask(connection, request,
                            [&](grpc::ClientContext* context) { return stub->Tokenize(context, request, &response); });
  if (!status.ok()) return status;
  if (json) {
    Json result = {{"token_ids", Json(std::vector<int32_t>(response.token_ids().begin(), response.token_ids().end()))}};
    if (options.show_texts)
      result["texts"] = Json(std::vector<std::string>(response.texts().begin(), response.texts().end()));
    PrintJson(out, result);
  } else if (options.show_texts) {
    std::string lines;
    for (int i = 0; i < response.token_ids_size() && i < response.texts_size(); ++i) {
      absl::StrAppend(&lines, absl::StrFormat("%8d  ", response.token_ids(i)),
                      Json(response.texts(i)).dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
    }
    Print(out, lines);
  } else {
    Print(out, absl::StrJoin(response.token_ids(), ",") + "\n");  // as --prompt-ids takes them
  }
  return absl::OkStatus();
}

absl::Status ShowText(const Connection& connection, const std::string& model, const std::vector<int32_t>& token_ids,
                      bool show_special, bool json, std::FILE* out) {
  v1::DetokenizeRequest request;
  request.set_model(model);
  request.mutable_token_ids()->Assign(token_ids.begin(), token_ids.end());
  request.set_show_special_tokens(show_special);
  v1::DetokenizeResponse response;
  const auto stub = v1::Tokenizer::NewStub(connection.channel());
  absl::Status status = Ask(
      connection, request, [&](grpc::ClientContext* context) { return stub->Detokenize(context, request, &response); });
  if (!status.ok()) return status;
  json ? PrintJson(out, {{"text", response.text()}}) : Print(out, response.text() + "\n");
  return absl::OkStatus();
}

absl::Status CancelRequest(const Connection& connection, const std::string& request_id, std::FILE* out) {
  v1::CancelRequest request;
  request.set_request_id(request_id);
  v1::CancelResponse response;
  const auto stub = v1::Generation::NewStub(connection.channel());
  absl::Status status =
      Ask(connection, request, [&](grpc::ClientContext* context) { return stub->Cancel(context, request, &response); });
  if (!status.ok()) return status;
  if (!response.cancelled()) {
    return absl::NotFoundError(absl::StrCat("no request \"", request_id, "\" of yours is queued or running"));
  }
  Print(out, "cancelled\n");
  return absl::OkStatus();
}

absl::Status CheckHealth(const Connection& connection, const std::string& service, std::FILE* out) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const auto stub = grpc::health::v1::Health::NewStub(connection.channel());
  absl::Status status =
      Ask(connection, request, [&](grpc::ClientContext* context) { return stub->Check(context, request, &response); });
  if (!status.ok()) return status;
  const std::string& name = grpc::health::v1::HealthCheckResponse_ServingStatus_Name(response.status());
  Print(out, name + "\n");
  if (response.status() == grpc::health::v1::HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(connection.options().address, " says ", name, ": it is loading or draining"));
}

absl::StatusOr<v1::Model> GetModel(const Connection& connection, const std::string& name) {
  v1::GetModelRequest request;
  request.set_name(name);
  v1::Model model;
  const auto stub = v1::Models::NewStub(connection.channel());
  absl::Status status =
      Ask(connection, request, [&](grpc::ClientContext* context) { return stub->GetModel(context, request, &model); });
  if (!status.ok()) return status;
  return model;
}

}  // namespace statehouse::cli
