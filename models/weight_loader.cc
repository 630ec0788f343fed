#include "models/weight_loader.h"

#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/content_hash.h"
#include "models/element.h"
#include "models/json.h"  // QuotedName

namespace statehouse {
namespace {

using kernels::SourceType;
using kernels::WeightType;

constexpr size_t kProblemsShown = 8;

std::optional<SourceType> SourceTypeOf(const std::string& dtype) {
  if (dtype == "F32") return SourceType::kF32;
  if (dtype == "F16") return SourceType::kF16;
  if (dtype == "BF16") return SourceType::kBF16;
  return std::nullopt;
}

WeightType TargetType(const TensorSpec& spec, SourceType source, LoadOptions::DType dtype) {
  const WeightType stored = source == SourceType::kBF16 ? WeightType::kBF16 : WeightType::kF32;
  if (dtype == LoadOptions::DType::kInt8 && spec.int8_mode != Int8Mode::kQuantise) {
    return spec.int8_mode == Int8Mode::kBF16 ? WeightType::kBF16 : stored;
  }
  switch (dtype) {
    case LoadOptions::DType::kAuto:
      return stored;
    case LoadOptions::DType::kF32:
      return WeightType::kF32;
    case LoadOptions::DType::kBF16:
      return WeightType::kBF16;
    case LoadOptions::DType::kInt8:
      return WeightType::kInt8;
  }
  return stored;
}

std::string ShownShape(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

std::string TensorAt(const std::string& file, const std::string& name) {
  return absl::StrCat(file, ": tensor ", QuotedName(name));
}

// Everything that can be said without reading data.
absl::Status CheckAgainstTable(const WeightFiles& files, const TensorTable& table) {
  std::vector<std::string> problems;
  std::set<std::string> known;
  for (const TensorSpec& spec : table.specs()) {
    known.insert(spec.name);
    const auto found = files.tensors().find(spec.name);
    if (found == files.tensors().end()) {
      if (!spec.optional) {
        problems.push_back(absl::StrCat(TensorAt(files.main_file(), spec.name), ": missing; expected F32, F16 or BF16 ",
                                        ShownShape(spec.shape)));
      }
      continue;
    }
    const auto& [file, view] = found->second;
    if (view.shape != spec.shape) {
      problems.push_back(absl::StrCat(TensorAt(file, spec.name), ": shape ", ShownShape(view.shape), "; expected ",
                                      ShownShape(spec.shape), " from config.json"));
    }
    if (!SourceTypeOf(view.dtype)) {
      problems.push_back(
          absl::StrCat(TensorAt(file, spec.name), ": dtype ", view.dtype, "; expected F32, F16 or BF16"));
    }
  }
  for (const UnusedTensor& unused : table.unused()) known.insert(unused.name);
  for (const auto& [name, tensor] : files.tensors()) {
    if (known.contains(name)) continue;
    problems.push_back(
        absl::StrCat(TensorAt(tensor.file, name), ": unexpected; expected only tensors that config.json calls for"));
  }
  if (problems.empty()) return absl::OkStatus();
  const size_t num_problems = problems.size();
  if (num_problems > kProblemsShown) {
    problems.resize(kProblemsShown);
    problems.push_back(absl::StrCat("… and ", num_problems - kProblemsShown, " more"));
  }
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

absl::Status LoadVector(const WeightFiles::Tensor& tensor, const TensorSpec& spec, SourceType type) {
  const int64_t size = spec.num_elements();
  spec.vector->resize(size);
  for (int64_t i = 0; i < size; ++i) {
    const float value = ElementAt(tensor.view.data, type, i);
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(TensorAt(tensor.file, spec.name), ": element ", i, " is ", value, "; expected finite values"));
    }
    (*spec.vector)[i] = value;
  }
  return absl::OkStatus();
}

absl::Status LoadMatrix(const WeightFiles::Tensor& tensor, const TensorSpec& spec, SourceType type, WeightType target,
                        kernels::ThreadPool& pool) {
  const kernels::SourceMatrix source = {tensor.view.data, type, spec.shape[0], spec.shape[1]};
  absl::Status status;
  if (spec.sink != nullptr) {
    status = spec.sink->Accept(source, pool);
  } else {
    auto packed = kernels::PackedMatrix::Pack(source, target, pool);
    status = packed.status();
    if (packed.ok()) *spec.matrix = *std::move(packed);
  }
  if (status.ok()) return status;
  // Shapes were checked before, so an invalid argument is an invalid value.
  const char* expectation = absl::IsInvalidArgument(status) ? "; expected finite values" : "";
  return absl::Status(status.code(),
                      absl::StrCat(TensorAt(tensor.file, spec.name), ": ", std::string(status.message()), expectation));
}

int64_t BytesToLoad(const WeightFiles& files, const TensorTable& table) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : table.specs()) {
    const auto found = files.tensors().find(spec.name);
    if (found != files.tensors().end()) bytes += found->second.view.num_bytes;
  }
  return bytes;
}

void WarnOfUnused(const WeightFiles& files, const TensorTable& table, const LoadOptions& options) {
  if (!options.on_warning) return;
  for (const UnusedTensor& unused : table.unused()) {
    const auto found = files.tensors().find(unused.name);
    if (found == files.tensors().end()) continue;
    options.on_warning(absl::StrCat(TensorAt(found->second.file, unused.name), ": not used, because ", unused.why));
  }
}

}  // namespace

absl::StatusOr<uint64_t> LoadTensors(const WeightFiles& files, const TensorTable& table, const LoadOptions& options,
                                     kernels::ThreadPool& pool) {
  if (absl::Status status = CheckAgainstTable(files, table); !status.ok()) return status;
  WarnOfUnused(files, table, options);
  const int64_t bytes_total = BytesToLoad(files, table);
  int64_t bytes_done = 0;
  ContentHash hash;
  for (const TensorSpec& spec : table.specs()) {
    const auto found = files.tensors().find(spec.name);
    if (found == files.tensors().end()) continue;
    const WeightFiles::Tensor& tensor = found->second;
    const SourceType type = *SourceTypeOf(tensor.view.dtype);
    // Hashed while it comes in: what is packed next is then in the page cache.
    hash.AddText(spec.name);
    hash.AddText(tensor.view.dtype);
    hash.AddText(ShownShape(spec.shape));
    hash.AddBytes(tensor.view.data, tensor.view.num_bytes);
    absl::Status status = spec.vector != nullptr
                              ? LoadVector(tensor, spec, type)
                              : LoadMatrix(tensor, spec, type, TargetType(spec, type, options.dtype), pool);
    if (!status.ok()) return status;
    bytes_done += tensor.view.num_bytes;
    if (options.progress) options.progress(bytes_done, bytes_total);
  }
  return hash.Digest();
}

}  // namespace statehouse
