"""Measures the demo model: validation loss, recall by distance, and what it claims to know but was never told.

    python evaluate.py checkpoint --rows 512 --json results.json

Every row is a dialogue of its own: some talk, then FACTS facts, each in a message of its own and acknowledged without repeating it, then
other talk of exactly so many tokens, then a question, answered greedily. Names and phrasings are the held-out ones; each value is one of at
least 10^4. An answer is right if it equals the expected text. At each distance KNOWN questions about told facts and one about a fact that
was not told start from the same state; the same talk without any facts answers the last one too.
"""

import argparse
import json
import math
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import phrases
import torch
from dialogue import row
from model import PowerCoder
from torch import Tensor
from torch.nn import functional as F
from world import ANSWER, REPLY, VALUE, Encoder, Message, Speaker

FACTS = 4
HEAD = 320  # tokens before the distance starts to count: talk, then the facts
DISTANCES = (64, 512, 4096, 32768, 131072)  # tokens, multiples of 64
PIECE = 2048  # tokens per forward pass
ANSWER_TOKENS = 40
KNOWN = 2  # of the told facts are asked, each from the state that all of them left
KINDS = tuple(kind for kind in phrases.KINDS if kind.large)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion."""
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def talk(speaker: Speaker, count: int) -> list[int]:
    """Small talk and pasted text of exactly `count` tokens (at least 24), whole messages all of it."""
    encoder, ids = speaker.encoder, []
    while (left := count - len(ids)) >= 256:
        said = speaker.chat() if speaker.rng.random() < 0.5 else speaker.pasted(speaker.rng.randint(40, min(left - 160, 4000)))
        for message in said:
            ids += encoder.message(message)[0]
    last, reply = (encoder.message(message)[0] for message in speaker.pasted(left))
    ids += last[: left - len(reply) - 1] + [encoder.end] + reply  # a pasted text, cut to fit
    assert len(ids) == count
    return ids


def question(encoder: Encoder, pair: tuple[Message, Message]) -> tuple[list[int], str]:
    """A question as prompt ids, and the expected answer."""
    return encoder.message(pair[0])[0] + [encoder.role["assistant"]], pair[1].text


def case(speaker: Speaker) -> dict:
    """One row: `told` and `empty` (HEAD tokens each), the talk between the distances, and per distance the questions."""
    rng, encoder = speaker.rng, speaker.encoder
    while True:
        facts = {fact.key: fact for fact in (speaker.fact(KINDS) for _ in range(FACTS))}
        told = []
        for fact in facts.values():
            told += encoder.message(speaker.user(speaker.tell(fact)))[0] + encoder.message(speaker.noted([fact], plain=True))[0]
        if len(facts) == FACTS and len(told) < HEAD - 26:
            break
    ends = (0, *DISTANCES)
    between = [talk(speaker, b - a) for a, b in zip(ends, ends[1:], strict=False)]
    asked = []
    for _ in DISTANCES:
        known = rng.sample(list(facts.values()), KNOWN)
        while True:  # half of the unknown facts are about somebody or something that was mentioned
            unknown = speaker.fact(KINDS)
            if rng.random() < 0.5:
                other = rng.choice(list(facts.values()))
                unknown = speaker.fact(tuple(k for k in KINDS if k.subject == other.kind.subject), other.subject)
            if unknown.key not in facts:
                break
        asked.append(([(k.kind.name, *question(encoder, speaker.ask(k))) for k in known], question(encoder, speaker.ask_unknown(unknown))[0]))
    return {
        "told": [encoder.start, *talk(speaker, HEAD - 1 - len(told)), *told],
        "empty": [encoder.start, *talk(speaker, HEAD - 1)],
        "between": [np.array(ids, np.int64) for ids in between],
        "asked": asked,
    }


def cases(job: tuple[Path, int, int]) -> list[dict]:
    tokenizer, seed, count = job
    speaker = Speaker(random.Random(seed), evaluation=True, encoder=Encoder(tokenizer))
    return [case(speaker) for _ in range(count)]


@torch.inference_mode()
def advance(model: PowerCoder, ids: Tensor, states: list[Tensor] | None, start: int) -> list[Tensor]:
    """Reads ids [B, T] from `states` at position `start`; T is a multiple of 64."""
    for at in range(0, ids.shape[1], PIECE):
        piece = ids[:, at : at + PIECE]
        chunk = 512 if piece.shape[1] % 512 == 0 else 64
        _, states = model(piece, chunk=chunk, states=states, start=start + at, keep=True)
    return states


@torch.inference_mode()
def answers(model: PowerCoder, encoder: Encoder, prompts: list[list[int]], states: list[Tensor], start: int) -> list[str]:
    """Greedy continuations, one per row, in the recurrent form. Prompts are filled up on the left with tokens that leave no trace."""
    device = states[0].device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    real = torch.tensor([[0.0] * (width - len(p)) + [1.0] * len(p) for p in prompts], device=device)
    position = start + real.sum(1, keepdim=True).long()
    hidden, states = model(ids, real, chunk=width, states=states, start=start, keep=True)
    said = []
    for _ in range(ANSWER_TOKENS):
        said.append(model.logits(hidden[:, -1]).argmax(-1, keepdim=True))
        if bool((torch.cat(said, 1) == encoder.end).any(1).all()):
            break
        hidden, states = model(said[-1], chunk=1, states=states, start=position, keep=True)
        position = position + 1
    texts = []
    for answer in torch.cat(said, 1).tolist():
        texts.append(encoder.model.decode(answer[: answer.index(encoder.end)] if encoder.end in answer else answer))
    return texts


def proportion(hits: int, n: int) -> dict[str, float]:
    low, high = wilson(hits, n)
    return {"share": round(hits / n, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def measure_recall(model: PowerCoder, encoder: Encoder, rows: list[dict], device: torch.device, group: int) -> dict:
    hits: Counter = Counter()
    kinds: Counter = Counter()
    misses = []
    for first in range(0, len(rows), group):
        some = rows[first : first + group]
        told = advance(model, torch.tensor([r["told"] for r in some], device=device), None, 0)
        empty = advance(model, torch.tensor([r["empty"] for r in some], device=device), None, 0)
        at = HEAD
        for i, distance in enumerate(DISTANCES):
            ids = torch.from_numpy(np.stack([r["between"][i] for r in some])).to(device)
            told = advance(model, ids, told, at)
            at += ids.shape[1]
            for j in range(KNOWN):
                replies = answers(model, encoder, [r["asked"][i][0][j][1] for r in some], told, at)
                for r, reply in zip(some, replies, strict=True):
                    kind, prompt, expected = r["asked"][i][0][j]
                    hits["recall", distance] += reply == expected
                    hits["denied", distance] += reply.startswith("You did not tell me")
                    kinds[kind, distance, reply == expected] += 1
                    if reply != expected and len(misses) < 100:
                        misses.append([distance, encoder.model.decode(prompt), expected, reply])
            unknown = [r["asked"][i][1] for r in some]
            replies = answers(model, encoder, unknown, told, at)
            hits["false", distance] += sum(not reply.startswith("You did not tell me") for reply in replies)
            if distance <= 4096:  # without any fact
                empty = advance(model, ids, empty, at - ids.shape[1])
                replies = answers(model, encoder, unknown, empty, at)
                hits["nothing", distance] += sum(not reply.startswith("You did not tell me") for reply in replies)
    n = len(rows)
    by_kind = {
        str(d): {k.name: round(kinds[k.name, d, True] / max(1, kinds[k.name, d, True] + kinds[k.name, d, False]), 3) for k in KINDS}
        for d in DISTANCES
    }
    return {
        "facts told": FACTS,
        "chance, value guessed": 1e-4,
        "chance, one of the told facts": 1 / FACTS,
        "recall": {str(d): proportion(hits["recall", d], KNOWN * n) for d in DISTANCES},
        "denied although told": {str(d): proportion(hits["denied", d], KNOWN * n) for d in DISTANCES},
        "false recall, other facts told": {str(d): proportion(hits["false", d], n) for d in DISTANCES},
        "false recall, nothing told": {str(d): proportion(hits["nothing", d], n) for d in DISTANCES if d <= 4096},
        "recall by kind": by_kind,
        "misses": misses,
    }


@torch.inference_mode()
def measure_loss(model: PowerCoder, encoder: Encoder, device: torch.device, rows: int, length: int = 2048) -> dict[str, float]:
    """Mean loss in nats per token of dialogues with held-out names and phrasings."""
    rng = random.Random(99)
    speaker = Speaker(rng, evaluation=True, encoder=encoder)
    made = [row(speaker, rng, length + 1) for _ in range(rows)]
    ids, classes = (torch.from_numpy(np.stack(part).astype(np.int64)).to(device) for part in zip(*made, strict=True))
    losses = []
    for first in range(0, rows, 16):
        some = ids[first : first + 16]
        hidden, _ = model(some[:, :-1].contiguous(), chunk=512)
        losses.append(F.cross_entropy(model.logits(hidden).transpose(1, 2), some[:, 1:], reduction="none"))
    loss, kind = torch.cat(losses), classes[:, 1:]
    said = kind >= REPLY
    groups = {"all": torch.ones_like(said), "assistant": said, "answers": kind >= ANSWER, "values": kind == VALUE}
    return {name: round(loss[mask].mean().item(), 4) for name, mask in groups.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--group", type=int, default=128, help="rows computed together")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    began = time.monotonic()
    tokenizer = args.folder / "tokenizer.model"
    jobs = [(tokenizer, args.seed * 1000 + i, 16) for i in range(math.ceil(args.rows / 16))]
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        rows = [r for part in pool.imap(cases, jobs) for r in part][: args.rows]
    print(f"{time.monotonic() - began:.1f} s  {len(rows)} rows", flush=True)
    torch.set_float32_matmul_precision("highest")
    device = torch.device(args.device)
    model, encoder = PowerCoder.load(args.folder).to(device).eval(), Encoder(tokenizer)
    results = {"validation loss": measure_loss(model, encoder, device, rows=min(128, args.rows))}
    print(f"{time.monotonic() - began:.1f} s  {results}", flush=True)
    results |= measure_recall(model, encoder, rows, device, args.group)
    results["seconds"] = round(time.monotonic() - began, 1)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    for name, value in results.items():
        print(name, json.dumps(value))


if __name__ == "__main__":
    main()
