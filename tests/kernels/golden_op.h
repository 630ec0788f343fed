// One golden operator case (tests/golden/op): inputs, outputs of the float64 definition, and gradients.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/power_retention/layout.h"
#include "models/safetensors.h"

namespace statehouse::kernels {

class GoldenOp {
 public:
  // INVALID_ARGUMENT names the file and what is missing, or not what the format says: a case that says too little must
  // not pass.
  static absl::StatusOr<GoldenOp> Open(const std::filesystem::path& path) {
    absl::StatusOr<Safetensors> file = Safetensors::Open(path);
    if (!file.ok()) return file.status();
    GoldenOp golden(*std::move(file));
    absl::Status status = golden.ReadMetadata();
    if (status.ok()) status = golden.CheckTensors();
    if (status.ok()) return golden;
    return absl::InvalidArgumentError(path.string() + ": " + std::string(status.message()));
  }

  double scale() const { return scale_; }
  int64_t batch() const { return batch_; }
  int64_t t() const { return t_; }                  // rows of a batch entry
  int64_t own_chunk() const { return own_chunk_; }  // 0: none

  // Heads, degree and scale; the chunk is the test's to choose.
  const RetentionShape& shape() const { return shape_; }

  // First rows of the batch entries, one after another, and their total.
  std::vector<int64_t> cu_seqlens() const {
    std::vector<int64_t> first_rows;
    for (int64_t entry = 0; entry <= batch_; ++entry) first_rows.push_back(entry * t_);
    return first_rows;
  }

  // A tensor of all batch entries, or of one; empty if the case has no gates and the name is that of gates.
  std::vector<float> Floats(const std::string& name) const { return Part(name, 0, 1); }
  std::vector<float> Floats(const std::string& name, int64_t entry) const { return Part(name, entry, batch_); }

 private:
  explicit GoldenOp(Safetensors file) : file_(std::move(file)) {}

  template <typename Number>
  absl::Status Read(const char* name, Number low, Number high, Number* to) const {
    const auto found = file_.metadata().find(name);
    if (found == file_.metadata().end())
      return absl::InvalidArgumentError(std::string("no ") + name + " in its metadata");
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *to);
    if (error == std::errc() && end == text.data() + text.size() && *to >= low && *to <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(std::string(name) + " is \"" + text + "\"; expected " + std::to_string(low) +
                                      " … " + std::to_string(high));
  }

  absl::Status ReadMetadata() {
    absl::Status status;
    status.Update(Read<int64_t>("b", 1, 1 << 20, &batch_));
    status.Update(Read<int64_t>("t", 1, int64_t{1} << 40, &t_));
    status.Update(Read<int64_t>("chunk_size", 0, int64_t{1} << 40, &own_chunk_));
    status.Update(Read("heads_kv", 1, 1 << 20, &shape_.heads_kv));
    status.Update(Read("heads_q", 1, 1 << 20, &shape_.heads_q));
    status.Update(Read("head_dim", 1, 1 << 20, &shape_.head_dim));
    status.Update(Read("deg", 2, 4, &shape_.degree));
    status.Update(Read("scale", 0.0, 1e30, &scale_));
    if (!status.ok()) return status;
    if (shape_.heads_q % shape_.heads_kv != 0) return absl::InvalidArgumentError("heads_q is no multiple of heads_kv");
    if (shape_.degree == 3) return absl::InvalidArgumentError("deg is 3; expected 2 or 4");
    if (scale_ == 0) return absl::InvalidArgumentError("scale is 0");
    shape_.scale = static_cast<float>(scale_);
    return absl::OkStatus();
  }

  absl::Status CheckTensors() const {
    const std::vector<int64_t> queries = {batch_, t_, shape_.heads_q, shape_.head_dim};
    const std::vector<int64_t> keys = {batch_, t_, shape_.heads_kv, shape_.head_dim};
    const std::vector<int64_t> gates = {batch_, t_, shape_.heads_kv};
    absl::Status status;
    for (const char* name : {"Q", "Y", "dY", "dQ"}) status.Update(CheckTensor(name, queries));
    for (const char* name : {"K", "V", "dK", "dV"}) status.Update(CheckTensor(name, keys));
    const bool has_gates = file_.tensors().contains("log_G");
    for (const char* name : {"log_G", "dlog_G"}) {
      if (has_gates) status.Update(CheckTensor(name, gates));
      if (!has_gates && file_.tensors().contains(name)) {
        status.Update(absl::InvalidArgumentError(std::string(name) + " without log_G"));
      }
    }
    const auto gating = file_.metadata().find("gating");
    if (gating != file_.metadata().end() && gating->second == (has_gates ? "0" : "1")) {
      status.Update(absl::InvalidArgumentError("gating is " + gating->second + ", which log_G contradicts"));
    }
    return status;
  }

  absl::Status CheckTensor(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) return absl::InvalidArgumentError("no tensor " + name);
    if (found->second.dtype != "F32" || found->second.shape != shape) {
      return absl::InvalidArgumentError("tensor " + name + " is not F32 of the shape that its metadata says");
    }
    for (const float value : Floats(name)) {
      if (!std::isfinite(value)) return absl::InvalidArgumentError("tensor " + name + " is not finite");
    }
    return absl::OkStatus();
  }

  std::vector<float> Part(const std::string& name, int64_t part, int64_t num_parts) const {
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) return {};
    const int64_t size = found->second.num_bytes / 4 / num_parts;
    std::vector<float> out(size);
    std::memcpy(out.data(), found->second.data + part * size * 4, size * 4);
    return out;
  }

  Safetensors file_;
  RetentionShape shape_;
  int64_t batch_ = 0, t_ = 0, own_chunk_ = 0;
  double scale_ = 0;
};

}  // namespace statehouse::kernels
