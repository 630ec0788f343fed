// Writes one metric after another in Prometheus' text format. Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/stats.h"
#include "server/metrics.h"

namespace statehouse {

class MetricsWriter {
 public:
  // `labels` go on every sample: `model_name="x",engine="0"`.
  explicit MetricsWriter(std::string labels) : labels_(std::move(labels)) {}

  void Gauge(std::string_view name, std::string_view help, double value) { Single(name, help, "gauge", value); }
  void Counter(std::string_view name, std::string_view help, double value) { Single(name, help, "counter", value); }
  // For several samples of one name: Family(), then Sample() with further labels.
  void Family(std::string_view name, std::string_view help, std::string_view type);
  void Sample(std::string_view name, std::string_view extra_labels, double value);
  void Add(std::string_view name, std::string_view help, const BucketHistogram& histogram);
  // One family's member; Family(name, help, "histogram") comes before.
  void Sample(std::string_view name, std::string_view extra_labels, const Histogram& histogram);

  const std::string& text() const { return text_; }

  // `value` escaped for a label.
  static std::string Escape(std::string_view value);

 private:
  void Single(std::string_view name, std::string_view help, std::string_view type, double value);

  const std::string labels_;
  std::string text_;
};

}  // namespace statehouse
