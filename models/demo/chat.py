"""Talks with the demo model through PyTorch, greedily: one line of input is one message.

    python chat.py checkpoint
    printf 'My name is Tova.\\nWhat is my name?\\n' | python chat.py checkpoint
"""

import sys
from pathlib import Path

import torch

from model import PowerCoder
from world import Encoder, Message

LONGEST_ANSWER = 80  # tokens


@torch.inference_mode()
def reply(model: PowerCoder, encoder: Encoder, ids: list[int]) -> list[int]:
    """Continues a conversation whose ids end with the assistant's role; the <|end|> is part of the answer."""
    answer: list[int] = []
    while len(answer) < LONGEST_ANSWER and encoder.end not in answer:
        hidden, _ = model(torch.tensor([ids + answer]))
        answer.append(int(model.logits(hidden[0, -1]).argmax()))
    return answer


def main(folder: Path) -> None:
    model, encoder = PowerCoder.load(folder).eval(), Encoder(folder / "tokenizer.model")
    ids = [encoder.start]
    for line in sys.stdin:
        ids += encoder.message(Message("user", [(line.rstrip("\n"), 0)]))[0] + [encoder.role["assistant"]]
        answer = reply(model, encoder, ids)
        ids += answer
        print(f"> {line.rstrip()}\n{encoder.model.decode(answer[:-1])}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
