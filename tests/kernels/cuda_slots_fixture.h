// Sequences on slots on the GPU, fed in steps, for tests of their retention; and heads as a product leaves them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/slot_retention.h"
#include "kernels/rope/cuda/heads.h"
#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {

inline constexpr int64_t kMaxRows = 1100;  // of a step

// How heads that a product left are made ready: all of it drawn at random.
class RawHeads {
 public:
  RawHeads(std::mt19937& rng, const RetentionShape& shape) : shape_(shape) {
    const auto draw = [&](DeviceBuffer& to, int64_t size, float about) {
      std::vector<float> values = Normals(rng, size);
      for (float& value : values) value = about + 0.3f * value;
      EXPECT_TRUE(to.Allocate(size * 4).ok());
      EXPECT_TRUE(to.Upload(values.data(), size * 4).ok());
    };
    draw(bias_, (shape.heads_q + 2 * shape.heads_kv) * int64_t{shape.head_dim} + shape.heads_kv, 0.1f);
    draw(q_norm_, shape.head_dim, 1);
    draw(k_norm_, shape.head_dim, 1);
    EXPECT_TRUE(angles_.Allocate(kMaxRows * shape.head_dim / 2 * sizeof(float2)).ok());
  }
  // What row i of the coming step, at positions[i], is turned by.
  void SetPositions(const std::vector<int64_t>& positions) {
    std::vector<float2> angles;
    for (const int64_t position : positions) {
      for (int i = 0; i < shape_.head_dim / 2; ++i) {
        const double angle = static_cast<double>(position) / (1 + i);
        angles.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
      }
    }
    EXPECT_TRUE(angles_.Upload(angles.data(), angles.size() * sizeof(float2)).ok());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // an upload may end later than it returns
  }
  SlotHeads heads() const {
    return {.bias = bias_.as<float>(),
            .q_norm = q_norm_.as<float>(),
            .k_norm = k_norm_.as<float>(),
            .angles = angles_.as<float2>(),
            .epsilon = 1e-6f};
  }
  // Makes rows ready in place.
  void Prepare(float* x, int64_t rows, int64_t stride, cudaStream_t stream) const {
    const absl::Status status = CudaPrepareHeads({.x = x,
                                                  .bias = bias_.as<float>(),
                                                  .q_norm = q_norm_.as<float>(),
                                                  .k_norm = k_norm_.as<float>(),
                                                  .angles = angles_.as<float2>(),
                                                  .num_rows = rows,
                                                  .row_stride = stride,
                                                  .heads_q = shape_.heads_q,
                                                  .heads_kv = shape_.heads_kv,
                                                  .head_dim = shape_.head_dim},
                                                 stream);
    EXPECT_TRUE(status.ok()) << status;
  }

 private:
  const RetentionShape shape_;
  DeviceBuffer bias_, q_norm_, k_norm_, angles_;
};

// Sequences on the GPU that read rows of one problem each, in steps.
class GpuSequences {
 public:
  GpuSequences(const RetentionShape& shape, SlotRetentionMode mode, int count, bool y_is_bf16 = false)
      : y_is_bf16_(y_is_bf16),
        layout_(*RetentionLayout::Make(shape)),
        retention_(*SlotRetention::Make(layout_, mode)),
        stream_(*Stream::Make()),
        positions_(count) {
    const auto device = GetDeviceProperties(0);
    EXPECT_TRUE(device.ok()) << device.status();
    const int multiprocessors = device.ok() ? device->num_multiprocessors : 1;
    EXPECT_TRUE(plan_.Reserve(layout_, kMaxRows, mode, multiprocessors).ok());
    EXPECT_TRUE(retention_.Reserve(kMaxRows).ok());
    EXPECT_TRUE(slots_.Allocate(count * layout_.layer_floats() * 4).ok());
    EXPECT_EQ(cudaMemset(slots_.as<void>(), 0, slots_.bytes()), cudaSuccess);
    const int64_t stride = Stride();
    EXPECT_TRUE(x_.Allocate(kMaxRows * stride * 4).ok());
    EXPECT_TRUE(y_.Allocate(kMaxRows * shape.heads_q * shape.head_dim * 4).ok());
    EXPECT_TRUE(segments_.Allocate(plan_.max_segments() * sizeof(SlotSegment)).ok());
    EXPECT_TRUE(tiles_.Allocate(plan_.max_tiles() * sizeof(SlotTile)).ok());
    EXPECT_TRUE(folds_.Allocate(plan_.max_folds() * 4).ok());
  }

