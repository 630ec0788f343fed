#include "kernels/matmul/cuda/cublas.h"

#include <dlfcn.h>
#include <library_types.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse::kernels {
namespace {

// As in cublas_api.h, which is not needed to build.
constexpr int kNotTransposed = 0, kTransposed = 1;
constexpr int kCompute32F = 68;
constexpr int kDefaultAlgorithm = -1;

absl::Status BlasStatus(int result, const char* call) {
  if (result == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLAS: ", call, " failed with status ", result));
}

}  // namespace

struct Cublas::Api {
  int (*create)(void**) = nullptr;
  int (*destroy)(void*) = nullptr;
  int (*set_stream)(void*, cudaStream_t) = nullptr;
  int (*set_workspace)(void*, void*, size_t) = nullptr;
  int (*gemm)(void*, int, int, int, int, int, const void*, const void*, cudaDataType, int, const void*, cudaDataType,
              int, const void*, void*, cudaDataType, int, int, int) = nullptr;
  std::string problem;  // empty: all is there

  static const Api& Get() {
    static const Api api;
    return api;
  }

 private:
  Api() {
    constexpr std::array kNames = {"libcublas.so.13", "libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so.13",
                                   "/usr/local/cuda/lib64/libcublas.so.12"};
    void* library = nullptr;
    for (const char* name : kNames) {
      library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) break;
      const char* error = dlerror();
      absl::StrAppend(&problem, problem.empty() ? "" : "; ", error == nullptr ? name : error);
    }
    if (library == nullptr) return;
    problem.clear();
    const auto find = [&](const char* name, auto* function) {
      *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
      if (*function == nullptr) absl::StrAppend(&problem, "no function ", name, "; ");
    };
    find("cublasCreate_v2", &create);
    find("cublasDestroy_v2", &destroy);
    find("cublasSetStream_v2", &set_stream);
    find("cublasSetWorkspace_v2", &set_workspace);
    find("cublasGemmEx", &gemm);
  }
};

absl::StatusOr<Cublas> Cublas::Open(cudaStream_t stream, void* workspace, size_t workspace_bytes) {
  const Api& api = Api::Get();
  if (!api.problem.empty()) {
    return absl::NotFoundError(absl::StrCat("cuBLAS of CUDA 12 or 13 is needed: ", api.problem,
                                            "; install libcublas or add its folder to LD_LIBRARY_PATH"));
  }
  void* handle = nullptr;
  if (absl::Status status = BlasStatus(api.create(&handle), "cublasCreate"); !status.ok()) return status;
  Cublas made(&api, handle);
  if (absl::Status status = BlasStatus(api.set_stream(handle, stream), "cublasSetStream"); !status.ok()) return status;
  absl::Status status = BlasStatus(api.set_workspace(handle, workspace, workspace_bytes), "cublasSetWorkspace");
  if (!status.ok()) return status;
  return made;
}

Cublas::~Cublas() {
  if (handle_ != nullptr) api_->destroy(handle_);
}

Cublas::Cublas(Cublas&& other) noexcept : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}

Cublas& Cublas::operator=(Cublas&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(handle_, other.handle_);
  return *this;
}

absl::Status Cublas::Run(const CudaMatMulArgs& args, bool inputs_are_bf16) {
  const float one = 1, beta = args.add ? 1.0f : 0.0f;
  const cudaDataType inputs = inputs_are_bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const cudaDataType output = args.y_is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const int outputs = static_cast<int>(args.outputs), depth = static_cast<int>(args.inputs);
  // Column-major: yᵀ [outputs, rows] = W xᵀ.
  return BlasStatus(
      api_->gemm(handle_, kTransposed, kNotTransposed, outputs, static_cast<int>(args.rows), depth, &one, args.weights,
                 inputs, depth, args.x, inputs, depth, &beta, args.y, output, outputs, kCompute32F, kDefaultAlgorithm),
      "cublasGemmEx");
}

}  // namespace statehouse::kernels
