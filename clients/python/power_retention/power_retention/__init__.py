"""Power retention for PyTorch: attention whose past is a state of fixed size.

    from power_retention import power_retention
    Y = power_retention(Q, K, V, log_G)          # [b, t, Hq, d], differentiable

CUDA tensors go through Statehouse's kernels, all others through plain PyTorch (`power_retention.reference`).
"""
from .inference import power_retention_inference
from .operators import power_retention
from .state import RetentionState, state_rows
from .support import cuda_support

__all__ = ["RetentionState", "cuda_support", "power_retention", "power_retention_inference", "state_rows"]
