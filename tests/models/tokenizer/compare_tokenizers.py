"""Compares ids and decoded text with the Python packages `tokenizers` and `sentencepiece`.

    compare_tokenizers.py ENCODE_LINES [--texts N] [--all-characters]

Trains or builds tokenizers of the shapes that the supported models use, saves them as a checkpoint would hold them, and
runs the same texts through the package and through ENCODE_LINES. STATEHOUSE_STARCODER2 may name a directory with the
merges.txt and special_tokens_map.json of StarCoder2; a vocabulary is then built from them too. Exits 77 if the packages
are missing.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

try:
    import sentencepiece
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as error:
    print(f"skipped: {error}; install tests/requirements.txt")
    sys.exit(77)

from sample_texts import corpus, texts

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


class Ours:
    """The tokenizer of a directory, run by ENCODE_LINES."""

    def __init__(self, program: str, folder: Path):
        self.command = [program, str(folder)]

    def ask(self, requests: Iterable[dict]) -> list[dict]:
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run(self.command, input=lines, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(self.command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def encode(self, samples: list[str], add: bool, parse: bool) -> list[dict]:
        return self.ask({"text": text, "add": add, "parse": parse} for text in samples)

    def decode(self, sequences: list[list[int]], show: bool) -> list[dict]:
        return self.ask({"ids": ids, "show": show} for ids in sequences)


class Report:
    def __init__(self) -> None:
        self.failures = 0

    def compare(self, what: str, inputs: list, expected: list, actual: list) -> None:
        assert len(inputs) == len(expected) == len(actual), (what, len(inputs), len(expected), len(actual))
        wrong = [i for i in range(len(inputs)) if expected[i] != actual[i]]
        print(f"{'FAILED' if wrong else 'ok':6} {what}: {len(inputs) - len(wrong)} of {len(inputs)} equal", flush=True)
        self.failures += len(wrong)
        for i in sorted(wrong, key=lambda i: len(inputs[i]))[:3]:
            for name, values in (("input", inputs), ("expected", expected), ("actual", actual)):
                print(f"    {name:8} {ascii(values[i])[:300]}")


def ids_of(tokenizer: Tokenizer, samples: list[str], add: bool) -> list[list[int]]:
    ids = []
    for i in range(0, len(samples), 500):  # an encoding holds much more than its ids
        ids += [encoding.ids for encoding in tokenizer.encode_batch_fast(samples[i:i + 500], add_special_tokens=add)]
    return ids


def ids_or_error(answers: list[dict]) -> list:
    return [answer.get("ids", answer.get("error")) for answer in answers]


def random_ids(rng: random.Random, size: int, count: int) -> list[list[int]]:
    return [[rng.randrange(size) for _ in range(rng.randrange(1, 25))] for _ in range(count)]


def compare_bpe(report: Report, name: str, ours: Ours, theirs: Tokenizer, samples: list[str]) -> None:
    for parse in (True, False):
        theirs.encode_special_tokens = not parse
        expected = ids_of(theirs, samples, add=parse)
        report.compare(f"{name}: ids, special tokens {'read' if parse else 'not read'}", samples, expected,
                       ids_or_error(ours.encode(samples, add=parse, parse=parse)))
    sequences = expected + random_ids(random.Random(7), theirs.get_vocab_size(), 3000)
    for show in (True, False):
        compare_text(report, f"{name}: text, special tokens {'shown' if show else 'hidden'}", sequences,
                     theirs.decode_batch(sequences, skip_special_tokens=not show), ours.decode(sequences, show))


def compare_text(report: Report, what: str, sequences: list[list[int]], expected: list[str],
                 actual: list[dict]) -> None:
    report.compare(what, sequences, expected, [answer["text"] for answer in actual])
    report.compare(what + ", streamed", sequences, expected, [answer["streamed"] for answer in actual])
    report.compare(what + ", characters whole", sequences, [True] * len(actual),
                   [answer["whole_characters"] for answer in actual])


def trained(pre_tokenizer, normalizer, special: list[str], alphabet: bool = True, **model) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=special, show_progress=False,
                                  initial_alphabet=ALPHABET if alphabet else [])
    tokenizer.train_from_iterator(corpus(seed=3), trainer)
    return tokenizer


def starcoder2() -> Tokenizer:
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return trained(pre_tokenizer, None, ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"])


def qwen_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated", invert=False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def qwen3() -> Tokenizer:
    tokenizer = trained(qwen_words(), normalizers.NFC(), [])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    return tokenizer


def with_flags() -> Tokenizer:
    """Every option that shapes ids, in one: prefix space, template, whole words, flags of added tokens."""
    tokenizer = trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)]),
                        normalizers.Sequence([normalizers.NFC()]), ["<s>", "</s>"], ignore_merges=True)
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("<word>", single_word=True, normalized=False),
                          AddedToken("cafe\u0301!", normalized=True, lstrip=True),
                          AddedToken("quick", single_word=True, normalized=True, rstrip=True),
                          AddedToken("<think>", normalized=False), AddedToken("<think>ing", normalized=False)])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>",
                                      special_tokens=[("<s>", 0), ("</s>", 1)])])
    return tokenizer


def split_behaviour(behaviour: str, invert: bool, pattern) -> Callable[[], Tokenizer]:
    def build() -> Tokenizer:
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, behaviour, invert=invert),
                                         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        return probe(words, None)
    return build


def probe(words, normalizer, **model) -> Tokenizer:
    """Merges a few common bytes with every byte around them, so that ids show where words end."""
    vocab = {character: i for i, character in enumerate(ALPHABET)}
    merges = []
    for left in "x1.\u0120\u010a'":
        for pair in [(left, right) for right in ALPHABET] + [(right, left) for right in ALPHABET]:
            if "".join(pair) not in vocab:
                vocab["".join(pair)] = len(vocab)
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab, merges, **model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tangled(rng: random.Random) -> Tokenizer:
    """Random merges of four letters, so that a token can be made in several ways and at several ranks."""
    vocab = {character: i for i, character in enumerate(ALPHABET)}
    merges = []
    tokens = list("abcd")
    for _ in range(60):
        pair = (rng.choice(tokens), rng.choice(tokens))
        if len("".join(pair)) <= 6 and pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
            vocab.setdefault("".join(pair), len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def no_alphabet() -> Tokenizer:
    """Bytes without a token of their own become the unknown token, one for a run of them."""
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False), None, ["<unk>"], alphabet=False,
                   unk_token="<unk>", fuse_unk=True)


def real_starcoder2(folder: Path) -> Tokenizer:
    merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
              if line and not line.startswith("#version")]
    special = json.loads((folder / "special_tokens_map.json").read_text())["additional_special_tokens"]
    vocab = {token: i for i, token in enumerate(special)}
    for token in ALPHABET + ["".join(pair) for pair in merges]:
        vocab.setdefault(token, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = starcoder2().pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def save_json(tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_files(tokenizer: Tokenizer, folder: Path, config: dict, tokenizer_config: dict) -> Path:
    """As vocab.json and merges.txt, with the small files beside."""
    folder.mkdir()
    tokenizer.model.save(str(folder))
    added = tokenizer.get_added_tokens_decoder()
    special = [token.content for token in added.values() if token.special]
    in_vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    named = {"eos_token": special[0], "additional_special_tokens": special}
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    new = {token.content: i for i, token in added.items() if token.content not in in_vocab}
    (folder / "added_tokens.json").write_text(json.dumps(new))
    return folder


def every_character(every: bool) -> list[str]:
    """Each character next to a letter, a digit, a sign, a space and marks; 20 to a text. Without `every`, only each 101st
    of those above U+20000, which are ideographs, tags, private or not assigned."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    codes = [code for code in codes if every or code < 0x20000 or code % 101 == 0]
    lines = [codes[i:i + 20] for i in range(0, len(codes), 20)]
    return ["\n".join(f"x{c}x1{c} .{c}. {c}e\u0345{c}\u0301'{c}" for c in map(chr, line)) for line in lines]


