"""Feeds training: worker processes write dialogues, a thread moves them to the device."""

import multiprocessing
import queue
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dialogue import row
from world import FILLER, Encoder, Speaker

SHORT = 512  # tokens of a short row
LONG = 1 << 17  # tokens of a long row
Block = tuple[np.ndarray, np.ndarray]  # ids and classes, [rows, length + 1]


def short_rows(speaker: Speaker, rng: random.Random, tokens: int) -> Block:
    """`tokens` tokens in dialogues of SHORT tokens."""
    rows = [row(speaker, rng, SHORT + 1) for _ in range(tokens // SHORT)]
    return np.stack([ids for ids, _ in rows]), np.stack([classes for _, classes in rows])


def long_row(speaker: Speaker, rng: random.Random, tokens: int) -> Block:
    """One row: a single dialogue, or several of 1 k tokens and more, one after another."""
    parts, left = [], tokens + 1
    while left > 0:
        length = left if left < 1024 or (left > tokens and rng.random() < 0.4) else min(left, int(1024 * (tokens / 1024) ** rng.random()))
        parts.append(row(speaker, rng, length))
        left -= length
    return np.concatenate([ids for ids, _ in parts])[None], np.concatenate([classes for _, classes in parts])[None]


def _write(
    tokenizer: Path, seed: int, make: Callable[[Speaker, random.Random, int], Block], tokens: int, out: multiprocessing.Queue
) -> None:
    rng = random.Random(seed)
    encoder = Encoder(tokenizer)
    while True:
        speaker = Speaker(rng, evaluation=False, encoder=encoder)  # new names and new filler from time to time
        for _ in range(24):
            out.put(make(speaker, rng, tokens))


class Stream:
    """Batches of one form: ids and classes, int64, [rows, length + 1]."""

    def __init__(
        self, tokenizer: Path, make: Callable[[Speaker, random.Random, int], Block], tokens: int, workers: int, seed: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._blocks = context.Queue(maxsize=2 * workers)
        self._batches: queue.Queue[tuple[Tensor, Tensor]] = queue.Queue(maxsize=3)
        for i in range(workers):
            context.Process(target=_write, args=(tokenizer, seed * 1000 + i, make, tokens, self._blocks), daemon=True).start()

    def start(self, device: torch.device) -> None:
        """Begins to move batches; call it when all streams have forked their workers."""
        threading.Thread(target=self._move, args=(device,), daemon=True).start()

    def _move(self, device: torch.device) -> None:
        while True:
            ids, classes = (torch.from_numpy(part.astype(np.int64)).to(device) for part in self._blocks.get())
            self._batches.put((ids, classes))

    def batch(self) -> tuple[Tensor, Tensor]:
        return self._batches.get()


def stretched(classes: Tensor, longest: float) -> Tensor:
    """Lets some pasted tokens stand for many equal ones, so that a short row covers a long distance.

    classes [B, T] -> factors float32 [B, T], 1 or more. Seven rows of ten grow, by up to `longest` tokens in all.
    """
    b, t = classes.shape
    device = classes.device
    total = torch.exp(torch.rand(b, 1, device=device) * np.log(max(longest, 2.0))) * (torch.rand(b, 1, device=device) < 0.7)
    share = torch.exp(-torch.rand(b, 1, device=device) * np.log(64.0))  # of the pasted tokens are stretched
    chosen = (classes == FILLER) & (torch.rand(b, t, device=device) < share)
    weight = torch.empty(b, t, device=device).exponential_() * chosen
    return 1 + (total * weight / weight.sum(1, keepdim=True).clamp_min(1e-6)).floor()
