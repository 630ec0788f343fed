"""Trains the demo model.

    python train.py --out OUT --plan "512:120:1 512:120:200000 8192:60:32768" [--init checkpoint]

A phase of the plan is length:seconds:stretch, with the length of a row in tokens, the time it gets and the number of tokens by which
stretching may lengthen a row. Rows longer than LONGEST_QUADRATIC take the chunked form. Writes OUT/model.safetensors every minute.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from data import Feeder, stretched
from model import Config, PowerCoder
from world import ANSWER, CONTROL, FILLER, NAMED, REPLY, USER, VALUE

LONGEST_QUADRATIC = 1024
CHUNK = 512
WEIGHTS = {CONTROL: 0.0, USER: 0.02, NAMED: 0.02, FILLER: 0.002, REPLY: 0.3, ANSWER: 1.0, VALUE: 3.0}  # of a token in the loss


@dataclass(frozen=True)
class Phase:
    length: int
    seconds: float
    stretch: float

    @classmethod
    def parse(cls, text: str) -> "Phase":
        length, seconds, stretch = text.split(":")
        return cls(int(length), float(seconds), float(stretch))


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--tokenizer", type=Path, default=Path(__file__).parent / "checkpoint" / "tokenizer.model")
    parser.add_argument("--init", type=Path)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--tokens", type=int, default=1 << 17, help="per step")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    plan = [Phase.parse(text) for text in args.plan.split()]
    feeder = Feeder(args.tokenizer, [phase.length for phase in plan], args.tokens, args.workers, args.seed)

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64
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
    feeder.start(device)

    total = sum(phase.seconds for phase in plan)
    began = saved = time.monotonic()
    step = seen = 0
    recent: list[Tensor] = []
    for index, phase in enumerate(plan):
        chunk = 0 if phase.length <= LONGEST_QUADRATIC else CHUNK
        model.recompute = chunk > 0
        ends = began + sum(p.seconds for p in plan[: index + 1])
        while time.monotonic() < ends:
            ids, classes = feeder.batch(index)
            stretch = stretched(classes[:, :-1], phase.stretch) if phase.stretch > 1 else torch.ones_like(ids[:, :-1], dtype=torch.float32)
            with torch.autocast(device.type, torch.bfloat16):
                hidden, _ = model(ids[:, :-1].contiguous(), stretch, chunk)
                loss, right = compiled_loss(hidden, model.model.embed_tokens.weight, ids[:, 1:], classes[:, 1:], weights)
            loss.backward()
            for p in model.parameters():
                p.grad.nan_to_num_(0.0, 0.0, 0.0)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            factor = rate_at(time.monotonic() - began, total, step)
            for rule in rules:
                for group in rule.param_groups:
                    group["lr"] = args.rate * factor
                rule.step()
                rule.zero_grad()
            step += 1
            seen += ids.numel()
            recent = [*recent[-49:], torch.stack([loss.detach(), right])]
            if step % 100 == 0 or step < 3:
                mean_loss, mean_right = torch.stack(recent).mean(0).tolist()
                print(f"{time.monotonic() - began:6.1f} s  step {step}  length {phase.length}  {seen / 1e6:.1f} M tokens  "
                      f"loss {mean_loss:.4f}  values right {mean_right:.4f}  gradient {norm.item():.2f}  rate {factor:.2f}", flush=True)
                if not math.isfinite(mean_loss):
                    raise SystemExit("the loss is not finite")
            if time.monotonic() - saved > 60:
                model.save(args.out / "model.safetensors")
                saved = time.monotonic()
    model.save(args.out / "model.safetensors")


if __name__ == "__main__":
    main()
