#include "server/commands/bench_kernels.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/bench/cpu_bench.h"
#include "kernels/parallel/thread_pool.h"
#include "server/commands/report.h"
#ifdef STATEHOUSE_CUDA
#include "kernels/bench/cuda/gpu_bench.h"
#include "kernels/cuda/device.h"
#endif

namespace statehouse {
namespace {

using kernels::bench::Ceilings;
using kernels::bench::Figure;
using kernels::bench::Number;
using kernels::bench::Pass;
using kernels::bench::RetentionCase;

absl::StatusOr<Pass> ParsePass(const std::string& text) {
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kForwardBackward, Pass::kDecode}) {
    if (text == PassName(pass)) return pass;
  }
  return absl::InvalidArgumentError(absl::StrCat("pass ", text, ": must be fwd, bwd, fwd+bwd or decode"));
}

absl::StatusOr<Number> ParseNumber(const char* flag, const std::string& text) {
  for (const Number number : {Number::kBf16, Number::kFp16, Number::kFloat32}) {
    if (text == NumberName(number)) return number;
  }
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": must be bf16, fp16 or float32"));
}

absl::StatusOr<Number> ParseStateNumber(const std::string& text) {
  if (text == NumberName(Number::kInt8)) return Number::kInt8;
  auto number = ParseNumber("--kernel-state-dtype", text);
  if (number.ok()) return number;
  return absl::InvalidArgumentError(absl::StrCat(number.status().message(), "; or int8, on a GPU"));
}

absl::Status CheckLists(const KernelsBenchOptions& options) {
  const struct {
    const char* flag;
    const std::vector<int64_t>& values;
    int64_t least;
  } lists[] = {{"--batch", options.batches, 1},      {"--length", options.lengths, 1},
               {"--heads", options.heads, 1},        {"--kv-heads", options.kv_heads, 1},
               {"--head-dim", options.head_dims, 1}, {"--chunk", options.chunks, 0}};
  constexpr int64_t kMost = int64_t{1} << 24;
  for (const auto& [flag, values, least] : lists) {
    for (const int64_t value : values) {
      if (value < least || value > kMost)
        return absl::InvalidArgumentError(absl::StrCat(flag, " ", value, ": must be ", least, " … ", kMost));
    }
  }
  if (options.kv_heads.size() > 1 && options.kv_heads.size() != options.heads.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--kv-heads ", absl::StrJoin(options.kv_heads, ","),
                                                   ": must be one number, or one for each of --heads ",
                                                   absl::StrJoin(options.heads, ",")));
  }
  if (options.layers < 1 || options.layers > 1024)
    return absl::InvalidArgumentError(absl::StrCat("--graph-layers ", options.layers, ": must be 1 … 1024"));
  if (options.runs < 1) return absl::InvalidArgumentError(absl::StrCat("--runs ", options.runs, ": must be 1 or more"));
  if (!(options.max_seconds >= 0))
    return absl::InvalidArgumentError(absl::StrCat("--max-seconds ", options.max_seconds, ": must be 0 or more"));
  return absl::OkStatus();
}

// A device that measures cases.
struct Bench {
  bool is_gpu = false;
  std::string why;
  std::function<absl::StatusOr<Ceilings>()> ceilings;
  std::function<absl::StatusOr<Figure>(const RetentionCase&)> measure;
  std::unique_ptr<kernels::ThreadPool> pool = nullptr;
};

Bench CpuBench(const KernelsBenchOptions& options, std::string why) {
  Bench out;
  out.why = std::move(why);
  out.pool = std::make_unique<kernels::ThreadPool>(options.threads);
  kernels::ThreadPool* const pool = out.pool.get();
  out.ceilings = [pool]() -> absl::StatusOr<Ceilings> {
    Ceilings ceilings = kernels::bench::MeasureCpu(*pool);
    ceilings.device = absl::StrCat(MachineName(), ", ", pool->num_threads(), " threads");
    return ceilings;
  };
  out.measure = [pool, runs = options.runs, seconds = options.max_seconds](const RetentionCase& it) {
    return kernels::bench::MeasureOnCpu(it, runs, seconds, *pool);
  };
  return out;
}

absl::StatusOr<Bench> ChooseBench(const KernelsBenchOptions& options) {
  if (options.device == "cpu") return CpuBench(options, "");
  if (options.device != "auto" && options.device != "cuda")
    return absl::InvalidArgumentError(absl::StrCat("--device ", options.device, ": must be auto, cpu or cuda"));
#ifdef STATEHOUSE_CUDA
  if (const auto device = kernels::GetDeviceProperties(0); device.ok()) {
    Bench out;
    out.is_gpu = true;
    if (options.device == "auto") out.why = "there is a GPU";
    out.ceilings = kernels::bench::MeasureGpu;
    out.measure = [runs = options.runs](const RetentionCase& it) { return kernels::bench::MeasureOnGpu(it, runs); };
    return out;
  } else if (options.device == "cuda") {
    return device.status();
  } else {
    return CpuBench(options, std::string(device.status().message()));
  }
#else
  if (options.device == "cuda")
    return absl::FailedPreconditionError("--device cuda: this program was built without CUDA kernels");
  return CpuBench(options, "this program was built without CUDA kernels");
#endif
}

