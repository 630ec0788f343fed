// The reader in Python (clients/python/snapshot.py) on files of a real model: it finds the same numbers, and refuses
// damage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/snapshot_file_fixture.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SnapshotPythonTest : public SnapshotFileTest {
 protected:
  void SetUp() override {
    if (std::system("/usr/bin/python3 -c 'import numpy, xxhash' 2>/dev/null") != 0)
      GTEST_SKIP() << "no NumPy or no xxhash for /usr/bin/python3";
    Load("powercoder-tiny", 48);
  }

  // What the reader in Python says of the file, standard error too, and its exit status.
  static std::pair<std::string, int> PythonReads(const File& file) {
    const std::string path = absl::StrCat(::testing::TempDir(), "python.", getpid(), ".snapshot");
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(file.data()), static_cast<int64_t>(file.size()));
    const std::string command =
        absl::StrCat("/usr/bin/python3 " STATEHOUSE_SOURCE_DIR "/clients/python/snapshot.py ", path, " 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return {"no pipe", -1};
    std::string output;
    for (char line[1024]; std::fgets(line, sizeof line, pipe) != nullptr;) output += line;
    const int status = pclose(pipe);
    std::remove(path.c_str());
    return {output, status};
  }

  void ExpectPythonReads(const SnapshotFileOptions& options) {
    const auto snapshot = SnapshotAt(MakePrompt(70, 3, kVocab), 70);
    const File file = Written(*snapshot, options);
    const auto [output, status] = PythonReads(file);
    EXPECT_EQ(status, 0) << output;
    EXPECT_THAT(output, Not(HasSubstr("checksums are not checked")));
    EXPECT_THAT(output, HasSubstr("position 70, 2 layers, made on cpu"));
    const kernels::RetentionLayout& layout = model_->retention();
    const kernels::HeadExtent extent = kernels::ExtentOf(layout, snapshot->regions(), 70);
    const int64_t d = layout.shape().head_dim;
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'S': ([", layout.expanded(), ", ", d, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'K': ([", extent.num_rows, ", ", d, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("'L': ([", extent.num_rows, "], ")));
    EXPECT_THAT(output, HasSubstr(absl::StrCat("state as ", StateEncodingName(options.encoding))));
    // It prints the sum of magnitudes of each array: that of the first head's keys.
    const auto loaded = Read(file, true);
    ASSERT_TRUE(loaded.ok());
    const std::vector<float> canonical = Canonical(*loaded->snapshot);
    const int64_t keys_from = extent.folded > 0 ? layout.expanded() * (d + 1) : 0;
    double sum = 0;
    for (int64_t idx = 0; idx < extent.num_rows * d; ++idx)
      sum += std::abs(canonical[static_cast<size_t>(keys_from + idx)]);
    const size_t at = output.find("'K': (");
    ASSERT_NE(at, std::string::npos);
    const double printed = std::strtod(output.c_str() + output.find("], ", at) + 3, nullptr);
    EXPECT_NEAR(printed, sum, 1e-4 * sum);
  }
};

TEST_F(SnapshotPythonTest, EveryEncoding_IsReadAndChecked) {
  for (const SnapshotFileOptions& options : kAllOptions) ExpectPythonReads(options);
}

TEST_F(SnapshotPythonTest, ADamagedSection_IsRefusedByName) {
  const File file = Written(*SnapshotAt(MakePrompt(70, 3, kVocab), 70));
  const auto footer = FooterOf(file);  // not in the loop's head, where it would end before the loop
  ASSERT_FALSE(footer["sections"].empty());
  for (const auto& section : footer["sections"]) {
    File damaged = file;
    damaged[section["offset"].get<size_t>()] ^= std::byte{1};
    const auto [output, status] = PythonReads(damaged);
    EXPECT_NE(status, 0);
    EXPECT_THAT(output,
                HasSubstr(absl::StrCat("the checksum of ", section["name"].get<std::string>(), " does not fit")));
  }
}

}  // namespace
}  // namespace statehouse::testing
