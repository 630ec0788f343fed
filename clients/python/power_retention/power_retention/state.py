"""The state of a sequence, and its two layouts.

Canonical: S [b, Hk, D, d] and z [b, Hk, D] hold, per monomial of degree p of a key's d numbers, its sum times how often
the monomial occurs in (k_1 + ... + k_d)^p. D = C(d + p - 1, p), in lexicographic order. It is what functions take and
return, and what snapshot files hold.

Padded: what the CUDA kernels take, for p = 2: pairs in 8x8 tiles (kernels/power_retention/cuda/retention.h).
"""
import functools
import itertools
import math
from typing import NamedTuple

import torch


class RetentionState(NamedTuple):
    """What is left of all tokens so far: float32 (float64 if the inputs are)."""

    S: torch.Tensor  # [b, Hk, D, d]
    sum_of_keys: torch.Tensor  # [b, Hk, D], the normaliser z


def state_rows(head_dim, deg=2):
    """D: how many rows a head's state has."""
    return math.comb(head_dim + deg - 1, deg)


class Monomials(NamedTuple):
    index: torch.Tensor  # [p, D] int64: the factors of each monomial
    count: torch.Tensor  # [D] float64: how often it occurs


@functools.lru_cache(maxsize=32)
def monomials(head_dim, deg, device):
    rows = list(itertools.combinations_with_replacement(range(head_dim), deg))
    counts = []
    for row in rows:
        repeats = [len(list(group)) for _, group in itertools.groupby(row)]
        counts.append(math.factorial(deg) // math.prod(math.factorial(n) for n in repeats))
    return Monomials(torch.tensor(rows, device=device).T.contiguous(),
                     torch.tensor(counts, device=device, dtype=torch.float64))


def expand(x, deg):
    """The monomials of the last dimension: [..., d] to [..., D]."""
    index = monomials(x.shape[-1], deg, x.device).index
    out = x[..., index[0]]
    for factor in index[1:]:
        out = out * x[..., factor]
    return out


def expand_key(x, deg):
    """The same times how often each occurs, so that expand(q) . expand_key(k) = (q . k)^p."""
    return expand(x, deg) * monomials(x.shape[-1], deg, x.device).count.to(x.dtype)


class PaddedLayout(NamedTuple):
    """Where canonical rows lie among the padded ones."""

    rows: int  # P
    from_canonical: torch.Tensor  # [P] int64: the canonical row that each padded row comes from
    to_padded_scale: torch.Tensor  # [P] float32: 1, or 1/2 where the canonical row counts a pair twice
    from_padded: torch.Tensor  # [D] int64: a padded row that holds each canonical one
    to_canonical_scale: torch.Tensor  # [D] float32: 1 or 2


@functools.lru_cache(maxsize=32)
def padded_layout(head_dim, device):
    blocks = head_dim // 8
    rows = blocks * (blocks + 1) // 2 * 64
    canonical = {pair: at for at, pair in enumerate(itertools.combinations_with_replacement(range(head_dim), 2))}
    source = [0] * rows
    target = [0] * len(canonical)
    tile = 0
    for I in range(blocks):
        for J in range(I, blocks):
            for i, j in itertools.product(range(8 * I, 8 * I + 8), range(8 * J, 8 * J + 8)):
                at = 64 * tile + 8 * (i % 8) + j % 8
                source[at] = canonical[min(i, j), max(i, j)]
                if i <= j:
                    target[canonical[i, j]] = at
            tile += 1
    source = torch.tensor(source, device=device)
    count = monomials(head_dim, 2, device).count.float()
    return PaddedLayout(rows, source, (1 / count)[source], torch.tensor(target, device=device), count)


def to_padded(state):
    """Canonical to padded, p = 2; differentiable."""
    layout = padded_layout(state.S.shape[-1], state.S.device)
    scale = layout.to_padded_scale
    return RetentionState(state.S.index_select(2, layout.from_canonical) * scale[:, None],
                          state.sum_of_keys.index_select(2, layout.from_canonical) * scale)


def to_canonical(state):
    """Padded to canonical, p = 2; differentiable."""
    layout = padded_layout(state.S.shape[-1], state.S.device)
    scale = layout.to_canonical_scale
    return RetentionState(state.S.index_select(2, layout.from_padded) * scale[:, None],
                          state.sum_of_keys.index_select(2, layout.from_padded) * scale)
