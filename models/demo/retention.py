"""Power retention of degree 2 in PyTorch: the quadratic and the chunked form.

Shapes: B rows, T positions, Hq query heads, Hk key/value heads, G = Hq / Hk, d head size, N = T / C chunks of C positions.
`log_g` is the logarithm of the gate, float32, at most 0. Both forms compute

    y[t] = sum_j w[t,j] v[j] / sum_j w[t,j],    w[t,j] = (q[t].k[j] / sqrt(d))^2 exp(G[t] - G[j]),  j <= t
"""

import torch
from torch import Tensor

BLOCK = 16  # the symmetric square of a d-vector is built from blocks of this many coordinates
PAD = 8  # columns added to v: the first is all ones and carries the normaliser, the rest are zeros


def expanded_size(d: int) -> int:
    """Length of the padded symmetric square of a d-vector (d = 64: 2560, of which 2080 differ)."""
    return sum(BLOCK * (d - low) for low in range(0, d, BLOCK))


def expand(x: Tensor, off_diagonal: float) -> Tensor:
    """Products x_i x_j, one block row after another. x [..., d] -> [..., expanded_size(d)].

    Blocks off the diagonal stand for two equal halves: their factor is 1 on one side and 2 on the other.
    """
    parts = []
    for low in range(0, x.shape[-1], BLOCK):
        left, right = x[..., low : low + BLOCK], x[..., low:]
        right = torch.cat([right[..., :BLOCK], right[..., BLOCK:] * off_diagonal], -1)
        parts.append((left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2))
    return torch.cat(parts, -1)


TINY = torch.finfo(torch.float32).tiny


def _split_heads(q: Tensor, k: Tensor, v: Tensor, log_g: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """To q [B, Hk, N, G*C, d] (scaled), k and v [B, Hk, N, C, d], log_g [B, Hk, N, C]."""
    b, t, hq, d = q.shape
    hk, n = k.shape[2], t // chunk
    q = (q * d**-0.5).view(b, n, chunk, hk, hq // hk, d).permute(0, 3, 1, 4, 2, 5).reshape(b, hk, n, -1, d)
    k, v = (x.view(b, n, chunk, hk, d).permute(0, 3, 1, 2, 4) for x in (k, v))
    return q, k, v, log_g.view(b, n, chunk, hk).permute(0, 3, 1, 2)


def _merge_heads(y: Tensor, chunk: int) -> Tensor:
    """y [B, Hk, N, G*C, d] -> [B, T, Hq * d]."""
    b, hk, n, rows, d = y.shape
    y = y.view(b, hk, n, rows // chunk, chunk, d).permute(0, 2, 4, 1, 3, 5)
    return y.reshape(b, n * chunk, -1)


def _within(q: Tensor, k: Tensor, local: Tensor) -> Tensor:
    """Weights inside each chunk, float32 or wider. local [B, Hk, N, C] is the running sum of log_g in the chunk."""
    c, groups = k.shape[-2], q.shape[-2] // k.shape[-2]
    later = torch.ones(c, c, dtype=torch.bool, device=q.device).tril()
    decay = (local.unsqueeze(-1) - local.unsqueeze(-2)).masked_fill(~later, float("-inf")).exp()
    scores = torch.matmul(q, k.transpose(-1, -2)).to(local.dtype)
    return (scores * scores).unflatten(-2, (groups, c)).mul(decay.unsqueeze(-3)).flatten(-3, -2)


def quadratic(q: Tensor, k: Tensor, v: Tensor, log_g: Tensor, floor: float = TINY) -> Tensor:
    """q [B, T, Hq, d], k and v [B, T, Hk, d], log_g [B, T, Hk] -> [B, T, Hq * d].

    `floor` is the least value of the denominator. Training in bf16 raises it: there a sum that should be small may come out negative.
    """
    t = q.shape[1]
    q, k, v, log_g = _split_heads(q, k, v, log_g, t)
    w = _within(q, k, log_g.cumsum(-1))
    y = torch.matmul(w.to(v.dtype), v) / w.sum(-1, keepdim=True).clamp_min(floor)
    return _merge_heads(y.to(v.dtype), t)


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_g: Tensor,
    chunk: int,
    state: Tensor | None = None,
    keep_state: bool = False,
    floor: float = TINY,
) -> tuple[Tensor, Tensor | None]:
    """As `quadratic`, in time linear in T (a multiple of `chunk`), from a state and, on request, on to the next.

    state [B, Hk, expanded_size(d), d + PAD], float32: sums of expand(k) [v, 1, 0...], faded to the last position seen.
    """
    d = q.shape[-1]
    q, k, v, log_g = _split_heads(q, k, v, log_g, chunk)
    local = log_g.cumsum(-1)  # [B, Hk, N, C]
    total = local[..., -1:]  # [B, Hk, N, 1]
    w = _within(q, k, local)
    ones = torch.zeros(*v.shape[:-1], PAD, dtype=v.dtype, device=v.device)
    ones[..., 0] = 1
    values = torch.cat([v, ones], -1)

    faded = k * ((total - local) / 2).exp().unsqueeze(-1).to(k.dtype)
    update = torch.matmul(expand(faded, 2.0).transpose(-1, -2), values).to(local.dtype)  # [B, Hk, N, D, d + PAD]
    n = update.shape[2]
    # between[c, e] = gate from the end of chunk e to the end of chunk c - 1, for e < c; row n is the state that leaves.
    ends = total.squeeze(-1).double().cumsum(-1)  # [B, Hk, N]
    before = torch.nn.functional.pad(ends, (1, 0))  # [B, Hk, N + 1]
    earlier = torch.ones(n + 1, n, dtype=torch.bool, device=q.device).tril(-1)
    between = (before.unsqueeze(-1) - ends.unsqueeze(-2)).masked_fill(~earlier, float("-inf")).exp().to(local.dtype)
    with torch.autocast(q.device.type, enabled=False):
        states = torch.matmul(between, update.flatten(-2)).unflatten(-1, update.shape[-2:])  # [B, Hk, N + 1, D, d + PAD]
    if state is not None:
        states = states + before.exp().to(local.dtype)[..., None, None] * state.unsqueeze(2)

    fade = local.exp().repeat(1, 1, 1, q.shape[-2] // chunk).unsqueeze(-1)  # [B, Hk, N, G*C, 1]
    past = torch.matmul(expand(q, 1.0), states[:, :, :-1].to(q.dtype)).to(local.dtype) * fade
    y = torch.matmul(w.to(v.dtype), v).to(local.dtype) + past[..., :d]
    y = y / (w.sum(-1, keepdim=True) + past[..., d : d + 1]).clamp_min(floor)
    return _merge_heads(y.to(v.dtype), chunk), states[:, :, -1] if keep_state else None
