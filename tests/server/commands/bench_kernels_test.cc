#include "server/commands/bench_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace statehouse {
namespace {

using kernels::bench::Number;
using testing::HasSubstr;

KernelsBenchOptions Small() {
  KernelsBenchOptions options;
  options.device = "cpu";
  options.threads = 1;
  options.lengths = {64, 200};
  options.heads = {4};
  options.kv_heads = {2};
  options.head_dims = {16};
  options.runs = 3;
  options.max_seconds = 0;
  return options;
}

TEST(BenchKernels, Lists_AreMultipliedAndHeadsPaired) {
  KernelsBenchOptions options = Small();
  options.heads = {4, 8}, options.kv_heads = {2, 8}, options.batches = {1, 3};
  const auto cases = KernelsBenchCases(options, /*on_gpu=*/true);
  ASSERT_TRUE(cases.ok()) << cases.status();
  EXPECT_EQ(cases->size(), 8u);
  for (const auto& it : *cases) {
    EXPECT_EQ(it.heads_kv, it.heads_q == 4 ? 2 : 8);
    EXPECT_EQ(it.dtype, Number::kBf16);  // auto on a GPU
  }
}

TEST(BenchKernels, WrongFlags_AreNamed) {
  const auto refused = [](auto change, const char* word) {
    KernelsBenchOptions options = Small();
    change(options);
    const auto report = RunKernelsBench(options, {});
    ASSERT_FALSE(report.ok());
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(word));
  };
  refused([](auto& it) { it.pass = "sideways"; }, "sideways");
  refused([](auto& it) { it.lengths = {0}; }, "--length 0");
  refused([](auto& it) { it.heads = {4, 8}, it.kv_heads = {1, 2, 4}; }, "--kv-heads 1,2,4");
  refused([](auto& it) { it.dtypes = {"int8"}; }, "int8");
  refused([](auto& it) { it.device = "tpu"; }, "tpu");
  refused([](auto& it) { it.runs = 0; }, "--runs 0");
  refused([](auto& it) { it.layers = 0; }, "--graph-layers 0");
  refused([](auto& it) { it.layers = 2; }, "--graph-layers");
  refused([](auto& it) { it.state_dtypes = {"bf16"}; }, "--kernel-state-dtype");
  refused([](auto& it) { it.pass = "decode", it.state_dtypes = {"auto"}; }, "--kernel-state-dtype auto");
}

TEST(BenchKernels, OnTheCpu_ReportsEveryCaseAndWhatItLeftOut) {
  KernelsBenchOptions options = Small();
  options.dtypes = {"float32", "bf16"};
  int heard = 0;
  const auto report = RunKernelsBench(options, {.on_figure = [&](const auto&, const auto&) { ++heard; }});
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->figures.size(), 2u);
  EXPECT_EQ(heard, 2);
  ASSERT_EQ(report->skipped.size(), 2u);
  EXPECT_THAT(report->skipped[0], HasSubstr("bf16"));
  EXPECT_THAT(KernelsBenchSummary(*report), HasSubstr("left out: b1 t64 Hq4 Hk2 d16 bf16"));

  const auto json = nlohmann::json::parse(KernelsBenchJson(*report));
  EXPECT_EQ(json["figures"].size(), 2u);
  EXPECT_EQ(json["figures"][1]["length"], 200);
  EXPECT_GT(json["ceilings"]["bytes_per_s"].get<double>(), 0);
  EXPECT_LT(json["figures"][0]["error"].get<double>(), 1e-4);

  const std::string csv = KernelsBenchCsv(*report);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 3);
  for (size_t begin = 0; begin < csv.size(); begin = csv.find('\n', begin) + 1) {
    const std::string line = csv.substr(begin, csv.find('\n', begin) - begin);
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 18) << line;
  }
  const std::string plot = KernelsBenchPlot(*report);
  EXPECT_THAT(plot, HasSubstr("throughput"));
  EXPECT_THAT(plot, HasSubstr("b1 Hq4 Hk2 d16 C128 float32"));
}

}  // namespace
}  // namespace statehouse
