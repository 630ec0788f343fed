// A table of text whose columns line up, as wide as its cells need. Thread-safety: one thread at a time.
#pragma once

#include <string>
#include <vector>

namespace statehouse::cli {

enum class Align { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string heading;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as there are columns. Control characters show as U+FFFD.
  void Add(std::vector<std::string> cells);
  // Headings, then a line per row; no spaces at the end of a line. Widths count characters, not bytes.
  std::string Text() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace statehouse::cli
