#include "models/device.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#ifdef STATEHOUSE_CUDA
#include "kernels/cuda/device.h"
#endif

namespace statehouse {
namespace {

#ifdef STATEHOUSE_CUDA

int CountGpus() { return kernels::CountDevices(); }

// The GPU's name, or why it cannot be used.
absl::StatusOr<std::string> UsableGpu(int index) {
  const auto found = kernels::GetDeviceProperties(index);
  if (!found.ok()) return found.status();
  const bool has_code = found->major == 8 || (found->major == 9 && found->minor == 0);
  if (has_code) return found->name;
  return absl::UnimplementedError(absl::StrCat("device cuda:", index, ", ", found->name, ", has compute capability ",
                                               found->major, ".", found->minor,
                                               "; this build has code for 8.x and 9.0"));
}

#else

int CountGpus() { return 0; }

absl::StatusOr<std::string> UsableGpu(int) {
  return absl::UnimplementedError("this build has no code for GPUs; build with -DSTATEHOUSE_CUDA=ON");
}

#endif

// The first GPU that can be used, else the CPU and why the first one cannot.
DeviceChoice ChooseFirst(const std::string& flag) {
  absl::Status problem;
  for (int gpu = 0; gpu < std::max(1, CountGpus()); ++gpu) {
    const absl::StatusOr<std::string> name = UsableGpu(gpu);
    if (name.ok()) return {.gpu = gpu, .why = absl::StrCat(flag, ": ", *name, " (cuda:", gpu, ")")};
    problem.Update(name.status());
  }
  return {.gpu = -1, .why = absl::StrCat(flag, ": the CPU, because ", std::string(problem.message()))};
}

// -1 for the CPU, the number for a GPU (0 for "auto"); nothing if it is no device.
std::optional<int> GpuOf(std::string_view wanted) {
  if (wanted == "cpu") return -1;
  if (wanted == "auto" || wanted == "cuda") return 0;
  constexpr std::string_view kNumbered = "cuda:";
  int index = -1;
  if (!wanted.starts_with(kNumbered)) return std::nullopt;
  if (!absl::SimpleAtoi(std::string(wanted.substr(kNumbered.size())), &index) || index < 0) return std::nullopt;
  return index;
}

}  // namespace

absl::Status CheckDeviceName(std::string_view wanted) {
  if (GpuOf(wanted).has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--device ", QuotedName(wanted), ": expected auto, cpu, cuda or cuda:N"));
}

absl::StatusOr<DeviceChoice> ChooseDevice(std::string_view wanted) {
  if (absl::Status status = CheckDeviceName(wanted); !status.ok()) return status;
  const std::string flag = absl::StrCat("--device ", std::string(wanted));
  const int gpu = *GpuOf(wanted);
  if (wanted == "auto") return ChooseFirst(flag);
  if (gpu < 0) return DeviceChoice{.gpu = -1, .why = absl::StrCat(flag, ": the CPU")};
  const absl::StatusOr<std::string> name = UsableGpu(gpu);
  if (name.ok()) return DeviceChoice{.gpu = gpu, .why = absl::StrCat(flag, ": ", *name, " (cuda:", gpu, ")")};
  const std::string problem(name.status().message());
  return absl::Status(name.status().code(), absl::StrCat(flag, ": ", problem, "; --device cpu runs on the CPU"));
}

}  // namespace statehouse