  // The next rows[i] rows of sequence i; Y[i] receives them at their positions.
  void Step(const std::vector<RetentionProblem>& problems, const std::vector<int64_t>& rows,
            std::vector<std::vector<float>>* Y) {
    const RetentionShape& shape = layout_.shape();
    const int64_t q_width = int64_t{shape.heads_q} * shape.head_dim,
                  kv_width = int64_t{shape.heads_kv} * shape.head_dim;
    std::vector<float> x;
    std::vector<int64_t> positions;
    std::vector<SlotRows> step;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) continue;
      const RetentionProblem& problem = problems[i];
      step.push_back(
          {Slot(i), positions_[i], static_cast<int32_t>(x.size() / Stride()), static_cast<int32_t>(rows[i])});
      for (int64_t t = positions_[i]; t < positions_[i] + rows[i]; ++t) {
        const size_t row = x.size();
        x.resize(row + Stride(), std::nanf(""));
        positions.push_back(t);
        std::copy_n(&problem.Q[t * q_width], q_width, &x[row]);
        std::copy_n(&problem.K[t * kv_width], kv_width, &x[row + q_width]);
        std::copy_n(&problem.V[t * kv_width], kv_width, &x[row + q_width + kv_width]);
        std::copy_n(&problem.log_G[t * shape.heads_kv], shape.heads_kv, &x[row + q_width + 2 * kv_width]);
      }
    }
    plan_.Make(step);
    const auto upload = [](DeviceBuffer& to, const auto& values) {
      ASSERT_TRUE(to.Upload(values.data(), values.size() * sizeof(values[0])).ok());
    };
    upload(x_, x);
    upload(segments_, plan_.segments());
    upload(tiles_, plan_.tiles());
    upload(folds_, plan_.folds());
    ASSERT_EQ(cudaMemset(y_.as<void>(), 0xff, y_.bytes()), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // the stream does not wait for what comes before by itself
    if (raw_ != nullptr) raw_->SetPositions(positions);
    const bool stays_raw = raw_ != nullptr && plan_.takes_raw_heads();
    num_raw_steps_ += stays_raw;
    if (raw_ != nullptr && !stays_raw) raw_->Prepare(x_.as<float>(), step_rows(x), Stride(), stream_.get());
    const float* base = x_.as<float>();
    const absl::Status status = retention_.Run(plan_,
                                               {.q = base,
                                                .k = base + q_width,
                                                .v = base + q_width + kv_width,
                                                .log_g = base + q_width + 2 * kv_width,
                                                .row_stride = Stride(),
                                                .heads = stays_raw ? raw_->heads() : SlotHeads(),
                                                .y = y_.as<void>(),
                                                .y_is_bf16 = y_is_bf16_,
                                                .segments = segments_.as<SlotSegment>(),
                                                .tiles = tiles_.as<SlotTile>(),
                                                .folds = folds_.as<int32_t>()},
                                               stream_.get());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(stream_.Synchronize().ok());
    for (size_t i = 0, at = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) continue;
      float* const to = &(*Y)[i][positions_[i] * q_width];
      if (y_is_bf16_) {
        std::vector<uint16_t> y(rows[i] * q_width);
        ASSERT_TRUE(y_.Download(y.data(), y.size() * 2, at * 2).ok());
        for (size_t j = 0; j < y.size(); ++j) to[j] = std::bit_cast<float>(uint32_t{y[j]} << 16);
      } else {
        ASSERT_TRUE(y_.Download(to, rows[i] * q_width * 4, at * 4).ok());
      }
      at += rows[i] * q_width;
      positions_[i] += rows[i];
    }
  }

  // Rows that sequence i may take now, of `wanted`; runs its switch-over first if it is due.
  int64_t Prepare(size_t i, int64_t wanted) {
    const RetentionShape& shape = layout_.shape();
    if (!layout_.has_state()) return wanted;
    if (positions_[i] == shape.switch_over && positions_[i] > 0) {
      for (int head = 0; head < shape.heads_kv; ++head) {
        EXPECT_TRUE(retention_.SwitchOver(Slot(i), head, stream_.get()).ok());
      }
    }
    return positions_[i] < shape.switch_over ? std::min(wanted, shape.switch_over - positions_[i]) : wanted;
  }

  std::vector<float> Memory(size_t i) {
    EXPECT_TRUE(stream_.Synchronize().ok());
    std::vector<float> memory(layout_.layer_floats());
    EXPECT_TRUE(slots_.Download(memory.data(), memory.size() * 4, i * memory.size() * 4).ok());
    return memory;
  }
  void SetMemory(size_t i, const std::vector<float>& memory, int64_t position) {
    EXPECT_TRUE(slots_.Upload(memory.data(), memory.size() * 4, i * memory.size() * 4).ok());
    positions_[i] = position;
  }
  int64_t position(size_t i) const { return positions_[i]; }
  // Problems hold what a product left from now on.
  void UseRawHeads(RawHeads* raw) { raw_ = raw; }
  int64_t num_raw_steps() const { return num_raw_steps_; }
  // A problem's rows made ready on the GPU, all at once.
  RetentionProblem Prepared(const RetentionProblem& raw_problem, RawHeads* raw) {
    const RetentionShape& shape = layout_.shape();
    const int64_t q = int64_t{shape.heads_q} * shape.head_dim, kv = int64_t{shape.heads_kv} * shape.head_dim;
    RetentionProblem problem = raw_problem;
    std::vector<float> x(problem.t * Stride());
    std::vector<int64_t> positions(problem.t);
    const auto each_row = [&](const auto& copy) {
      for (int64_t t = 0; t < problem.t; ++t) {
        float* row = &x[t * Stride()];
        copy(&problem.Q[t * q], row, q), copy(&problem.K[t * kv], row + q, kv);
        copy(&problem.V[t * kv], row + q + kv, kv),
            copy(&problem.log_G[t * shape.heads_kv], row + q + 2 * kv, shape.heads_kv);
        positions[t] = t;
      }
    };
    each_row([](const float* from, float* to, int64_t size) { std::copy_n(from, size, to); });
    EXPECT_TRUE(x_.Upload(x.data(), x.size() * 4).ok());
    raw->SetPositions(positions);
    raw->Prepare(x_.as<float>(), problem.t, Stride(), stream_.get());
    EXPECT_TRUE(stream_.Synchronize().ok());
    EXPECT_TRUE(x_.Download(x.data(), x.size() * 4).ok());
    each_row([](float* to, const float* from, int64_t size) { std::copy_n(from, size, to); });
    return problem;
  }

 private:
  int64_t step_rows(const std::vector<float>& x) const { return static_cast<int64_t>(x.size()) / Stride(); }
  int64_t Stride() const {
    const RetentionShape& shape = layout_.shape();
    // Longer than the rows, and even as the kernels ask.
    return (int64_t{shape.heads_q} + 2 * shape.heads_kv) * shape.head_dim + (shape.heads_kv + 3) / 2 * 2;
  }
  float* Slot(size_t i) { return slots_.as<float>() + i * layout_.layer_floats(); }

  const bool y_is_bf16_;
  const RetentionLayout layout_;
  SlotRetention retention_;
  Stream stream_;
  SlotRetentionPlan plan_;
  std::vector<int64_t> positions_;
  DeviceBuffer slots_, x_, y_, segments_, tiles_, folds_;
  RawHeads* raw_ = nullptr;
  int64_t num_raw_steps_ = 0;
};

}  // namespace statehouse::kernels
