// The command line of a benchmark: flags with a value, and switches. What it does not know ends the program.
//
//   BenchFlags flags("cuda_retention_bench [--json FILE] [--runs N]");
//   flags.Add("--json", &json), flags.Add("--runs", &runs);
//   flags.Parse(argc, argv, 1);
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace statehouse {

class BenchFlags {
 public:
  explicit BenchFlags(std::string usage) : usage_(std::move(usage)) {}

  void Add(const std::string& name, std::string* value) {
    takers_[name] = [value](const std::string& text) { return *value = text, true; };
  }
  // Numbers are 1 or more.
  void Add(const std::string& name, int64_t* value) {
    takers_[name] = [value](const std::string& text) { return absl::SimpleAtoi(text, value) && *value > 0; };
  }
  void Add(const std::string& name, double* value) {
    takers_[name] = [value](const std::string& text) { return absl::SimpleAtod(text, value) && *value > 0; };
  }
  void Add(const std::string& name, std::vector<int64_t>* values) {  // "1,8,64"
    takers_[name] = [values](const std::string& text) {
      values->clear();
      const std::vector<std::string> parts = absl::StrSplit(text, ',');
      for (const std::string& part : parts) {
        if (!absl::SimpleAtoi(part, &values->emplace_back()) || values->back() < 1) return false;
      }
      return true;
    };
  }
  void Add(const std::string& name, bool* is_on) { switches_[name] = is_on; }

  void Parse(int argc, char** argv, int first) const {
    for (int i = first; i < argc; ++i) {
      const std::string name = argv[i];
      if (const auto found = switches_.find(name); found != switches_.end()) {
        *found->second = true;
        continue;
      }
      const auto taker = takers_.find(name);
      if (taker == takers_.end()) Fail("unknown argument " + name);
      if (i + 1 == argc) Fail(name + " needs a value");
      if (!taker->second(argv[++i])) Fail(name + " " + argv[i] + ": expected a number above 0, or several with commas");
    }
  }
  [[noreturn]] void Fail(const std::string& problem) const {
    std::fprintf(stderr, "%s\nusage: %s\n", problem.c_str(), usage_.c_str());
    std::exit(2);
  }

 private:
  const std::string usage_;
  std::map<std::string, std::function<bool(const std::string&)>> takers_;
  std::map<std::string, bool*> switches_;
};

}  // namespace statehouse
