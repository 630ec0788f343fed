// One golden operator case (tests/golden/op): inputs, outputs of the float64 definition, and gradients.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "kernels/power_retention/layout.h"
#include "models/safetensors.h"

namespace statehouse::kernels {

class GoldenOp {
 public:
  static absl::StatusOr<GoldenOp> Open(const std::filesystem::path& path) {
    absl::StatusOr<Safetensors> file = Safetensors::Open(path);
    if (!file.ok()) return file.status();
    for (const char* name : {"b", "t", "heads_q", "heads_kv", "head_dim", "deg", "scale", "chunk_size"}) {
      if (!file->metadata().contains(name)) {
        return absl::InvalidArgumentError(path.string() + ": no " + name + " in its metadata");
      }
    }
    return GoldenOp(*std::move(file));
  }

  double Number(const char* name) const { return std::strtod(file_.metadata().at(name).c_str(), nullptr); }
  int64_t batch() const { return static_cast<int64_t>(Number("b")); }
  int64_t t() const { return static_cast<int64_t>(Number("t")); }                   // rows of a batch entry
  int64_t own_chunk() const { return static_cast<int64_t>(Number("chunk_size")); }  // 0: none

  // Heads, degree and scale; the chunk is the test's to choose.
  RetentionShape shape() const {
    return {.heads_q = static_cast<int>(Number("heads_q")),
            .heads_kv = static_cast<int>(Number("heads_kv")),
            .head_dim = static_cast<int>(Number("head_dim")),
            .degree = static_cast<int>(Number("deg")),
            .scale = static_cast<float>(Number("scale"))};
  }

  // First rows of the batch entries, one after another, and their total.
  std::vector<int64_t> cu_seqlens() const {
    std::vector<int64_t> first_rows;
    for (int64_t entry = 0; entry <= batch(); ++entry) first_rows.push_back(entry * t());
    return first_rows;
  }

  // A tensor of all batch entries, or of one; empty if the case has none of that name.
  std::vector<float> Floats(const std::string& name) const { return Part(name, 0, 1); }
  std::vector<float> Floats(const std::string& name, int64_t entry) const { return Part(name, entry, batch()); }

 private:
  explicit GoldenOp(Safetensors file) : file_(std::move(file)) {}

  std::vector<float> Part(const std::string& name, int64_t part, int64_t num_parts) const {
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) return {};
    EXPECT_EQ(found->second.dtype, "F32") << name;
    const int64_t size = found->second.num_bytes / 4 / num_parts;
    EXPECT_EQ(size * num_parts * 4, found->second.num_bytes) << name;
    std::vector<float> out(size);
    if (size > 0) std::memcpy(out.data(), found->second.data + part * size * 4, size * 4);
    return out;
  }

  Safetensors file_;
};

}  // namespace statehouse::kernels