bool IsLeftOut(const absl::Status& status) {
  return absl::IsUnimplemented(status) || absl::IsResourceExhausted(status) || absl::IsInvalidArgument(status);
}

}  // namespace

double KernelsBenchFigure::tokens_per_s() const {
  const int64_t rows = shape.pass == Pass::kDecode ? shape.batch : shape.batch * shape.length;
  return figure.median > 0 ? static_cast<double>(rows) / figure.median : 0;
}

absl::StatusOr<std::vector<RetentionCase>> KernelsBenchCases(const KernelsBenchOptions& options, bool on_gpu) {
  if (absl::Status status = CheckLists(options); !status.ok()) return status;
  RetentionCase it;
  const absl::StatusOr<Pass> pass = ParsePass(options.pass);
  if (!pass.ok()) return pass.status();
  it.pass = *pass;
  if (it.pass != Pass::kDecode) {
    const KernelsBenchOptions defaults;
    const char* const flag = options.state_dtypes != defaults.state_dtypes ? "--kernel-state-dtype"
                             : options.layers != defaults.layers           ? "--graph-layers"
                                                                           : nullptr;
    if (flag != nullptr) return absl::InvalidArgumentError(absl::StrCat(flag, ": of pass decode only"));
  }
  if (on_gpu && it.pass == Pass::kDecode) it.layers = static_cast<int>(options.layers);
  std::vector<RetentionCase> out = {it};
  // Each step multiplies what there is by one list.
  const auto times = [&out](const auto& values, auto set) {
    std::vector<RetentionCase> product;
    for (const RetentionCase& made : out) {
      for (size_t i = 0; i < values.size(); ++i) set(product.emplace_back(made), i);
    }
    out = std::move(product);
  };
  std::vector<Number> dtypes, state_dtypes;
  for (const std::string& text : options.dtypes) {
    if (text == "auto") {
      dtypes.push_back(on_gpu ? Number::kBf16 : Number::kFloat32);
      continue;
    }
    const auto number = ParseNumber("--kernel-dtype", text);
    if (!number.ok()) return number.status();
    dtypes.push_back(*number);
  }
  for (const std::string& text : options.state_dtypes) {
    const auto number = ParseStateNumber(text);
    if (!number.ok()) return number.status();
    state_dtypes.push_back(*number);
  }
  times(dtypes, [&](RetentionCase& made, size_t i) { made.dtype = dtypes[i]; });
  times(state_dtypes, [&](RetentionCase& made, size_t i) { made.state_dtype = state_dtypes[i]; });
  times(options.heads, [&](RetentionCase& made, size_t i) {
    made.heads_q = static_cast<int>(options.heads[i]);
    const std::vector<int64_t>& kv = options.kv_heads.empty() ? options.heads : options.kv_heads;
    made.heads_kv = static_cast<int>(kv[std::min(i, kv.size() - 1)]);
  });
  times(options.head_dims,
        [&](RetentionCase& made, size_t i) { made.head_dim = static_cast<int>(options.head_dims[i]); });
  times(options.chunks, [&](RetentionCase& made, size_t i) { made.chunk = options.chunks[i]; });
  times(options.batches, [&](RetentionCase& made, size_t i) { made.batch = options.batches[i]; });
  times(options.lengths, [&](RetentionCase& made, size_t i) { made.length = options.lengths[i]; });
  return out;
}

absl::StatusOr<KernelsBenchReport> RunKernelsBench(const KernelsBenchOptions& options,
                                                   const KernelsBenchObserver& observer) {
  const absl::StatusOr<Bench> bench = ChooseBench(options);
  if (!bench.ok()) return bench.status();
  const absl::StatusOr<std::vector<RetentionCase>> cases = KernelsBenchCases(options, bench->is_gpu);
  if (!cases.ok()) return cases.status();
  KernelsBenchReport report;
  report.pass = options.pass;
  report.device = bench->is_gpu ? "cuda" : "cpu";
  report.why = bench->why;
  if (observer.on_progress) observer.on_progress("measuring the ceilings", 0, 0);
  const absl::StatusOr<Ceilings> ceilings = bench->ceilings();
  if (!ceilings.ok()) return ceilings.status();
  report.ceilings = *ceilings;
  if (observer.on_start) observer.on_start(report);
  int64_t done = 0;
  for (const RetentionCase& it : *cases) {
    if (observer.on_progress) observer.on_progress("measuring", done++, static_cast<int64_t>(cases->size()));
    const absl::StatusOr<Figure> figure = bench->measure(it);
    if (!figure.ok()) {
      if (!IsLeftOut(figure.status())) return figure.status();
      report.skipped.push_back(
          absl::StrCat(kernels::bench::ShapeName(it), ": ", std::string(figure.status().message())));
      continue;
    }
    report.figures.push_back({it, *figure, NeededFlops(it, figure->chunk), NeededBytes(it, figure->chunk)});
    report.figures.back().shape.chunk = figure->chunk;
    if (observer.on_figure) observer.on_figure(report, report.figures.back());
  }
  return report;
}

}  // namespace statehouse
