"""Checks arguments and says what is wrong with them by name, value and what is allowed."""
import math

import torch

from .state import RetentionState, state_rows


def check_inputs(Q, K, V, log_G):
    for name, tensor in (("Q", Q), ("K", K), ("V", V)):
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 4:
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ValueError(f"{name}: must be a tensor [batch, time, heads, head size], not {shape}")
    if not Q.dtype == K.dtype == V.dtype or not Q.is_floating_point():
        raise ValueError(f"Q, K, V: must have one floating-point dtype, not {Q.dtype}, {K.dtype}, {V.dtype}")
    if not Q.device == K.device == V.device:
        raise ValueError(f"Q, K, V: must be on one device, not {Q.device}, {K.device}, {V.device}")
    b, _, heads_q, d = Q.shape
    if K.shape != V.shape or K.shape[0] != b or K.shape[3] != d:
        raise ValueError(f"K {tuple(K.shape)}, V {tuple(V.shape)}: must be alike, with Q's batch {b} and head size {d}")
    if K.shape[2] == 0 or heads_q == 0 or heads_q % K.shape[2] != 0:
        raise ValueError(f"Q has {heads_q} heads and K has {K.shape[2]}: Q's must be a positive multiple of K's")
    if log_G is not None and (log_G.shape != K.shape[:3] or log_G.device != Q.device):
        raise ValueError(f"log_G {tuple(log_G.shape)} on {log_G.device}: must be {tuple(K.shape[:3])} on {Q.device}")


def check_degree(deg):
    if isinstance(deg, torch.Tensor) or isinstance(deg, bool) or not isinstance(deg, int):
        raise TypeError(f"deg: must be an int, not {type(deg).__name__}. Pass what follows log_G by name: the order of "
                        "such arguments differs between packages")
    if deg < 2 or deg % 2 != 0:
        raise ValueError(f"deg {deg}: must be even and at least 2")


def check_scale(scale, head_dim):
    if scale is None:
        return head_dim**-0.5
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale {scale}: must be positive and finite, or None (1/sqrt(head size))")
    return float(scale)


def check_length(name, value):
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} {value}: must be a positive int, or None")


def check_state(state, sum_of_keys, K_shape, deg, device):
    """Both as a RetentionState, or None."""
    if state is None:
        if sum_of_keys is not None:
            raise ValueError("sum_of_keys: there is no initial_state that it belongs to")
        return None
    if isinstance(state, tuple) and len(state) == 2 and sum_of_keys is None:
        state, sum_of_keys = state
    if not isinstance(state, torch.Tensor) or not isinstance(sum_of_keys, torch.Tensor):
        raise ValueError("initial_state: must be a RetentionState, the pair (S, sum_of_keys): S alone does not say what "
                         "to divide by")
    b, _, heads_kv, d = K_shape
    want = (b, heads_kv, state_rows(d, deg), d)
    if tuple(state.shape) != want or tuple(sum_of_keys.shape) != want[:3]:
        raise ValueError(f"initial_state {tuple(state.shape)}, sum_of_keys {tuple(sum_of_keys.shape)}: must be {want} and "
                         f"{want[:3]}")
    if state.device != device or sum_of_keys.device != device:
        raise ValueError(f"initial_state: must be on {device}")
    return RetentionState(state, sum_of_keys)
