"""Says whether CUDA tensors can be computed with, and if not why."""
import torch

from . import library


def cuda_support():
    """"" if the CUDA kernels can be used here, else the reason in words."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    try:
        library.load()
    except NotImplementedError as error:
        return str(error)
    return ""
