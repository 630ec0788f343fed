"""Power retention from its definition, in double and row by row: what the package is held against. And random inputs.

The seed of all random numbers is printed; STATEHOUSE_SEED repeats a run of the same tests.
"""
import itertools
import math
import os
import random
import sys

import torch

SEED = int(os.environ.get("STATEHOUSE_SEED") or random.SystemRandom().getrandbits(40))
SEEDS = random.Random(SEED)
torch.manual_seed(SEED)
print(f"STATEHOUSE_SEED={SEED}", file=sys.stderr)


def retention(Q, K, V, log_G, deg, scale, S=None, z=None):
    """Y, S, z of one token after the other. All float64; S [b, Hk, D, d], z [b, Hk, D] or None."""
    b, t, heads_q, d = Q.shape
    heads_kv, group = K.shape[2], heads_q // K.shape[2]
    tuples = list(itertools.combinations_with_replacement(range(d), deg))
    counts = torch.tensor([math.factorial(deg) // math.prod(math.factorial(row.count(i)) for i in set(row))
                           for row in tuples], dtype=torch.float64, device=Q.device)

    def monomials(x):
        return torch.stack([torch.stack([x[..., i] for i in row]).prod(0) for row in tuples], -1)

    if S is None:
        S = torch.zeros(b, heads_kv, len(tuples), d, dtype=torch.float64, device=Q.device)
        z = torch.zeros(b, heads_kv, len(tuples), dtype=torch.float64, device=Q.device)
    rows = []
    for row in range(t):
        gate = torch.ones(b, heads_kv, dtype=torch.float64, device=Q.device) if log_G is None else log_G[:, row].exp()
        key = monomials(K[:, row]) * counts
        S = gate[..., None, None] * S + key[..., :, None] * V[:, row][..., None, :]
        z = gate[..., None] * z + key
        heads = []
        for head in range(heads_q):
            query = monomials(Q[:, row, head]) * scale**deg
            numerator = torch.einsum("bD,bDd->bd", query, S[:, head // group])
            denominator = torch.einsum("bD,bD->b", query, z[:, head // group])
            heads.append(numerator / denominator[:, None])
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows, 1), S, z


def random_inputs(b, t, heads_q, heads_kv, d, gates="open", dtype=torch.float64, device="cpu", state=False, deg=2):
    """A dict of Q, K, V, log_G and, if asked for, S and z as earlier tokens would have left them."""
    generator = torch.Generator().manual_seed(SEEDS.getrandbits(40))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def gate(*shape):
        shift = {"open": 6.9, "half": 0.0, "closing": -4.0}[gates]
        return torch.nn.functional.logsigmoid(normal(*shape) + shift)

    out = {"Q": normal(b, t, heads_q, d), "K": normal(b, t, heads_kv, d), "V": normal(b, t, heads_kv, d),
           "log_G": None if gates == "none" else gate(b, t, heads_kv)}
    out = {name: x if x is None else x.to(torch.float32 if name == "log_G" and dtype != torch.float64 else dtype)
           for name, x in out.items()}
    if state:
        from power_retention import reference
        past = 3 * d
        _, after = reference.power_retention(normal(b, past, heads_kv, d), normal(b, past, heads_kv, d),
                                             normal(b, past, heads_kv, d), None, deg=deg, return_final_state=True)
        keep = torch.promote_types(dtype, torch.float32)
        out["S"], out["z"] = after.S.to(keep), after.sum_of_keys.to(keep)
    return {name: x if x is None else x.to(device) for name, x in out.items()}


def token_by_token(inputs, switch_over_seq_len):
    """Y of power_retention_inference called once per token, and the state of its last fold; None if there was none."""
    from power_retention import power_retention_inference
    state, sum_of_keys, begin, rows = None, None, 0, []
    for t in range(inputs["Q"].shape[1]):
        cache = {name: inputs[name][:, begin:t + 1] for name in ("K", "V", "log_G")}
        Y, state, sum_of_keys = power_retention_inference(inputs["Q"][:, t:t + 1], **cache, initial_state=state,
                                                          sum_of_keys=sum_of_keys, switch_over_seq_len=switch_over_seq_len)
        rows.append(Y)
        if t + 1 - begin >= switch_over_seq_len:
            begin = t + 1
    return torch.cat(rows, 1), state


def relative_error(got, want):
    """Root mean square of the difference over that of what is wanted; NaN counts as wrong."""
    got, want = got.double(), want.double()
    error = ((got - want).square().mean() / want.square().mean().clamp(min=1e-300)).sqrt().item()
    return error if math.isfinite(error) else math.inf
