#include "tests/support/golden.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

namespace statehouse::testing {
namespace fs = std::filesystem;

namespace {

bool IsCase(GoldenKind kind, const fs::path& path) {
  if (kind == GoldenKind::kOp) return path.extension() == ".safetensors";
  return fs::is_regular_file(path / "golden.json");
}

absl::StatusOr<std::vector<fs::path>> CasesIn(GoldenKind kind, const fs::path& root) {
  const fs::path folder = root / (kind == GoldenKind::kOp ? "op" : "models");
  std::error_code error;
  std::vector<fs::path> cases;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (IsCase(kind, it->path())) cases.push_back(it->path());
  }
  std::printf("golden: %zu cases from %s\n", cases.size(), folder.c_str());
  if (error) return absl::NotFoundError("golden folder " + folder.string() + ": " + error.message());
  if (cases.empty()) return absl::NotFoundError("golden folder " + folder.string() + " holds no case");
  std::sort(cases.begin(), cases.end());
  return cases;
}

}  // namespace

fs::path SourceDir() {
  std::error_code error;
  const fs::path built_from = STATEHOUSE_SOURCE_DIR;
  return fs::exists(built_from, error) ? built_from : fs::current_path(error);
}

absl::StatusOr<std::vector<fs::path>> FindGoldenCases(GoldenKind kind, const fs::path& source_dir) {
  absl::StatusOr<std::vector<fs::path>> cases = CasesIn(kind, source_dir / "tests" / "golden");
  const char* named = std::getenv("STATEHOUSE_GOLDEN");
  if (!cases.ok() || named == nullptr || *named == '\0') return cases;
  absl::StatusOr<std::vector<fs::path>> more = CasesIn(kind, named);
  if (!more.ok()) return more;
  cases->insert(cases->end(), std::make_move_iterator(more->begin()), std::make_move_iterator(more->end()));
  return cases;
}

}  // namespace statehouse::testing
