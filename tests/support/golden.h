// Finds golden cases at run time, so that new cases need no rebuild: tests/golden in the source tree, and the folder
// that the environment variable STATEHOUSE_GOLDEN names, if it is set.
//
//   absl::StatusOr<std::vector<std::filesystem::path>> cases = FindGoldenCases(GoldenKind::kOp);
//   ASSERT_TRUE(cases.ok()) << cases.status();
#pragma once

#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"

namespace statehouse::testing {

enum class GoldenKind {
  kOp,     // op/*.safetensors: one power-retention call each
  kModel,  // models/NAME/: one checkpoint directory each (a directory with a golden.json)
};

// The root of the source tree that was built from; where that is not on this machine, the current directory: a program
// that was carried elsewhere runs in the root of the tree there.
std::filesystem::path SourceDir();

// Every case of one kind, sorted by name within each folder; the source tree's first. Prints `golden: N cases from DIR`
// for each folder. NOT_FOUND if a folder is missing or has no case of that kind, whether built in or named: a run that
// checks nothing must not pass. `source_dir` is the root of the source tree.
absl::StatusOr<std::vector<std::filesystem::path>> FindGoldenCases(
    GoldenKind kind, const std::filesystem::path& source_dir = SourceDir());

}  // namespace statehouse::testing
