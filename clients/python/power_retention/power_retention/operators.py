"""The differentiable operator over whole sequences."""
import torch

from . import arguments, reference


def power_retention(Q, K, V, log_G=None, deg=2, scale=None, chunk_size=None, initial_state=None,
                    return_final_state=False, switch_over_seq_len=None, keep_states=False):
    """Symmetric power retention, with gradients for every tensor that is passed in.

        w[t, j] = (scale Q[t].K[j])^deg exp(G[t] - G[j]) for j <= t,   G = cumsum(log_G)
        Y[t] = sum_j w[t, j] V[j] / sum_j w[t, j]

    Args:
        Q: [b, t, Hq, d], float16, bfloat16 or float32 (float64 too where it is not on a GPU).
        K, V: [b, t, Hk, d] of the same dtype; Hq is a multiple of Hk, query head i reads head i // (Hq / Hk).
        log_G: [b, t, Hk], logarithms of gates, <= 0 (below -200 counts as -200), computed in float32. The gate of a
            token discounts what is before it, not itself. None: nothing is ever forgotten.
        deg: even. On a GPU 2, or 4 without states.
        scale: positive; None: 1/sqrt(d).
        chunk_size: rows that are computed as pairs before the state takes over; results differ by rounding only. None:
            what is fastest. On a GPU, chunks have at most 65536 rows.
        initial_state: RetentionState of what came before; None: nothing. From an earlier call's `return_final_state`,
            or learned.
        return_final_state: also return the RetentionState after the last row.
        keep_states: on a GPU, keep the chunks' states from the forward to the backward pass, which then does not compute
            them again: faster, for 2 D d bytes (bfloat16) per chunk and key/value head. Results do not change.
        switch_over_seq_len: no state up to this many rows, whatever chunk_size is.

    Returns:
        Y [b, t, Hq, d] of Q's dtype, or (Y, RetentionState). A row whose weights are all 0 is 0.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
        NotImplementedError: there is no CUDA kernel for this; the message names what.
    """
    arguments.check_inputs(Q, K, V, log_G)
    arguments.check_degree(deg)
    arguments.check_length("chunk_size", chunk_size)
    arguments.check_length("switch_over_seq_len", switch_over_seq_len)
    if Q.shape[1] != K.shape[1]:
        raise ValueError(f"Q has {Q.shape[1]} rows and K has {K.shape[1]}: must be alike")
    scale = arguments.check_scale(scale, Q.shape[-1])
    initial_state = arguments.check_state(initial_state, None, K.shape, deg, Q.device)
    if switch_over_seq_len is not None and Q.shape[1] <= switch_over_seq_len:
        chunk_size = max(Q.shape[1], 1)
    options = dict(deg=deg, scale=scale, chunk_size=chunk_size, initial_state=initial_state,
                   return_final_state=bool(return_final_state))
    if Q.is_cuda:
        from . import cuda  # loads the library
        return cuda.power_retention(Q, K, V, log_G, keep_states=bool(keep_states), **options)
    return reference.power_retention(Q, K, V, log_G, **options)
