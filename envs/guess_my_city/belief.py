"""Which cities an answer leaves possible, for players that know the tables.

A set of cities is an int with a bit for each. A player reads the answer's text alone, in any of the
simulator's wordings; one that it does not recognise tells it nothing.
"""

from __future__ import annotations

from functools import cache, lru_cache
from math import log2

from envs.guess_my_city.facts import load_cities
from envs.guess_my_city.parser import parse
from envs.guess_my_city.phrasing import CANT_SAY, Split
from envs.guess_my_city.questions import Question, bank, guesses
from envs.guess_my_city.simulator import KnowledgeBase, Sentences

SPLITS: tuple[Split, ...] = ("train", "held-out")


@cache
def everywhere() -> int:
    """All cities."""
    return (1 << len(load_cities())) - 1


def members(cities: int) -> list[int]:
    """The task ids in a set of cities, in order."""
    found = []
    while cities:
        lowest = cities & -cities
        found.append(lowest.bit_length() - 1)
        cities ^= lowest
    return found


def compatible(question: Question, answer: str) -> int:
    """The cities that may answer so; all of them for a sentence that the simulator never says."""
    return _meanings(question).get(answer.rstrip("\n"), everywhere())


@cache
def _meanings(question: Question) -> dict[str, int]:
    """For every sentence that the simulator may answer with: the cities where it may."""
    query = parse(question.wordings[0])
    cities: dict[Sentences, int] = {}
    for split in SPLITS:
        for open_answers in (True, False):
            simulator = KnowledgeBase(split=split, open_answers=open_answers)
            for city_id in range(len(load_cities())):
                sentences = simulator.sentences(city_id, query)
                cities[sentences] = cities.get(sentences, 0) | 1 << city_id
    meanings: dict[str, int] = {}
    for sentences, where in cities.items():
        for sentence in sentences.all():
            meanings[sentence] = meanings.get(sentence, 0) | where
    if question.is_open:  # refused for other reasons too: see `open_answers`, `reveal_country`
        meanings.pop(CANT_SAY, None)
    return meanings


@cache
def outcomes(question: Question, open_answers: bool) -> tuple[int, ...]:
    """The sets into which the answers to a question part the cities.

    An open question that some city does not answer counts as telling nothing.
    """
    simulator = KnowledgeBase(open_answers=open_answers)
    parts: dict[str, int] = {}
    for city_id in range(len(load_cities())):
        answer = simulator.answer(city_id, question.wordings[0])
        parts[answer] = parts.get(answer, 0) | 1 << city_id
    refused = question.is_open and CANT_SAY in parts
    return (everywhere(),) if refused else tuple(parts.values())


@lru_cache(maxsize=2**14)
def most_telling(cities: int, open_answers: bool) -> Question | None:
    """The question with the most information about which of `cities` it is; None without any."""
    best, most = None, 0.0
    for question in (question for questions in bank().values() for question in questions):
        sizes = [(part & cities).bit_count() for part in outcomes(question, open_answers)]
        surprise = log2(sum(sizes)) - sum(n * log2(n) for n in sizes if n) / sum(sizes)
        if surprise > most + 1e-9:
            best, most = question, surprise
    return best


def guess(city_id: int) -> Question:
    """The question that names a city."""
    return guesses()[city_id]
