"""Power retention in plain PyTorch, for any device: the definition, written to be read.

    w[t, j] = (scale q[t].k[j])^p exp(G[t] - G[j]) for j <= t;    y[t] = sum_j w[t, j] v[j] / sum_j w[t, j]

float64 inputs are computed in float64, all others in float32. Autograd differentiates it. `operators.power_retention`
checks arguments and then calls this for tensors that are not on a GPU; call it yourself to have it on one.
"""
import torch

from .state import RetentionState, expand, expand_key, state_rows

# Rows of a chunk where the caller names none: up to here, pairs of rows are cheaper than the state of any usual head.
DEFAULT_CHUNK = 256
# What a log gate counts as at least; also what the CUDA kernels do. It keeps closed gates (-inf) finite.
CLOSED_GATE = -200.0


def power_retention(Q, K, V, log_G=None, deg=2, scale=None, chunk_size=None, initial_state=None,
                    return_final_state=False):
    """Q [b, t, Hq, d], K V [b, t, Hk, d], log_G [b, t, Hk], initial_state canonical. Returns y, or (y, state)."""
    out_dtype, d = Q.dtype, Q.shape[-1]
    dtype = torch.promote_types(Q.dtype, torch.float32)
    scale = d**-0.5 if scale is None else scale
    chunk = DEFAULT_CHUNK if chunk_size is None else chunk_size
    b, t, heads_kv = K.shape[:3]
    group = Q.shape[2] // heads_kv
    # [b, Hk, group, t, d] and [b, Hk, t, d]
    q = Q.to(dtype).unflatten(2, (heads_kv, group)).permute(0, 2, 3, 1, 4)
    k, v = K.to(dtype).transpose(1, 2), V.to(dtype).transpose(1, 2)
    g = K.new_zeros((b, heads_kv, t), dtype=dtype) if log_G is None else log_G.to(dtype).transpose(1, 2)
    g = g.clamp(min=CLOSED_GATE)
    state = None if initial_state is None else RetentionState(*(x.to(dtype) for x in initial_state))
    ys = []
    for begin in range(0, t, chunk):
        rows = slice(begin, min(begin + chunk, t))
        L = g[..., rows].cumsum(-1)  # [b, Hk, c]
        ys.append(answer(q[..., rows, :], k[..., rows, :], v[..., rows, :], L, state, deg, scale))
        if return_final_state or rows.stop < t:
            state = fold(k[..., rows, :], v[..., rows, :], L, state, deg)
    y = torch.cat(ys, dim=3) if ys else q
    y = y.permute(0, 3, 1, 2, 4).flatten(2, 3).to(out_dtype)
    if not return_final_state:
        return y
    return y, zero_state(b, heads_kv, d, deg, dtype, K.device) if state is None else state


def answer(q, k, v, L, state, deg, scale):
    """The last rows of a chunk: q [b, Hk, group, n, d], k v [b, Hk, c, d], L [b, Hk, c], n <= c; state before it."""
    n, c = q.shape[-2], k.shape[-2]
    L_q = L[..., c - n:]
    is_future = torch.ones(n, c, dtype=torch.bool, device=q.device).triu(c - n + 1)
    decay = (L_q[..., :, None] - L[..., None, :]).masked_fill(is_future, float("-inf")).exp()  # [b, Hk, n, c]
    weights = (scale * torch.einsum("bhgnd,bhcd->bhgnc", q, k))**deg * decay[:, :, None]
    numerator = torch.einsum("bhgnc,bhcd->bhgnd", weights, v)
    denominator = weights.sum(-1)
    if state is not None:
        old = scale**deg * L_q.exp()[:, :, None]  # [b, Hk, 1, n]
        expanded = expand(q, deg)
        numerator = numerator + old[..., None] * torch.einsum("bhgnD,bhDd->bhgnd", expanded, state.S)
        denominator = denominator + old * torch.einsum("bhgnD,bhD->bhgn", expanded, state.sum_of_keys)
    return divide(numerator, denominator)


def divide(numerator, denominator):
    """Their quotient; 0 where the denominator is not a positive normal number."""
    is_some = denominator >= torch.finfo(denominator.dtype).tiny
    return (numerator / denominator.where(is_some, 1.0)[..., None]).where(is_some[..., None], 0.0)


def fold(k, v, L, state, deg):
    """The state after a chunk."""
    expanded = expand_key(k, deg) * (L[..., -1:] - L).exp()[..., None]  # [b, Hk, c, D]
    S, z = torch.einsum("bhcD,bhcd->bhDd", expanded, v), expanded.sum(2)
    if state is not None:
        kept = L[..., -1:].exp()
        S, z = S + kept[..., None] * state.S, z + kept * state.sum_of_keys
    return RetentionState(S, z)


def zero_state(b, heads_kv, d, deg, dtype, device):
    D = state_rows(d, deg)
    return RetentionState(torch.zeros(b, heads_kv, D, d, dtype=dtype, device=device),
                          torch.zeros(b, heads_kv, D, dtype=dtype, device=device))
