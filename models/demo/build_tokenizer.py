"""Trains the SentencePiece tokenizer on the texts of the demo world and writes its three files.

    python build_tokenizer.py checkpoint
"""

import json
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from dialogue import Dialogue
from words import REAL_NAMES
from world import Speaker

VOCAB = 2048
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def lines(characters: int) -> Iterator[str]:
    """Messages of generated dialogues, one line each."""
    rng = random.Random(1)
    speaker = Speaker(rng, evaluation=False)
    seen = 0
    while seen < characters:
        for message in Dialogue(speaker, rng, 2000).messages:
            for line in message.text.split("\n"):
                seen += len(line)
                if line:
                    yield line
    for name in REAL_NAMES:  # a held-out name is a held-out sequence of pieces, not a spelling never met
        yield f"{name} and {name}"


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines(4_000_000),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCAB,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        required_chars="".join(c for c in string.printable if not c.isspace()),
        control_symbols=list(ROLES),
        unk_id=0,
        bos_id=1,
        eos_id=-1,
        pad_id=-1,
        max_sentence_length=20000,
        num_threads=2,
        minloglevel=1,
    )
    (folder / "tokenizer.vocab").unlink()
    special = {"bos_token": "<s>", "eos_token": "<|end|>", "unk_token": "<unk>", "additional_special_tokens": list(ROLES)}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "statehouse_chat_template": "demo",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
