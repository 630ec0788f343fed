"""Texts that tokenizers disagree about, made from a seed."""

import random

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fim_prefix>", "<fim_middle>", "<think>", "</think>", "<mask>",
    "<word>", "<s>", "</s>", "<|end|>", "<0x0A>", "<unk>", "caf\u00e9!", "cafe\u0301!",
]
PARTS = ["<|", "|>", "<|endoftext", "endoftext|>", "<|im_start", "<", ">", "<th", "ink>"]

CODE = [
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i];\n\t}",
    "  if __name__ == '__main__':", "SELECT * FROM t WHERE id = 42;",
    "#include <vector>\r\n\r\nint main() { return 0; }", "x = {'a': [1, 2.5e-10], \"b\": None}",
    "// TODO(me): don't, can't, we're, they've, I'd, I'll, it'S, WE'RE", "a->b::c<d>(e)&&!f||g^h%i",
    "/* \u00a9 2024 */", "print(f\"{value!r:>10}\")", "0xDEADBEEF 1_000_000 3.14159",
    "https://example.org/a?b=c&d=%20#e", "$ ls -la | grep '^d'",
]
WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "Hello", "world", "I'm", "don't", "it's",
    "na\u00efve", "stra\u00dfe", "\u0130stanbul", "\u017ftop", "'\u017f", "e-mail", "U.S.A.", "\u00bfqu\u00e9?",
    "\u041f\u0440\u0438\u0432\u0435\u0442", "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155\ud558\uc138\uc694",
    "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u1112\u1161\u11ab", "\u212b",
    "\u2126", "\ufb01x", "\u2460", "\u216b", "\u00bd",
]
EMOJI = [
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd",
    "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1\ufe0f\u20e3", "\U0001f937\U0001f3fc\u200d\u2642\ufe0f",
]
SPACES = [
    " ", "  ", "   ", " " * 7, " " * 33, "\t", "\t\t", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ", " \t ",
    "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u2029", "\u0085", "\u180e", "\ufeff", "\v", "\f", "\u1680",
]
MARKS = [
    "\u0301", "\u0308", "\u0327", "\u0323", "\u0345", "\u05b4", "\u064e", "\u0951", "\u3099", "\u20d0", "\u0344",
    "\u0f73", "\u0e31", "\u1acf", "\u0897",
]
DIGITS = [
    "0", "7", "12", "2024", "1234567890", "\u0663\u0664", "\u0967\u0968", "\uff11\uff12", "\u4e8c", "\u2167",
    "\u00b2", "\U0001d7d8", "\U00010d41", "\U00011de3",
]
CONTROL = [
    "\x00", "\x01", "\x07", "\x1b[0m", "\x7f", "\x80", "\x9f", "\u00ad", "\u202e", "\u2066", "\ufffd", "\ufffe",
    "\uffff", "\U0010ffff", "\ue000",
]


def scalar(rng: random.Random, below: int) -> str:
    code = rng.randrange(below)
    while 0xD800 <= code < 0xE000:
        code = rng.randrange(below)
    return chr(code)


def runs(rng: random.Random) -> str:
    return rng.choice(SPACES + MARKS + ["a", "\u4e00", "=", "-", "'s", "1"]) * rng.randrange(1, 60)


def text(rng: random.Random) -> str:
    kinds = [
        lambda: rng.choice(CODE),
        lambda: " ".join(rng.choices(WORDS, k=rng.randrange(1, 9))),
        lambda: "".join(rng.choices(WORDS + DIGITS, k=rng.randrange(1, 6))),
        lambda: "".join(rng.choices(EMOJI, k=rng.randrange(1, 5))),
        lambda: "".join(rng.choices(SPACES, k=rng.randrange(1, 8))),
        lambda: rng.choice("aeoun\u0915\u05d0\u4e2d ") + "".join(rng.choices(MARKS, k=rng.randrange(1, 9))),
        lambda: "".join(rng.choices(DIGITS, k=rng.randrange(1, 5))),
        lambda: "".join(rng.choices(CONTROL, k=rng.randrange(1, 4))),
        lambda: "".join(rng.choices(SPECIAL + PARTS + SPACES + WORDS, k=rng.randrange(1, 7))),
        lambda: runs(rng),
        lambda: "".join(scalar(rng, 0x110000) for _ in range(rng.randrange(1, 20))),
        lambda: "".join(scalar(rng, 0x3000) for _ in range(rng.randrange(1, 20))),
        lambda: "".join(chr(rng.randrange(0x4e00, 0x9fff)) for _ in range(rng.randrange(1, 30))),
        lambda: "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(1, 60))),
    ]
    return "".join(rng.choice(kinds)() for _ in range(rng.randrange(1, 6)))


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    fixed = ["", " ", "\n", "a", "  a", "a ", "\u0301"]
    fixed += CODE + WORDS + EMOJI + SPACES + MARKS + DIGITS + CONTROL + SPECIAL + PARTS
    return fixed + [text(rng) for _ in range(count - len(fixed))]


def corpus(seed: int) -> list[str]:
    """What tokenizers are trained on: code and prose more than noise, so that merges are long."""
    rng = random.Random(seed)
    lines = []
    for _ in range(6000):
        kind = rng.random()
        if kind < 0.35:
            lines.append("".join(rng.choices(CODE, k=3)))
        elif kind < 0.8:
            lines.append(" ".join(rng.choices(WORDS + DIGITS, k=20)))
        else:
            lines.append(text(rng))
    return lines
