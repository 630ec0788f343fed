"""Feeds training: worker processes write dialogues, a thread gathers them into batches on the device."""

import multiprocessing
import queue
import random
import threading
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from world import FILLER, Encoder, Speaker, row

BLOCK = 1 << 17  # tokens a worker hands over at a time


def _write(tokenizer: Path, seed: int, lengths: list[int], phase: Synchronized, out: multiprocessing.Queue) -> None:
    rng = random.Random(seed)
    encoder = Encoder(tokenizer)
    while True:
        speaker = Speaker(rng, evaluation=False, encoder=encoder)  # new names and new filler from time to time
        for _ in range(24):
            now = phase.value
            rows = [row(speaker, rng, lengths[now] + 1) for _ in range(max(1, BLOCK // lengths[now]))]
            out.put((now, np.stack([ids for ids, _ in rows]), np.stack([classes for _, classes in rows])))


class Feeder:
    """Batches of ids int64 and classes int64, each [rows, length + 1]; `phase` chooses the length."""

    def __init__(self, tokenizer: Path, lengths: list[int], tokens: int, workers: int, seed: int) -> None:
        context = multiprocessing.get_context("fork")
        self.lengths, self.tokens = lengths, tokens
        self._phase = context.Value("i", 0)
        self._blocks = context.Queue(maxsize=2 * workers)
        self._batches: queue.Queue[tuple[int, Tensor, Tensor]] = queue.Queue(maxsize=3)
        for i in range(workers):
            args = (tokenizer, seed * 1000 + i, lengths, self._phase, self._blocks)
            context.Process(target=_write, args=args, daemon=True).start()

    def start(self, device: torch.device) -> None:
        threading.Thread(target=self._gather, args=(device,), daemon=True).start()

    def _gather(self, device: torch.device) -> None:
        current, gathered = 0, []
        while True:
            phase, ids, classes = self._blocks.get()
            if phase != self._phase.value:
                continue
            if phase != current:
                current, gathered = phase, []
            gathered.append((ids, classes))
            wanted = max(1, self.tokens // self.lengths[phase])
            if sum(len(ids) for ids, _ in gathered) >= wanted:
                arrays = (np.concatenate(part)[:wanted].astype(np.int64) for part in zip(*gathered, strict=True))
                batch = tuple(torch.from_numpy(a).to(device) for a in arrays)
                self._batches.put((phase, *batch))
                gathered = []

    def batch(self, phase: int) -> tuple[Tensor, Tensor]:
        self._phase.value = phase
        while True:
            made, ids, classes = self._batches.get()
            if made == phase:
                return ids, classes


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
