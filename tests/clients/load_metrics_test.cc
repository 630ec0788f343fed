// The arithmetic of the load benchmark, against a plain model written from the definitions.
#include "clients/cli/load_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace statehouse::cli {
namespace {

// A request sent at `sent` whose events arrive `gaps` after one another.
RequestRecord Record(double sent, std::vector<double> gaps, int64_t output_tokens) {
  RequestRecord record;
  record.ok = true;
  record.sent = sent;
  double time = sent;
  for (double gap : gaps) record.outputs.push_back(time += gap);
  record.first_text = record.outputs.empty() ? -1 : record.outputs.front();
  record.prompt_tokens = 10;
  record.output_tokens = output_tokens;
  return record;
}

// Of n sorted values the p-th percentile lies at (n-1)p/100, between its neighbours in proportion.
double PlainPercentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  const double rank = static_cast<double>(values.size() - 1) * p / 100;
  const double low = values[static_cast<size_t>(std::floor(rank))], high = values[static_cast<size_t>(std::ceil(rank))];
  return low + (high - low) * (rank - std::floor(rank));
}

TEST(Percentile, RandomValues_AreThoseOfThePlainModel) {
  std::mt19937_64 random(7);
  for (int size : {1, 2, 3, 10, 99, 1000}) {
    std::vector<double> values(size);
    for (double& value : values) value = std::exponential_distribution<double>(1)(random);
    std::sort(values.begin(), values.end());
    for (double p : {0.0, 1.0, 33.3, 50.0, 90.0, 99.0, 100.0}) {
      EXPECT_NEAR(Percentile(values, p), PlainPercentile(values, p), 1e-12) << size << " values, p" << p;
    }
  }
}

TEST(Percentile, KnownValues_AreNumpys) {
  // numpy.percentile([1, 2, 4, 8], [50, 90, 99])
  EXPECT_DOUBLE_EQ(Percentile({1, 2, 4, 8}, 50), 3.0);
  EXPECT_DOUBLE_EQ(Percentile({1, 2, 4, 8}, 90), 6.8);
  EXPECT_NEAR(Percentile({1, 2, 4, 8}, 99), 7.88, 1e-12);
  EXPECT_EQ(Percentile({}, 50), 0);
}

TEST(Summarize, FewValues_HaveMeanAndDeviationOfThePopulation) {
  const Distribution d = Summarize({4, 1, 1});
  EXPECT_EQ(d.count, 3);
  EXPECT_DOUBLE_EQ(d.mean, 2);
  EXPECT_DOUBLE_EQ(d.stddev, std::sqrt(2.0));
  EXPECT_EQ(d.min, 1);
  EXPECT_EQ(d.max, 4);
}

TEST(MakeReport, TwoRequests_FollowTheDefinitions) {
  // Three tokens in three events; and four tokens in two events, which makes one gap of two tokens.
  const LoadReport report = MakeReport({Record(0, {0.5, 0.1, 0.3}, 3), Record(1, {0.2, 0.6}, 4)}, {});
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.output_tokens, 7);
  EXPECT_EQ(report.prompt_tokens, 20);
  EXPECT_DOUBLE_EQ(report.duration, 1.8);
  EXPECT_NEAR(report.output_tokens_per_s, 7 / 1.8, 1e-12);
  EXPECT_NEAR(report.total_tokens_per_s, 27 / 1.8, 1e-12);
  EXPECT_NEAR(report.ttft.mean, (0.5 + 0.2) / 2, 1e-12);
  EXPECT_NEAR(report.tpot.mean, ((0.1 + 0.3) / 2 + 0.6 / 3) / 2, 1e-12);
  EXPECT_EQ(report.itl.count, 3);
  EXPECT_NEAR(report.itl.mean, (0.1 + 0.3 + 0.6) / 3, 1e-12);
  EXPECT_NEAR(report.e2el.max, 0.9, 1e-12);
  EXPECT_NEAR(report.per_token_with_first.mean, (0.9 / 3 + 0.8 / 4) / 2, 1e-12);
  EXPECT_EQ(report.peak_concurrency, 1);
  EXPECT_FALSE(report.goodput.has_value());
}

TEST(MakeReport, TextThatComesLater_CountsFromThereInTheOtherConvention) {
  RequestRecord record = Record(1, {0.5, 0.1, 0.3}, 4);
  record.first_text = record.outputs[1];
  const LoadReport report = MakeReport({record}, {});
  EXPECT_NEAR(report.ttft.mean, 0.5, 1e-12);
  EXPECT_NEAR(report.first_text.mean, 0.6, 1e-12);
  EXPECT_NEAR(report.per_token_from_text.mean, (0.9 - 0.6) / 3, 1e-12);
  EXPECT_NEAR(report.decoding_s, 0.4, 1e-12);
  EXPECT_EQ(report.ttft.percentiles.size(), 101u);
}

TEST(MakeReport, OneTokenAnswer_HasNoTimePerOutputToken) {
  const LoadReport report = MakeReport({Record(0, {0.5}, 1)}, {});
  EXPECT_EQ(report.tpot.count, 0);
  EXPECT_EQ(report.itl.count, 0);
  EXPECT_EQ(report.ttft.count, 1);
}

TEST(MakeReport, Goals_CountRequestsThatKeepAllOfThem) {
  const std::vector<RequestRecord> records = {Record(0, {0.1, 0.1}, 2), Record(0, {0.3, 0.1}, 2),
                                              Record(0, {0.1, 0.9}, 2)};
  Goals goals;
  goals.ttft_ms = 200;
  EXPECT_NEAR(*MakeReport(records, goals).goodput, 2 / 1.0, 1e-12);
  goals.tpot_ms = 200;
  EXPECT_NEAR(*MakeReport(records, goals).goodput, 1 / 1.0, 1e-12);
  goals.e2el_ms = 100;
  EXPECT_EQ(*MakeReport(records, goals).goodput, 0);
}

TEST(MakeReport, FailedRequests_CountOnlyAsFailures) {
  RequestRecord failed;
  failed.error = "queue full";
  RequestRecord empty = Record(0, {}, 0);
  empty.error = "no output";
  const LoadReport report = MakeReport({failed, empty, Record(0, {0.5, 0.5}, 2)}, {});
  EXPECT_EQ(report.failed, 2);
  EXPECT_EQ(report.completed, 1);
  EXPECT_THAT(report.errors, testing::UnorderedElementsAre("queue full", "no output"));
}

TEST(MakeReport, OverlappingRequests_GiveThePeak) {
  EXPECT_EQ(MakeReport({Record(0, {1.0}, 1), Record(0.5, {1.0}, 1), Record(0.9, {0.05}, 1), Record(1.5, {1.0}, 1)}, {})
                .peak_concurrency,
            3);
}

}  // namespace
}  // namespace statehouse::cli
