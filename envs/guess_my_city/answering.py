"""Guess My City answered by a language model: what it is told of the city, and asked.

The environment withholds an answer that contains the city's name or an alias of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import get_args

from envs.answering import OtherSide, Request, TextModel, Turn
from envs.core import Episode
from envs.guess_my_city.facts import load_cities
from envs.guess_my_city.parser import parse
from envs.guess_my_city.phrasing import CANT_SAY, Split
from envs.guess_my_city.simulator import KnowledgeBase

INSTRUCTION = f"""\
Someone must find out which city you are from. Answer the question about it truthfully, in one short sentence.
Never say the city's name or another name of it. Where the question has no clear answer, or is no question,
reply with exactly: {CANT_SAY}"""
MAX_TOKENS = 48
_KNOWLEDGE = tuple(
    KnowledgeBase(split=split, reveal_country=reveal, open_answers=told)
    for split, reveal, told in product(get_args(Split), (True, False), (True, False))
)
"""The built-in simulator with all its arguments: a turn does not say which answered."""
_LONGEST_QUESTION = 300
"""Characters that are shown to a model."""


class ModelOracle:
    """An oracle that asks a model."""

    def __init__(self, model: TextModel) -> None:
        self.kind = model.kind
        self._model = model

    def answer(self, city_id: int, question: str) -> str:
        """The model's line, whatever it says: see `GuessMyCityEnv`."""
        return self._model.complete(Request(INSTRUCTION, prompt(city_id, question), MAX_TOKENS))


def prompt(city_id: int, question: str) -> str:
    asked = " ".join(question[:_LONGEST_QUESTION].split())
    return (
        f"Answer the question about the city truthfully.\n{facts_line(city_id)}question: {asked}\nanswer:\n"
    )


@cache
def facts_line(city_id: int) -> str:
    """The city and the facts that most questions are about, in one line."""
    city = load_cities()[city_id]
    facts = {
        "country": city.country,
        "continent": " and ".join(city.continents),
        "population": f"{city.population:,}",
        "capital": {True: "yes", False: "no", None: ""}[city.capital],
        "language": ", ".join(city.languages),
        "currency": city.currency,
        "sea": city.sea,
        "river": city.river,
        "climate": city.climate,
        "religion": city.religion,
        "landmarks": ", ".join(city.landmarks),
        "food": ", ".join(city.foods),
    }
    told = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return f"city: {city.name}; {told}\n"


def turns(episode: Episode) -> Iterator[Turn]:
    """Every question with its answer; none for a published city that is none of ours."""
    if not 0 <= episode.task_id < len(load_cities()):
        return
    for question, answer in zip(episode.segments[1::2], episode.segments[2::2], strict=False):
        yield Turn(question.text, prompt(episode.task_id, question.text), answer.text)


def agrees(city_id: int, turn: Turn, answer: str) -> bool:
    """Whether it is what was said, or another wording of it by the same knowledge base.

    Which one that was is told by what it said: two of them have all wordings of an answer in common, or none.
    """
    query, both = parse(turn.said), {turn.answer.strip(), answer.strip()}
    return len(both) == 1 or any(both.issubset(kb.sentences(city_id, query).all()) for kb in _KNOWLEDGE)


SIDE = OtherSide(
    arguments=lambda model: {"oracle": ModelOracle(model)},
    turns=turns,
    window=1,
    agrees=agrees,
    max_tokens=MAX_TOKENS,
    greedy=True,
)
