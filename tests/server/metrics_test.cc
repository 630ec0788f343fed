#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "server/metrics.h"
#include "server/metrics_text.h"
#include "server/metrics_writer.h"
#include "tests/support/fake_engine.h"
#include "tests/support/server_fixture.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

TEST(Metrics, AHistogram_IsCumulativeAndCountsItsBoundsIn) {
  constexpr std::array bounds = {1.0, 2.5};
  BucketHistogram histogram(bounds);
  histogram.Observe(1.0);
  histogram.Observe(2.0, 3);
  histogram.Observe(9.0);
  MetricsWriter out("model_name=\"m\"");
  out.Add("x", "Help.", histogram);
  EXPECT_EQ(out.text(),
            "# HELP x Help.\n# TYPE x histogram\n"
            "x_bucket{model_name=\"m\",le=\"1\"} 1\n"
            "x_bucket{model_name=\"m\",le=\"2.5\"} 4\n"
            "x_bucket{model_name=\"m\",le=\"+Inf\"} 5\n"
            "x_sum{model_name=\"m\"} 16\n"
            "x_count{model_name=\"m\"} 5\n");
}

TEST(Metrics, ALabel_IsEscaped) { EXPECT_EQ(MetricsWriter::Escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd"); }

TEST(Metrics, TheText_HasTheNamesThatRoutersKeyOn) {
  testing::FakeTokenizer tokenizer;
  testing::FakeEngine engine;
  engine.mutable_stats().step_tokens.Observe(300);
  const ServedModel model = testing::FakeServedModel(&engine, &tokenizer);
  ServerMetrics metrics;
  metrics.CountCall("Generate", "OK");
  const std::string text = MetricsText(metrics, &model);
  const std::string labels = "{model_name=\"fake\",engine=\"0\"}";
  EXPECT_THAT(text, HasSubstr("\nvllm:num_requests_running" + labels + " 0\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:num_requests_waiting" + labels + " 0\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:kv_cache_usage_perc" + labels + " 0.25\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_success_total{model_name=\"fake\",engine=\"0\",finished_reason=\"stop\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\n# TYPE vllm:time_to_first_token_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:iteration_tokens_total_bucket{model_name=\"fake\",engine=\"0\",le=\"512\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:iteration_tokens_total_sum" + labels + " 300\n"));
  EXPECT_THAT(text, HasSubstr("\nstatehouse_slots_total" + labels + " 4\n"));
  EXPECT_THAT(text, HasSubstr("statehouse_calls_total{method=\"Generate\",status=\"OK\"} 1\n"));
}

TEST(Metrics, TheWarmUp_CountsAsNoRequest) {
  testing::FakeTokenizer tokenizer;
  testing::FakeEngine engine;
  engine.mutable_stats().finished[static_cast<size_t>(FinishReason::kLength)] = 3;
  ServedModel model = testing::FakeServedModel(&engine, &tokenizer);
  model.warm_up_outputs[static_cast<size_t>(FinishReason::kLength)] = 1;
  EXPECT_THAT(MetricsText(ServerMetrics(), &model), HasSubstr("finished_reason=\"length\"} 2\n"));
}

TEST(Metrics, BeforeTheModelIsLoaded_TheServersOwnFiguresCome) {
  ServerMetrics metrics;
  const std::string text = MetricsText(metrics, nullptr);
  EXPECT_THAT(text, HasSubstr("\nstatehouse_ready 0\n"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("vllm:")));
}

}  // namespace
}  // namespace statehouse
