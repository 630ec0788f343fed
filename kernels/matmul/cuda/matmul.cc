#include "kernels/matmul/cuda/matmul.h"

#include <utility>

namespace statehouse::kernels {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLAS asks for on Hopper

}  // namespace

absl::StatusOr<CudaMatMul> CudaMatMul::Make(MatMulMode mode, bool is_bf16, cudaStream_t stream) {
  CudaMatMul made(is_bf16, stream);
  if (mode == MatMulMode::kDeterministic) return made;
  if (absl::Status status = made.workspace_.Allocate(kWorkspaceBytes); !status.ok()) return status;
  absl::StatusOr<Cublas> cublas = Cublas::Open(stream, made.workspace_.as<void>(), kWorkspaceBytes);
  if (!cublas.ok()) return cublas.status();
  made.cublas_.emplace(*std::move(cublas));
  return made;
}

absl::Status CudaMatMul::Run(const CudaMatMulArgs& args) {
  if (args.rows == 0) return absl::OkStatus();
  if (args.add && args.y_is_bf16) return absl::UnimplementedError("matmul on the GPU: adding to a bf16 y");
  if (!cublas_.has_value()) return MatMulInOrder(args, is_bf16_, stream_);
  return cublas_->Run(args, is_bf16_);
}

}  // namespace statehouse::kernels
