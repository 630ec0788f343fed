"""A few new rows against a state and the rows since: what a decoder calls once per token and layer."""
import warnings

import torch

from . import arguments, reference
from .operators import power_retention
from .state import RetentionState


def power_retention_inference(Q, K, V, log_G=None, initial_state=None, sum_of_keys=None, deg=2, scale=None,
                              chunk_size=None, switch_over_seq_len=512):
    """Answers the last rows of a sequence, and folds its rows into the state once there are enough.

    K, V and log_G hold the rows that the state does not cover, oldest first, those of Q last. When there are
    `switch_over_seq_len` of them, the state returned covers them too, and the caller starts its cache anew:

        cache.append(k, v, log_g)
        Y, state, sum_of_keys = power_retention_inference(q, cache.K, cache.V, cache.log_G, state, sum_of_keys)
        if cache.rows >= 512: cache.clear()

    Args:
        Q: [b, n, Hq, d], n >= 1 rows.
        K, V: [b, t, Hk, d], t >= n; both None: all is in the state, which then has to exist.
        log_G: [b, t, Hk], or None.
        initial_state, sum_of_keys: S [b, Hk, D, d] and z [b, Hk, D]; or None, or a RetentionState as initial_state.
        deg, scale: as in power_retention.
        chunk_size: as in power_retention, for the fold.
        switch_over_seq_len: t from which the rows are folded; None: never.

    Returns:
        (Y [b, n, Hq, d], S, sum_of_keys): those passed in where nothing was folded.

    The step itself is PyTorch operations in float32 on any device: it reads the state once, which is what it costs.
    The fold goes through the CUDA kernels where there are some; for CUDA tensors without, a warning says why it does not.
    Not differentiable.
    """
    if (K is None) != (V is None):
        raise ValueError("K and V: must both be tensors or both None")
    arguments.check_degree(deg)
    arguments.check_length("chunk_size", chunk_size)
    arguments.check_length("switch_over_seq_len", switch_over_seq_len)
    if K is None:
        K, V, log_G = _no_rows(Q, log_G, initial_state)
    elif Q.shape[1] > K.shape[1]:
        raise ValueError(f"Q has {Q.shape[1]} rows and K has {K.shape[1]}: K holds Q's rows too")
    arguments.check_inputs(Q, K, V, log_G)
    scale = arguments.check_scale(scale, Q.shape[-1])
    state = arguments.check_state(initial_state, sum_of_keys, K.shape, deg, Q.device)
    with torch.no_grad():
        Y = _answer(Q, K, V, log_G, state, deg, scale)
        if switch_over_seq_len is not None and K.shape[1] >= switch_over_seq_len:
            state = _fold(Q, K, V, log_G, state, deg, scale, chunk_size)
    return (Y, None, None) if state is None else (Y, state.S, state.sum_of_keys)


def _no_rows(Q, log_G, initial_state):
    if initial_state is None:
        raise ValueError("K and V are None: initial_state must be there")
    if log_G is not None:
        raise ValueError("log_G: must be None where K is")
    S = initial_state[0] if isinstance(initial_state, tuple) else initial_state
    K = Q.new_empty((Q.shape[0], 0, S.shape[1], Q.shape[3]))
    return K, K, None


def _answer(Q, K, V, log_G, state, deg, scale):
    dtype = torch.promote_types(Q.dtype, torch.float32)
    heads_kv, rows = K.shape[2], K.shape[1]
    q = Q.to(dtype).unflatten(2, (heads_kv, -1)).permute(0, 2, 3, 1, 4)
    k, v = K.to(dtype).transpose(1, 2), V.to(dtype).transpose(1, 2)
    if log_G is None:
        L = K.new_zeros((K.shape[0], heads_kv, rows), dtype=dtype)
    else:
        L = log_G.to(dtype).transpose(1, 2).clamp(min=reference.CLOSED_GATE).cumsum(-1)
    if rows == 0:  # the state alone: as rows of weight 0 would
        k = v = k.new_zeros((*k.shape[:2], Q.shape[1], k.shape[3]))
        L = L.new_zeros((*L.shape[:2], Q.shape[1]))
    y = reference.answer(q, k, v, L, state, deg, scale)
    return y.permute(0, 3, 1, 2, 4).flatten(2, 3).to(Q.dtype)


def _fold(Q, K, V, log_G, state, deg, scale, chunk_size):
    if K.shape[1] == 0:
        return state
    # One query head of zeros per key/value head: the answers are not wanted.
    try:
        _, folded = power_retention(torch.zeros_like(K), K, V, log_G, deg=deg, scale=scale, chunk_size=chunk_size,
                                    initial_state=state, return_final_state=True)
    except NotImplementedError as error:  # no kernel: a fold is PyTorch operations too, as the step is
        warnings.warn(f"power_retention_inference: folds are PyTorch operations: {error}", stacklevel=3)
        _, folded = reference.power_retention(torch.zeros_like(K), K, V, log_G, deg=deg, scale=scale,
                                              chunk_size=chunk_size, initial_state=state, return_final_state=True)
    return RetentionState(*folded)