def train_sentencepiece(folder: Path, **options) -> sentencepiece.SentencePieceProcessor:
    folder.mkdir()
    lines = [line.replace("\x00", "") for text in corpus(seed=5) for line in text.splitlines() if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), vocab_size=1500, byte_fallback=True,
        character_coverage=0.98, minloglevel=2, num_threads=1, max_sentence_length=20000, hard_vocab_limit=False,
        control_symbols=["<|end|>", "<|user|>"], user_defined_symbols=["<think>"], **options)
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def compare_sentencepiece(report: Report, name: str, ours: Ours, theirs, samples: list[str]) -> None:
    report.compare(f"{name}: ids", samples, theirs.encode(samples),
                   ids_or_error(ours.encode(samples, add=False, parse=False)))
    sequences = theirs.encode(samples) + random_ids(random.Random(9), theirs.get_piece_size(), 5000)
    sequences += random_ids(random.Random(11), 300, 5000)  # mostly bytes
    compare_text(report, f"{name}: text", sequences, [theirs.decode(ids) for ids in sequences],
                 ours.decode(sequences, show=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the program encode_lines")
    parser.add_argument("--texts", type=int, default=12000, help="texts per tokenizer (default 12000)")
    parser.add_argument("--all-characters", action="store_true", help="not only a share of those above U+20000")
    arguments = parser.parse_args()
    samples = texts(arguments.texts, seed=1)
    few = samples[:3000]
    characters = every_character(arguments.all_characters)
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)

        def ours(folder: Path) -> Ours:
            return Ours(arguments.program, folder)

        star, qwen = starcoder2(), qwen3()
        compare_bpe(report, "starcoder2", ours(save_json(star, root / "starcoder2")), star, samples)
        compare_bpe(report, "starcoder2, vocab.json",
                    ours(save_files(star, root / "starcoder2-files", {"model_type": "powercoder"}, {})), star, few)
        compare_bpe(report, "qwen3", ours(save_json(qwen, root / "qwen3")), qwen, samples)
        compare_bpe(report, "qwen3, vocab.json",
                    ours(save_files(qwen, root / "qwen3-files", {}, {"tokenizer_class": "Qwen2Tokenizer"})), qwen, few)
        flags = with_flags()
        compare_bpe(report, "every option", ours(save_json(flags, root / "flags")), flags, samples)
        unknown = no_alphabet()
        compare_bpe(report, "unknown bytes", ours(save_json(unknown, root / "unknown")), unknown, few)
        rng = random.Random(13)
        letters = ["".join(rng.choices("abcd", k=rng.randrange(1, 60))) for _ in range(1000)]
        for i in range(10):
            tokenizer = tangled(rng)
            folder = save_json(tokenizer, root / f"tangled-{i}")
            compare_ids(report, f"tangled merges {i}", ours(folder), tokenizer, letters)
        for behaviour in ("isolated", "removed", "contiguous", "merged_with_previous", "merged_with_next"):
            for invert in (False, True):
                for kind, pattern in (("regex", Regex(r"\s+|\d|[.,;]+")), ("text", " ")):
                    name = f"split {behaviour}{', inverted' if invert else ''}, {kind}"
                    tokenizer = split_behaviour(behaviour, invert, pattern)()
                    compare_ids(report, name, ours(save_json(tokenizer, root / name)), tokenizer, few)
        for name, words, normalizer in (("starcoder2", star.pre_tokenizer, None),
                                        ("qwen3", qwen_words(), normalizers.NFC()),
                                        ("categories", categories(), None)):
            tokenizer = probe(words, normalizer)
            folder = save_json(tokenizer, root / f"characters-{name}")
            compare_ids(report, f"every character, {name}", ours(folder), tokenizer, characters)
        if os.environ.get("STATEHOUSE_STARCODER2"):
            real = real_starcoder2(Path(os.environ["STATEHOUSE_STARCODER2"]))
            compare_bpe(report, "real starcoder2", ours(save_json(real, root / "real")), real, samples)
            compare_bpe(report, "real starcoder2, vocab.json",
                        ours(save_files(real, root / "real-files", {"model_type": "starcoder2"}, {})), real, samples)
        for kind in ("bpe", "unigram"):
            for prefix in (True, False):
                for extra in (True, False):
                    name = f"sentencepiece {kind}" + (", dummy prefix" if prefix else "") + (", single spaces" if extra else "")
                    theirs = train_sentencepiece(root / name, model_type=kind, add_dummy_prefix=prefix,
                                                 remove_extra_whitespaces=extra,
                                                 normalization_rule_name="nmt_nfkc" if extra else "identity")
                    compare_sentencepiece(report, name, ours(root / name), theirs, samples)
    print("FAILED" if report.failures else "all equal")
    return 1 if report.failures else 0


def compare_ids(report: Report, name: str, ours: Ours, theirs: Tokenizer, samples: list[str]) -> None:
    report.compare(name, samples, ids_of(theirs, samples, add=True),
                   ids_or_error(ours.encode(samples, add=True, parse=True)))


def categories() -> pre_tokenizers.PreTokenizer:
    """A word for each run of one general category: shows the category that a regular expression sees."""
    names = "Lu Ll Lt Lm Lo Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()
    pattern = "|".join(rf"\p{{{name}}}+" for name in names) + r"|\p{M}+|[^\w\s]+"
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


if __name__ == "__main__":
    sys.exit(main())
