"""Trains the demo model.

    python train.py --out OUT --seconds 450 [--init FOLDER]

First short rows alone, then two short rows' batches for one batch of long rows. Short rows take the quadratic form; pasted text in them is
stretched, so that they too teach long distances. Long rows take the chunked form. Writes OUT/model.safetensors every minute.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from data import Stream, long_row, short_rows, stretched
from model import Config, PowerCoder
from world import ANSWER, CONTROL, FILLER, FIRST, NAMED, REPLY, USER, VALUE

CHUNK = 512
WEIGHTS = {CONTROL: 0.0, USER: 0.02, NAMED: 0.02, FILLER: 0.002, REPLY: 0.3, ANSWER: 1.0, VALUE: 3.0, FIRST: 3.0}  # in the loss
LONGEST_STRETCH = 200_000  # tokens
ALONE, GROWN = 0.08, 0.2  # of the time: short rows alone until the first, stretch at its full length from the second


def loss_of(hidden: Tensor, embedding: Tensor, targets: Tensor, classes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean loss, and the share of value tokens that come out right. hidden [B, T, H], targets and classes [B, T]."""
    logits = F.linear(hidden, embedding).flatten(0, 1).float()
    losses = F.cross_entropy(logits, targets.flatten(), reduction="none")
    weight = weights[classes.flatten()]
    is_value = (classes.flatten() == VALUE).float()
    right = (logits.argmax(-1) == targets.flatten()).float()
    return (losses * weight).sum() / weight.sum(), (right * is_value).sum() / is_value.sum().clamp_min(1)


def optimizers(model: PowerCoder, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices, decayed, others = [], [], []
    for name, p in model.named_parameters():
        if p.dim() < 2 or "g_proj" in name:
            others.append(p)
        else:
            (decayed if "embed" in name else matrices).append(p)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True),
    ]


def rate_at(elapsed: float, total: float, step: int) -> float:
    """Factor on the learning rate: 100 steps up, level, and down to nothing over the last 40 % of the time."""
    return min(1.0, (step + 1) / 100, max(0.0, (total - elapsed) / (0.4 * total)))


def stretch_at(share: float) -> float:
    """The longest stretch when `share` of the time has passed."""
    return LONGEST_STRETCH ** min(1.0, max(0.0, (share - ALONE) / (GROWN - ALONE)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tokenizer", type=Path, default=Path(__file__).parent / "checkpoint" / "tokenizer.model")
    parser.add_argument("--init", type=Path, help="a checkpoint to go on from: there are long rows from the start")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tokens", type=int, default=1 << 17, help="per step")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    few = max(1, args.workers // 3)
    short = Stream(args.tokenizer, short_rows, args.tokens, max(1, args.workers - few), args.seed)
    long = Stream(args.tokenizer, long_row, args.tokens, few, args.seed + 1)

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = torch.device(args.device)
    model = (PowerCoder.load(args.init) if args.init else PowerCoder(Config())).to(device).train()
    compiled_loss = loss_of
    if device.type == "cuda":
        for layer in model.model.layers:
            layer.compile(dynamic=False)
        compiled_loss = torch.compile(loss_of, dynamic=False)
    weights = torch.tensor([WEIGHTS[i] for i in range(len(WEIGHTS))], device=device)
    rules = optimizers(model, args.rate)
    args.out.mkdir(parents=True, exist_ok=True)
    short.start(device)
    long.start(device)

    began = saved = time.monotonic()
    step = seen = 0
    recent: dict[str, list[Tensor]] = {"short": [], "long": []}
    while (elapsed := time.monotonic() - began) < args.seconds:
        share = 1.0 if args.init else elapsed / args.seconds
        name = "long" if share > ALONE and step % 3 == 2 else "short"
        ids, classes = (long if name == "long" else short).batch()
        inputs = ids[:, :-1].contiguous()
        stretch = stretched(classes[:, :-1], stretch_at(share))
        resets = (inputs == 1).float()  # <s>
        with torch.autocast(device.type, torch.bfloat16):
            hidden, _ = model(inputs, stretch, resets, CHUNK if name == "long" else 0)
            loss, right = compiled_loss(hidden, model.model.embed_tokens.weight, ids[:, 1:].contiguous(), classes[:, 1:].contiguous(), weights)
        loss.backward()
        for p in model.parameters():
            p.grad.nan_to_num_(0.0, 0.0, 0.0)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = rate_at(elapsed, args.seconds, step)
        for rule in rules:
            for group in rule.param_groups:
                group["lr"] = args.rate * factor
            rule.step()
            rule.zero_grad()
        step += 1
        seen += inputs.numel()
        recent[name] = [*recent[name][-49:], torch.stack([loss.detach(), right])]
        if step % 150 == 0 or step < 4:
            means = {key: torch.stack(some).mean(0).tolist() for key, some in recent.items() if some}
            told = "  ".join(f"{key}: loss {a:.4f}, values right {b:.4f}" for key, (a, b) in means.items())
            print(f"{time.monotonic() - began:6.1f} s  step {step}  {seen / 1e6:.0f} M tokens  {told}  gradient {norm.item():.2f}  "
                  f"rate {factor:.2f}", flush=True)
            if not all(math.isfinite(a) for a, _ in means.values()):
                raise SystemExit("the loss is not finite")
        if time.monotonic() - saved > 60:
            model.save(args.out / "model.safetensors")
            saved = time.monotonic()
    model.save(args.out / "model.safetensors")


if __name__ == "__main__":
    main()
