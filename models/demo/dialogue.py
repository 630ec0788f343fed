"""Writes dialogues of the demo world, of any length: facts told, facts asked, and everything in between."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import phrases
import smalltalk
from world import CONTROL, FILLER, USER, Fact, Message, Speaker


@dataclass
class Dialogue:
    """A conversation that runs until `length` tokens are reached. Whatever is asked was told at a random distance before."""

    speaker: Speaker
    rng: random.Random
    length: int
    messages: list[Message] = field(default_factory=list)
    facts: dict[tuple[str, str], Fact] = field(default_factory=dict)
    position: int = 0  # in tokens
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        if rng.random() < 0.15:
            text = rng.choice(smalltalk.SYSTEM) if rng.random() < 0.7 else rng.choice(self.speaker.prose)[1:]
            self._say(Message("system", [(text, USER)]))
        facts = rng.randint(1, 2 + int(self.length**0.35))
        if rng.random() < 0.3:  # few facts, however long the dialogue
            facts = min(facts, rng.randint(1, 4))
        opening = min(300, self.length / 8)
        for i in range(facts):
            self._plan(rng.random() * (opening if i % 2 == 0 else self.length * 0.9), self._tell)
        for _ in range(rng.randint(0, 2 + 3 * facts // 2)):
            self._plan(rng.random() * self.length, self._ask_unknown)
        while self.position < self.length:
            gap = (self._due[0][0] if self._due else self.length) - self.position
            if gap < 15 and self._due:
                heapq.heappop(self._due)[2]()
            elif gap < 80 or rng.random() < 0.4:
                self._say(*self.speaker.chat())
            else:
                self._say(*self.speaker.pasted(int(40 * (min(gap, 20_000) / 40) ** rng.random())))

    def _plan(self, position: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (position, len(self._due) + self.rng.randrange(1 << 40), action))

    def _say(self, *messages: Message) -> None:
        encoder = self.speaker.encoder
        for message in messages:
            self.messages.append(message)
            self.position += 2 + (encoder.length(message.parts) if encoder else len(message.text) // 4)

    def _later(self) -> float:
        """A position to come, at a distance that is as often of the order of 20 as of the order of the whole rest."""
        rest = max(self.length - self.position, 20)
        return self.position + (20 * (rest / 20) ** self.rng.random() if self.rng.random() < 0.6 else rest * self.rng.random())

    def _new_fact(self) -> Fact:
        """A fact whose key is not taken; often about somebody or something already known."""
        while True:
            fact = self.speaker.fact()
            if self.facts and self.rng.random() < 0.4:
                known = self.rng.choice(list(self.facts.values()))
                kinds = tuple(k for k in phrases.KINDS if k.subject == known.kind.subject)
                fact = self.speaker.fact(kinds, known.subject)
            if fact.key not in self.facts:
                return fact

    def _tell(self) -> None:
        rng = self.rng
        facts = []
        for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
            facts.append(self._new_fact())
            self.facts[facts[-1].key] = facts[-1]
        parts = self.speaker.tell(facts[0])
        for fact in facts[1:]:
            more = self.speaker.tell(fact)
            parts += [(" " + more[0][0], more[0][1]), *more[1:]]
        pick = rng.random()
        if pick < 0.1:
            self._say(*self.speaker.pasted(int(30 * 6 ** rng.random()), parts))
        elif pick < 0.14:  # told and asked in one breath
            question, answer = self.speaker.ask(rng.choice(facts))
            self._say(Message("user", [*parts, ("\n", USER), *question.parts]), answer)
        else:
            self._say(self.speaker.user(parts), self.speaker.noted(facts))
        for fact in facts:
            for _ in range(rng.choice((1, 1, 2) if self.length < 4096 else (1, 2, 3, 4))):
                self._plan(self._later(), lambda key=fact.key: self._ask(key))
            if rng.random() < 0.12:
                self._plan(self._later(), lambda key=fact.key: self._update(key))

    def _update(self, key: tuple[str, str]) -> None:
        fact = self.speaker.fact((self.facts[key].kind,), self.facts[key].subject)
        self.facts[key] = fact
        self._say(self.speaker.user(self.speaker.tell(fact, update=True)), self.speaker.noted([fact], update=True))
        self._plan(self._later(), lambda: self._ask(key))

    def _ask(self, key: tuple[str, str]) -> None:
        fact, pick = self.facts[key], self.rng.random()
        alone = fact.subject.mine != "" and sum(f.subject == fact.subject for f in self.facts.values()) == 1
        if pick < 0.05:
            self._say(*self.speaker.check(fact, known=True))
        elif pick < 0.1 and alone:
            self._say(*self.speaker.about(fact))
        elif pick < 0.15:  # at the end of a pasted text
            text, _ = self.speaker.pasted(int(30 * 20**self.rng.random()))
            question, answer = self.speaker.ask(fact)
            self._say(Message("user", [*text.parts, (self.rng.choice(("\n", "\n\n")), FILLER), *question.parts]), answer)
        else:
            self._say(*self.speaker.ask(fact))

    def _ask_unknown(self) -> None:
        fact = self._new_fact()
        self._say(*(self.speaker.check(fact, known=False) if self.rng.random() < 0.05 else self.speaker.ask_unknown(fact)))


def row(speaker: Speaker, rng: random.Random, length: int) -> tuple[np.ndarray, np.ndarray]:
    """One dialogue as training data: ids uint16 [length] and classes uint8 [length]."""
    encoder = speaker.encoder
    ids, classes = [encoder.start], [CONTROL]
    for message in Dialogue(speaker, rng, length).messages:
        more, kinds = encoder.message(message)
        ids += more
        classes += kinds
    return np.array(ids[:length], np.uint16), np.array(classes[:length], np.uint8)
