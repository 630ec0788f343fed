#include "clients/cli/load_floor.h"

#include <algorithm>

namespace statehouse::cli {
namespace {

// The rate at the smallest measured size that holds `bytes`; beyond them the largest's. 0 if none was measured.
double ReadRateFor(const v1::Machine& machine, double bytes) {
  double rate = 0;
  for (const v1::ReadRate& read : machine.read()) {
    rate = read.bytes_per_second();
    if (static_cast<double>(read.bytes()) >= bytes) break;
  }
  return rate;
}

bool InStateForm(const v1::Model& model, double context) {
  return model.has_switch_over() && context >= static_cast<double>(model.switch_over());
}

// Bytes that a decoding sequence adds to a step.
double SequenceBytes(const v1::Model& model, double context) {
  const v1::StepCost& cost = model.step_cost();
  if (InStateForm(model, context)) return static_cast<double>(cost.state_bytes());
  return static_cast<double>(cost.row_bytes()) * context;
}

// Arithmetic of one token at that place, without logits.
double TokenFlops(const v1::Model& model, double context) {
  const v1::StepCost& cost = model.step_cost();
  return cost.linear_flops() + (InStateForm(model, context) ? cost.retention_flops() : cost.row_flops() * context);
}

// Of a prompt from its beginning.
double PromptFlops(const v1::Model& model, double tokens) {
  const double switch_over = model.has_switch_over() ? static_cast<double>(model.switch_over()) : tokens;
  const double before = std::min(tokens, switch_over);
  const v1::StepCost& cost = model.step_cost();
  return tokens * cost.linear_flops() + before * (before / 2) * cost.row_flops() +
         (tokens - before) * cost.retention_flops() + cost.head_flops();
}

}  // namespace

std::optional<LoadFloors> FloorsOf(const v1::Model& model, const v1::Machine& machine, const LoadReport& report) {
  if (report.completed == 0 || report.duration <= 0) return std::nullopt;
  if (!model.has_step_cost() || machine.read_size() == 0 || !(machine.flops_per_second() > 0)) return std::nullopt;
  const auto completed = static_cast<double>(report.completed);
  const double prompt = static_cast<double>(report.prompt_tokens) / completed;
  const double output = static_cast<double>(report.output_tokens) / completed;

  LoadFloors floors;
  floors.sequences = std::max(1.0, report.decoding_s / report.duration);
  floors.context = prompt + output / 2;
  floors.bytes =
      static_cast<double>(model.step_cost().weight_bytes()) + floors.sequences * SequenceBytes(model, floors.context);
  floors.flops = floors.sequences * (TokenFlops(model, floors.context) + model.step_cost().head_flops());
  floors.bandwidth = ReadRateFor(machine, floors.bytes);
  floors.flops_per_second = machine.flops_per_second();

  const double prompt_s = PromptFlops(model, prompt) / floors.flops_per_second;
  floors.ttft = {prompt_s, report.ttft.p50};
  floors.tpot = {std::max(floors.bytes / floors.bandwidth, floors.flops / floors.flops_per_second), report.tpot.p50};
  // An output's first token comes with its prompt.
  const double steps = completed * std::max(0.0, output - 1) / floors.sequences;
  floors.duration = {completed * prompt_s + steps * floors.tpot.floor, report.duration};
  return floors;
}

}  // namespace statehouse::cli
