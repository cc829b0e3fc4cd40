"""Who answers: an oracle that knows the secret city. Ours is a knowledge base, not a model.

An answer is a sentence; it never contains the city's name or an alias. What the tables do not
decide is answered with an honest "I can't say.", never with a silent no.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

from envs.guess_my_city import phrasing
from envs.guess_my_city.facts import City, load_cities
from envs.guess_my_city.judge import folded, judge
from envs.guess_my_city.lexicon import fold
from envs.guess_my_city.parser import Query, parse
from envs.guess_my_city.phrasing import CANT_SAY, Split, Wordings

_BARE = ("hemisphere", "bearing", "compare", "neighbours", "group", "time")
"""Topics where a yes says nothing beyond itself."""
_CLAUSE_OF = {"near": "distance", "group": "region"}


class Oracle(Protocol):
    """Answers questions about a secret city: the seam for a language model in our place."""

    kind: str
    """What it is: kb, lm ..."""

    def answer(self, city_id: int, question: str) -> str:
        """A sentence without a newline. It may name the city: the environment withholds it then."""
        ...


class Sentences(NamedTuple):
    """The ways to give one answer: every frame goes with every clause."""

    frames: tuple[str, ...]
    clauses: tuple[str, ...] = ("",)
    valid: bool = True

    def say(self, draw: float) -> str:
        """One of them, by a number in [0, 1)."""
        choice = int(draw * len(self.frames) * len(self.clauses))
        return self._sentence(choice % len(self.frames), choice // len(self.frames))

    def all(self) -> Iterator[str]:
        """Every one of them."""
        for clause in range(len(self.clauses)):
            yield from (self._sentence(frame, clause) for frame in range(len(self.frames)))

    def _sentence(self, frame: int, clause: int) -> str:
        sentence = self.frames[frame].format(self.clauses[clause])
        return sentence[0].upper() + sentence[1:]


_UNANSWERED = Sentences((CANT_SAY,), valid=False)


class KnowledgeBase:
    """The built-in oracle: the tables of `facts`, the parser, and paraphrases of the answers.

    `split` chooses the paraphrases to train on, or those held out. With `reveal_country=False` it
    does not tell the country (but confirms a right guess of it); with `open_answers=False` it answers
    yes or no alone, as the published environment does.
    """

    kind = "kb"

    def __init__(
        self, *, split: Split = "train", reveal_country: bool = True, open_answers: bool = True
    ) -> None:
        if split not in ("train", "held-out"):
            raise ValueError(f"split: {split!r} is neither 'train' nor 'held-out'")
        self.split: Split = split
        self.reveal_country = reveal_country
        self.open_answers = open_answers

    def answer(self, city_id: int, question: str) -> str:
        """The answer in its first wording."""
        return self.sentences(city_id, parse(question)).say(0.0)

    def sentences(self, city_id: int, query: Query) -> Sentences:
        """All wordings of the answer."""
        return _sentences(city_id, query, self.split, self.reveal_country, self.open_answers)


def leaks(city: City, answer: str) -> bool:
    """Whether the answer contains the city's name or an alias, as whole words."""
    text = f" {fold(answer)} "
    return any(f" {folded(name)} " in text for name in city.names)


@lru_cache(maxsize=2**15)
def _sentences(
    city_id: int, query: Query, split: Split, reveal_country: bool, open_answers: bool
) -> Sentences:
    if query.problem:
        sentence = phrasing.ONE_CITY if query.problem == "cities" else phrasing.ONE_QUESTION
        return Sentences((sentence,), valid=False)
    if query.city == city_id:
        return Sentences(phrasing.WON[split])
    if query.topic == "guess":
        return Sentences(phrasing.MISSED[split])
    city = load_cities()[city_id]
    if query.open:
        sentences = _open(city, query, split) if open_answers else _UNANSWERED
    else:
        sentences = _yes_no(city, query, split, bare=not open_answers)
    secret = not reveal_country and query.open and any(
        f" {folded(city.country)} " in f" {fold(clause)} " for clause in sentences.clauses
    )  # fmt: skip
    if secret or any(leaks(city, clause) for clause in sentences.clauses):
        return _UNANSWERED
    return sentences


def _open(city: City, query: Query, split: Split) -> Sentences:
    value = _told(city, query)
    if value is None:
        return _UNANSWERED
    return Sentences(phrasing.OPEN[split], _clauses(query, value, split))


def _yes_no(city: City, query: Query, split: Split, bare: bool) -> Sentences:
    verdict = judge(city, query)
    if verdict is None:
        return _UNANSWERED
    value = None if bare or query.topic in _BARE else _told(city, query)
    # Where "inland" is denied it is for a place beside it: that it lies inland would be no reason.
    if value is not None and (verdict or not (value or "inland" in query.asked)):
        frames: Wordings = phrasing.YES if verdict else phrasing.NO
        return Sentences(frames[split], _clauses(query, value, split))
    return Sentences((phrasing.BARE_YES if verdict else phrasing.BARE_NO)[split])


def _told(city: City, query: Query) -> str | None:
    other = None if query.city is None else load_cities()[query.city]
    return phrasing.told(city, query.topic, other)


def _clauses(query: Query, value: str, split: Split) -> tuple[str, ...]:
    return phrasing.clauses(_CLAUSE_OF.get(query.topic, query.topic), value, split)
