#include "server/metrics_writer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace statehouse {
namespace {

std::string Number(double value) {
  if (value == std::floor(value) && std::abs(value) < 9e15) return absl::StrCat(static_cast<int64_t>(value));
  return absl::StrFormat("%.9g", value);
}

}  // namespace

std::string MetricsWriter::Escape(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '\\' || c == '"') out += '\\';
      out += c;
    }
  }
  return out;
}

void MetricsWriter::Family(std::string_view name, std::string_view help, std::string_view type) {
  absl::StrAppend(&text_, "# HELP ", std::string(name), " ", std::string(help), "\n# TYPE ", std::string(name), " ",
                  std::string(type), "\n");
}

void MetricsWriter::Sample(std::string_view name, std::string_view extra_labels, double value) {
  const char* separator = labels_.empty() || extra_labels.empty() ? "" : ",";
  const std::string labels = absl::StrCat(labels_, separator, std::string(extra_labels));
  absl::StrAppend(&text_, std::string(name), labels.empty() ? "" : "{", labels, labels.empty() ? "" : "}", " ",
                  Number(value), "\n");
}

void MetricsWriter::Single(std::string_view name, std::string_view help, std::string_view type, double value) {
  Family(name, help, type);
  Sample(name, "", value);
}

void MetricsWriter::Add(std::string_view name, std::string_view help, const BucketHistogram& histogram) {
  Family(name, help, "histogram");
  int64_t cumulative = 0;
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    cumulative += histogram.count(i);
    Sample(absl::StrCat(std::string(name), "_bucket"), absl::StrCat("le=\"", Number(histogram.bounds()[i]), "\""),
           static_cast<double>(cumulative));
  }
  cumulative += histogram.count(histogram.bounds().size());
  Sample(absl::StrCat(std::string(name), "_bucket"), "le=\"+Inf\"", static_cast<double>(cumulative));
  Sample(absl::StrCat(std::string(name), "_sum"), "", histogram.sum());
  Sample(absl::StrCat(std::string(name), "_count"), "", static_cast<double>(cumulative));
}

void MetricsWriter::Sample(std::string_view name, std::string_view extra_labels, const Histogram& histogram) {
  const std::string extra(extra_labels);
  int64_t cumulative = 0;
  const std::string separator = extra.empty() ? "" : ",";
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    cumulative += histogram.bucket(static_cast<int>(i));
    Sample(absl::StrCat(std::string(name), "_bucket"),
           absl::StrCat(extra, separator, "le=\"", Number(histogram.bounds()[i]), "\""),
           static_cast<double>(cumulative));
  }
  cumulative += histogram.bucket(static_cast<int>(histogram.bounds().size()));
  Sample(absl::StrCat(std::string(name), "_bucket"), absl::StrCat(extra, separator, "le=\"+Inf\""),
         static_cast<double>(cumulative));
  Sample(absl::StrCat(std::string(name), "_sum"), extra, histogram.sum());
  Sample(absl::StrCat(std::string(name), "_count"), extra, static_cast<double>(cumulative));
}

}  // namespace statehouse
