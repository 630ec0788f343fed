"""Facts and the messages that tell, ask and answer them: the words of the demo world. dialogue.py puts them in order.

A message is a list of parts. No token crosses the border of two parts, so that the parts of templates can be encoded once and kept:
the ids of a message equal the tokenizer's encoding of its whole text (test_demo.py holds this).
"""

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import composed
import phrases
import sentencepiece
import smalltalk
from phrases import Kind, expansions
from words import ADJECTIVES, COLOURS, GLUE, OBJECTS, OWNED, RELATIONS, SMALL_OBJECTS, THINGS, Lexicon, Value

# What a token is, for its weight in the loss.
CONTROL, USER, NAMED, FILLER, REPLY, ANSWER, VALUE, FIRST = range(8)  # FIRST: of an answer, "You did not" or not
Part = tuple[str, int]  # text and class
LARGE = tuple(kind for kind in phrases.KINDS if kind.large)  # the kinds that the evaluation asks for
PERSON = next(kind for kind in phrases.KINDS if kind.subject == "person")


@dataclass
class Message:
    role: str  # "system", "user" or "assistant"
    parts: list[Part]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True)
class Subject:
    """Whom or what a fact is about, as the user (`mine`) and as the assistant (`yours`) say it."""

    mine: str
    yours: str


@dataclass(frozen=True)
class Fact:
    kind: Kind
    subject: Subject
    value: Value

    @property
    def key(self) -> tuple[str, str]:
        return self.kind.name, self.subject.mine

    def slots(self) -> dict[str, str]:
        mine, yours = self.subject.mine, self.subject.yours
        slots = {"s": mine, "t": yours, "S": mine[:1].upper() + mine[1:], "T": yours[:1].upper() + yours[1:]}
        slots["n"] = mine.split(" ", 1)[-1]
        slots |= {str(i): part for i, part in enumerate(self.value)}
        slots["a0"], slots["A0"] = ("an", "An") if self.value[0][0] in "aeiou" else ("a", "A")
        return slots


@lru_cache(maxsize=None)
def _compile(template: str) -> tuple[tuple[str, bool, bool], ...]:
    """Cuts a template into (literal or slot, is a slot, has a space before it)."""
    cut, space = [], False
    for i, text in enumerate(re.split(r"\{(\w+)\}", template)):
        if i % 2:
            cut.append((text, True, space))
        elif text:
            space = text.endswith(" ")
            if text.rstrip(" "):
                cut.append((text.rstrip(" "), False, False))
        else:
            space = False
    return tuple(cut)


def render(template: str, slots: dict[str, str], literal: int, slot: int) -> list[Part]:
    """Fills a template; `literal` and `slot` are the classes of its fixed text and of the value parts of its slots."""
    parts = []
    for text, is_slot, space in _compile(template):
        if is_slot:
            kind = slot if text.isdigit() or slot == NAMED else literal
            parts.append((" " + slots[text] if space else slots[text], kind))
        else:
            parts.append((text, literal))
    return parts


def lowered(template: str) -> str:
    """The template as it stands inside a longer sentence."""
    if template.startswith(("{", "I ", "I'")):
        return template.replace("{S}", "{s}", 1).replace("{T}", "{t}", 1)
    return template[0].lower() + template[1:]


def wrapped(wrap: str, template: str) -> str:
    return wrap.replace("{}", lowered(template) if ", {}" in wrap else template)


class Encoder:
    """Text to token ids, with a memory for parts that come again."""

    def __init__(self, tokenizer: Path) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        self.start, self.end = self.model.piece_to_id("<s>"), self.model.piece_to_id("<|end|>")
        self.role = {role: self.model.piece_to_id(f"<|{role}|>") for role in ("system", "user", "assistant")}
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        known = self._known.get(text)
        if known is None:
            if len(self._known) > 300_000:
                self._known.clear()
            known = self._known[text] = self.model.encode(text)
        return known

    def message(self, message: Message) -> tuple[list[int], list[int]]:
        """Ids and classes of one message, its role and <|end|> tokens included."""
        ids, classes = [self.role[message.role]], [CONTROL]
        for text, kind in message.parts:
            part = self.ids(text)
            ids += part
            classes += [kind] * len(part)
        if classes[-1] in (ANSWER, VALUE):
            classes[1] = FIRST
        ids.append(self.end)
        classes.append(classes[-1] if message.role == "assistant" else CONTROL)
        return ids, classes

    def length(self, parts: list[Part]) -> int:
        return sum(len(self.ids(text)) for text, _ in parts)


