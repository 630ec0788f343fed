#include "clients/cli/load_metrics.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace statehouse::cli {
namespace {

// The most requests that were under way at once.
int64_t PeakConcurrency(const std::vector<RequestRecord>& records) {
  std::vector<std::pair<double, int>> changes;  // at equal times an end comes before a start
  for (const RequestRecord& record : records) {
    if (record.outputs.empty()) continue;
    changes.emplace_back(record.sent, 1);
    changes.emplace_back(record.outputs.back(), -1);
  }
  std::sort(changes.begin(), changes.end());
  int64_t now = 0, peak = 0;
  for (const auto& [time, change] : changes) peak = std::max(peak, now += change);
  return peak;
}

double Tpot(const RequestRecord& record) {
  if (record.output_tokens <= 1) return 0;
  return (record.outputs.back() - record.outputs.front()) / static_cast<double>(record.output_tokens - 1);
}

bool IsGood(const RequestRecord& record, const Goals& goals) {
  const auto keeps = [](const std::optional<double>& goal_ms, double seconds) {
    return !goal_ms || seconds * 1e3 <= *goal_ms;
  };
  return keeps(goals.ttft_ms, record.outputs.front() - record.sent) && keeps(goals.tpot_ms, Tpot(record)) &&
         keeps(goals.e2el_ms, record.outputs.back() - record.sent);
}

}  // namespace

double Percentile(const std::vector<double>& values, double percent) {
  if (values.empty()) return 0;
  const double rank = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(rank);
  if (below + 1 >= values.size()) return values.back();
  return values[below] + (rank - static_cast<double>(below)) * (values[below + 1] - values[below]);
}

Distribution Summarize(std::vector<double> values) {
  Distribution result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  double sum = 0, squares = 0;
  for (double value : values) sum += value;
  result.count = static_cast<int64_t>(values.size());
  result.mean = sum / static_cast<double>(values.size());
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.stddev = std::sqrt(squares / static_cast<double>(values.size()));
  result.min = values.front();
  result.p50 = Percentile(values, 50);
  result.p90 = Percentile(values, 90);
  result.p99 = Percentile(values, 99);
  result.max = values.back();
  for (int percent = 0; percent <= 100; ++percent) result.percentiles.push_back(Percentile(values, percent));
  return result;
}

LoadReport MakeReport(const std::vector<RequestRecord>& records, const Goals& goals) {
  LoadReport report;
  std::vector<double> ttft, tpot, itl, e2el, first_text, from_text, per_token;
  std::set<std::string> errors;
  double begin = INFINITY, end = 0;
  int64_t good = 0;
  for (const RequestRecord& record : records) {
    begin = std::min(begin, record.sent);
    if (!record.ok || record.outputs.empty()) {
      ++report.failed;
      if (errors.size() < 5) errors.insert(record.error);
      continue;
    }
    const double latency = record.outputs.back() - record.sent;
    ++report.completed;
    end = std::max(end, record.outputs.back());
    report.prompt_tokens += record.prompt_tokens;
    report.output_tokens += record.output_tokens;
    ttft.push_back(record.outputs.front() - record.sent);
    e2el.push_back(latency);
    if (record.output_tokens > 1) tpot.push_back(Tpot(record));
    for (size_t i = 1; i < record.outputs.size(); ++i) itl.push_back(record.outputs[i] - record.outputs[i - 1]);
    report.decoding_s += record.outputs.back() - record.outputs.front();
    if (record.first_text >= 0) {
      first_text.push_back(record.first_text - record.sent);
      const double rest = record.outputs.back() - record.first_text;
      if (record.output_tokens > 1) from_text.push_back(rest / static_cast<double>(record.output_tokens - 1));
    }
    if (record.output_tokens > 0) per_token.push_back(latency / static_cast<double>(record.output_tokens));
    if (IsGood(record, goals)) ++good;
  }
  report.errors.assign(errors.begin(), errors.end());
  report.peak_concurrency = PeakConcurrency(records);
  if (report.completed > 0 && end > begin) {
    report.duration = end - begin;
    report.requests_per_s = static_cast<double>(report.completed) / report.duration;
    report.output_tokens_per_s = static_cast<double>(report.output_tokens) / report.duration;
    report.total_tokens_per_s = static_cast<double>(report.output_tokens + report.prompt_tokens) / report.duration;
    if (goals.any()) report.goodput = static_cast<double>(good) / report.duration;
  }
  report.ttft = Summarize(std::move(ttft));
  report.tpot = Summarize(std::move(tpot));
  report.itl = Summarize(std::move(itl));
  report.e2el = Summarize(std::move(e2el));
  report.first_text = Summarize(std::move(first_text));
  report.per_token_from_text = Summarize(std::move(from_text));
  report.per_token_with_first = Summarize(std::move(per_token));
  return report;
}

}  // namespace statehouse::cli
