"""A small GPT whose attention is power retention, trained to copy: `python gpt.py [--steps 200] [--device cuda]`.

`RetentionAttention` is the part to take: it goes where a block's self-attention was.
"""
import argparse
import math

import torch
from torch import nn
from torch.nn import functional as F

from power_retention import power_retention, power_retention_inference


def rotate(x, first_position):
    """RoPE in the half-split form on [b, t, heads, d]; angles in double, so that far positions keep their phase."""
    half = x.shape[-1] // 2
    positions = torch.arange(first_position, first_position + x.shape[1], dtype=torch.float64, device=x.device)
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = torch.remainder(positions[:, None] * rates, 2 * math.pi)
    cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class RetentionCache:
    """What a layer remembers of a sequence: the state, and the rows since."""

    def __init__(self, switch_over=128):
        self.switch_over, self.position = switch_over, 0
        self.K = self.V = self.log_G = self.S = self.sum_of_keys = None

    def step(self, Q, K, V, log_G):
        rows = (K, V, log_G)
        if self.K is not None:
            rows = [torch.cat(pair, 1) for pair in zip((self.K, self.V, self.log_G), rows)]
        self.K, self.V, self.log_G = rows
        self.position += Q.shape[1]
        Y, self.S, self.sum_of_keys = power_retention_inference(
            Q, *rows, self.S, self.sum_of_keys, switch_over_seq_len=self.switch_over)
        if rows[0].shape[1] >= self.switch_over:  # the state covers them now
            self.K = self.V = self.log_G = None
        return Y


class RetentionAttention(nn.Module):
    """Causal self-attention [b, t, hidden] to [b, t, hidden]; query heads share key/value heads in groups."""

    def __init__(self, hidden, heads, heads_kv, degree=2, chunk_size=None):
        super().__init__()
        self.heads, self.heads_kv, self.head_dim = heads, heads_kv, hidden // heads
        self.degree, self.chunk_size = degree, chunk_size
        self.qkv = nn.Linear(hidden, (heads + 2 * heads_kv) * self.head_dim)
        self.gate = nn.Linear(hidden, heads_kv)
        self.out = nn.Linear(heads * self.head_dim, hidden)
        nn.init.constant_(self.gate.bias, 6.9)  # gates begin near 0.999: forgetting is learned

    def forward(self, x, cache=None):
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.head_dim)).split([self.heads, self.heads_kv, self.heads_kv], 2)
        log_g = F.logsigmoid(self.gate(x).float())
        position = 0 if cache is None else cache.position
        q, k = rotate(q, position), rotate(k, position)
        if cache is None:
            y = power_retention(q, k, v, log_g, deg=self.degree, chunk_size=self.chunk_size)
        else:
            y = cache.step(q, k, v, log_g)
        return self.out(y.flatten(2))


class Block(nn.Module):
    def __init__(self, hidden, heads, heads_kv):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = RetentionAttention(hidden, heads, heads_kv)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden))

    def forward(self, x, cache=None):
        x = x + self.attention(self.attention_norm(x), cache)
        return x + self.mlp(self.mlp_norm(x))


class Gpt(nn.Module):
    def __init__(self, vocabulary, hidden=128, layers=2, heads=2, heads_kv=1):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, heads_kv) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, tokens, caches=None):
        x = self.embedding(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.head(self.norm(x))

    @torch.no_grad()
    def generate(self, tokens, count):
        """Greedy; each new token costs the same, however many came before."""
        caches = [RetentionCache() for _ in self.blocks]
        logits = self(tokens, caches)
        out = []
        for _ in range(count):
            token = logits[:, -1:].argmax(-1)
            out.append(token)
            logits = self(token, caches)
        return torch.cat(out, 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    vocabulary, half = 16, 24
    dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    model = Gpt(vocabulary).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(options.steps + 1):
        first = torch.randint(vocabulary, (16, half), device=options.device)
        tokens = torch.cat([first, first], 1)  # the second half can be known from the first
        with torch.autocast(options.device.split(":")[0], dtype, enabled=dtype == torch.bfloat16):
            logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits[:, half - 1:].flatten(0, 1).float(), tokens[:, half:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step:4d}  loss of the copied half {loss.item():.3f}")
    copied = model.generate(first, half)
    print(f"copied rightly: {(copied == first).float().mean().item():.0%}")


if __name__ == "__main__":
    main()