class Speaker:
    """Turns facts and moods into messages. `evaluation` picks the held-out names and phrasings, and no others."""

    def __init__(self, rng: random.Random, evaluation: bool, encoder: Encoder | None = None) -> None:
        self.rng, self.evaluation, self.encoder = rng, evaluation, encoder
        self.lexicon = Lexicon(evaluation, rng)
        self.prose = [" " + smalltalk.sentence(rng, self.lexicon) for _ in range(4000)]
        self.scraps = ["\n" + smalltalk.scrap(rng, self.lexicon) for _ in range(3000)]

    def pick(self, templates: Sequence[str], mixed: bool = False) -> str:
        """A phrasing of the speaker's side of the split; any, where none is held out or the sides are to be mixed."""
        mixed = mixed and self.evaluation or self.evaluation and not any(t.startswith("~") for t in templates)
        while True:
            template = self.rng.choice(templates)
            if mixed or template.startswith("~") == self.evaluation:
                return self.rng.choice(expansions(template.removeprefix("~")))

    # Facts ------------------------------------------------------------------------------------------------------------

    def subject(self, kind: Kind) -> Subject:
        rng = self.rng
        if kind.subject == "me":
            return Subject("", "")
        if kind.subject == "relation" or (kind.subject == "person" and rng.random() < 0.25):
            relation = rng.choice(RELATIONS)
            return Subject(f"my {relation}", f"your {relation}")
        if kind.subject == "person":
            name = self.lexicon.name(rng)
            return Subject(name, name)
        if kind.subject == "named":
            name = self.lexicon.name(rng)
            return Subject(name, name)
        if kind.subject == "possession":
            owner = self.subject(PERSON)
            things = (rng.choice(THINGS), self.lexicon.word(rng), *(f"favourite {rng.choice(list(phrases.FAVOURITES))}",) * 2)
            thing = rng.choice(things)
            return Subject(f"{owner.mine}'s {thing}", f"{owner.yours}'s {thing}")
        if kind.subject == "owned":
            thing = rng.choice(OWNED)
            return Subject(f"my {thing}", f"your {thing}")
        if kind.subject == "favourite":
            pick = rng.random()
            thing = rng.choice(list(phrases.FAVOURITES) if pick < 0.45 else THINGS) if pick < 0.75 else self.lexicon.word(rng)
            return Subject(thing, thing)
        if kind.subject == "word":
            word = " ".join(self.lexicon.word(rng) for _ in range(rng.choice((1, 1, 2))))
            return Subject(word, word)
        noun = rng.choice(OBJECTS if kind.subject == "object" else SMALL_OBJECTS)
        if rng.random() < 0.25:
            return Subject(f"my {noun}", f"your {noun}")
        thing = f"the {rng.choice(COLOURS if rng.random() < 0.7 else ADJECTIVES)} {noun}"
        return Subject(thing, thing)

    def value(self, kind: Kind, subject: Subject) -> Value:
        rng, lexicon = self.rng, self.lexicon
        if kind.value is not None:
            return kind.value(rng)
        if kind.name == "pet":
            pet = rng.choice(smalltalk.ANIMALS), lexicon.pet_name(rng)
            return (rng.choice(COLOURS), *pet) if "{2}" in kind.said else pet
        if kind.name in ("name", "called"):
            return (lexicon.name(rng),)
        thing = subject.mine.split(" ")[-1]
        if thing in phrases.FAVOURITES and rng.random() < 0.7:
            return (rng.choice(phrases.FAVOURITES[thing]),)
        return (lexicon.title(rng),)

    def fact(self, kinds: tuple[Kind, ...] = phrases.KINDS, subject: Subject | None = None) -> Fact:
        if kinds is phrases.KINDS and not self.evaluation and self.rng.random() < 0.35:
            kinds = LARGE
        kind = self.rng.choice(kinds)
        subject = subject or self.subject(kind)
        return Fact(kind, subject, self.value(kind, subject))

    # Messages ---------------------------------------------------------------------------------------------------------

    def user(self, parts: list[Part], asks: bool = False) -> Message:
        """A user's message; one of five in training is typed carelessly."""
        if not self.evaluation and self.rng.random() < 0.2:
            parts = [(self._careless(parts, asks), USER)]
        return Message("user", parts)

    def _careless(self, parts: list[Part], asks: bool) -> str:
        rng, style = self.rng, self.rng.randrange(8)
        texts = [text for text, _ in parts]
        fixed = [i for i, (_, kind) in enumerate(parts) if kind == USER]  # the words between names and values
        if not fixed:
            return texts[0]
        if style == 0 and asks:
            return "".join(texts).lower().rstrip(".?!")
        if style <= 3:
            for i in fixed:
                if style != 1:
                    texts[i] = texts[i].lower()
                if style != 2:
                    texts[i] = texts[i].rstrip(".?!").replace("'", "")
                if style == 3:
                    texts[i] = texts[i].replace("favourite", "favorite").replace("colour", "color")
            return "".join(texts)
        i = rng.choice(fixed)
        text = texts[i]
        if style == 4:
            texts[i] = text.upper()
        elif style == 5 and len(text) > 4:  # a slip of the finger
            at = rng.randrange(1, len(text) - 2)
            texts[i] = text[:at] + rng.choice((text[at + 1] + text[at] + text[at + 2 :], text[at + 1 :], text[at] + text[at:]))
        elif " " in text[1:]:  # a word too many or too few
            at = text.index(" ", 1 + rng.randrange(text[1:].index(" ") + 1))
            end = text.find(" ", at + 1)
            more = " " + rng.choice(("really", "just", "still", "also", "now", "please", self.lexicon.word(rng)))
            texts[i] = text[:at] + (more + text[at:] if style == 6 or end < 0 else text[end:])
        return "".join(texts)

    def loose(self, items: list[str], end: str) -> str:
        """A template that names the items in any order among words that mean nothing: what counts is who, what and which."""
        rng = self.rng
        rng.shuffle(items)
        cut = [" ".join(rng.choices(GLUE, k=rng.randint(0, 3))) for _ in range(len(items) + 1)]
        text = " ".join(part for pair in itertools.zip_longest(cut, items) for part in pair if part)
        return text.replace("{s}", "{S}", 1) + end if text.startswith("{s}") else text[0].upper() + text[1:] + end

    def tell(self, fact: Fact, update: bool = False) -> list[Part]:
        slots = fact.slots()
        if fact.subject.mine[:1].isupper() and self.rng.random() < 0.3:
            slots["s"], slots["S"] = f"my friend {slots['s']}", f"My friend {slots['s']}"
        wrap = self.pick(phrases.UPDATES if update else phrases.TELL_WRAPS, mixed=True)
        template, kind = self.pick(fact.kind.tell), fact.kind
        if not self.evaluation and self.rng.random() < 0.4:
            template = composed.tell(kind, self.rng) or template
        if kind.noun and not self.evaluation and self.rng.random() < 0.15:
            items = [kind.noun, kind.said] if kind.subject == "me" else [kind.noun, kind.said, "{s}"]
            template = self.loose(items, ".")
        return render(wrapped(wrap, template), slots, USER, NAMED)

    def noted(self, facts: list[Fact], update: bool = False, plain: bool = False) -> Message:
        """What the assistant says when it has been told something. A plain answer repeats no value."""
        rng, fact = self.rng, facts[0]
        if len(facts) > 1:
            choice = phrases.NOTED_MANY
        elif not plain and fact.kind.name == "name" and rng.random() < 0.6:
            return Message("assistant", render(rng.choice(phrases.GREETED), fact.slots(), REPLY, ANSWER))
        elif not plain and rng.random() < 0.4:
            template = rng.choice(phrases.RESTATED).replace("{}", lowered(fact.kind.ask[0][1]))
            return Message("assistant", render(template, fact.slots(), REPLY, ANSWER))
        else:
            choice = phrases.CORRECTED if update else phrases.NOTED
        return Message("assistant", [(rng.choice(choice), REPLY)])

    def ask(self, fact: Fact) -> tuple[Message, Message]:
        """A question about a fact that was told, and its answer."""
        kind = fact.kind
        questions, answer = self.rng.choice(kind.ask)
        question = self.pick(questions)
        if not self.evaluation and self.rng.random() < 0.6:
            question = composed.ask(kind, kind.ask.index((questions, answer)), self.rng)
        if kind.noun and not self.evaluation and self.rng.random() < 0.1:
            question, answer = self.loose([kind.noun, "my" if kind.subject == "me" else "{s}"], "?"), kind.ask[0][1]
        question = wrapped(self.pick(phrases.ASK_WRAPS, mixed=True), question)
        slots = fact.slots()
        return self.user(render(question, slots, USER, NAMED), asks=True), Message("assistant", render(answer, slots, ANSWER, VALUE))

    def ask_unknown(self, fact: Fact) -> tuple[Message, Message]:
        """A question about a fact that was not told."""
        question, _ = self.ask(fact)
        answer = self.rng.choice(phrases.UNKNOWN).replace("{}", fact.kind.unknown)
        return question, Message("assistant", render(answer, fact.slots(), ANSWER, ANSWER))

    def check(self, fact: Fact, known: bool) -> tuple[Message, Message]:
        """"Is it true that ...?", with the right value or with another one."""
        claim = fact if self.rng.random() < 0.5 else Fact(fact.kind, fact.subject, self.value(fact.kind, fact.subject))
        template = lowered(self.pick(fact.kind.tell[:3])).rstrip(".!") + "?"
        question = self.user(render(self.pick(phrases.CHECKS).replace("{}", template), claim.slots(), USER, NAMED))
        if not known:
            return question, self.ask_unknown(fact)[1]
        start = "Yes, " if claim.value == fact.value else "No, "
        return question, Message("assistant", render(start + lowered(fact.kind.ask[0][1]), fact.slots(), ANSWER, VALUE))

    def about(self, fact: Fact) -> tuple[Message, Message]:
        question = render(self.pick(phrases.ABOUT), fact.slots(), USER, NAMED)
        return self.user(question), Message("assistant", render(fact.kind.ask[0][1], fact.slots(), ANSWER, VALUE))

    def chat(self) -> tuple[Message, Message]:
        """One turn of small talk."""
        rng, pick = self.rng, self.rng.random()
        if pick < 0.6:
            says, answers = rng.choice(smalltalk.CHAT)
            said, answer = rng.choice(says), rng.choice(answers)
        else:
            said, answer = (smalltalk.skill if pick < 0.85 else smalltalk.beyond)(rng, self.lexicon)
        return self.user([(said, USER)]), Message("assistant", [(answer, REPLY)])

    def pasted(self, tokens: int, inside: list[Part] | None = None) -> tuple[Message, Message]:
        """A pasted text of about so many tokens, with a told fact somewhere inside if there is one."""
        rng = self.rng
        parts: list[Part] = [(rng.choice(smalltalk.PASTED), FILLER)]
        prose, left, place = rng.random(), tokens, rng.random()
        while left > 0:
            if inside and left <= place * tokens:
                parts += [("\n", FILLER), *inside]
                inside = None
            line = rng.choice(self.prose if rng.random() < prose else self.scraps)
            parts.append((line, FILLER))
            left -= len(self.encoder.ids(line)) if self.encoder else len(line) // 4
        return Message("user", parts), Message("assistant", [(rng.choice(phrases.READ), REPLY)])
