"""Players of Guess My City: random, the data set's guessers of mixed skill, and an expert.

The published data were played by language models that ask much, infer little and name a city on
the last question. Ours forget answers, ask what they could know, and name a city at the end; how
much of each is drawn anew for each episode. They know the tables but see nothing but the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from envs.core import ScriptedPolicy, TextEnv
from envs.guess_my_city import belief
from envs.guess_my_city.env import MAX_QUESTIONS
from envs.guess_my_city.phrasing import CANT_SAY
from envs.guess_my_city.questions import Question, bank

_T = TypeVar("_T")

_DRAWS = 8
"""Random numbers an action may need at most."""


class _Player(ScriptedPolicy):
    """Keeps the set of cities that the answers leave possible."""

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._draws: Iterator[float] = iter(rng.random(_DRAWS * (MAX_QUESTIONS + 1)).tolist())
        self._cities = belief.everywhere()
        self._asked: list[Question] = []
        self._last: Question | None = None
        self._turn = 0

    def act(self, observation: str) -> str:
        if self._last is not None:
            self._hear(self._last, observation)
        self._turn += 1
        self._last = self._next()
        return self._one_of(self._last.wordings) + "\n"

    def played(self, action: str) -> None:
        self._last = Question((action.removesuffix("\n"),))

    def _hear(self, question: Question, answer: str) -> None:
        left = self._cities & belief.compatible(question, answer)
        self._cities = left or belief.everywhere()

    def _next(self) -> Question:
        raise NotImplementedError

    def _draw(self) -> float:
        return next(self._draws)

    def _one_of(self, things: Sequence[_T]) -> _T:
        return things[int(self._draw() * len(things))]

    def _any_question(self, is_open: bool) -> Question:
        """A question of the bank, each topic as likely as another; rarely one asked before."""
        for _ in range(2):
            question = self._one_of(self._one_of(_topics(is_open)))
            if question not in self._asked:
                break
        self._asked.append(question)
        return question

    def _a_guess(self) -> Question:
        return belief.guess(self._one_of(belief.members(self._cities)))


@cache
def _topics(is_open: bool) -> tuple[tuple[Question, ...], ...]:
    return tuple(questions for questions in bank().values() if questions[0].is_open == is_open)


class Random(_Player):
    """Asks anything, or names any city, and hears no answer."""

    name = "random"

    def _hear(self, question: Question, answer: str) -> None:
        pass

    def _next(self) -> Question:
        if self._draw() < 0.5:
            return self._a_guess()
        return self._any_question(is_open=self._draw() < 0.5)


@dataclass(frozen=True, slots=True)
class Skill:
    """How well a guesser plays."""

    memory: float
    """Chance that it takes an answer into account (that to a guess it always does)."""
    open_share: float
    """Chance that a question is an open one, rather than for a yes or no."""
    haste: float
    """Chance that it names the city when one is left, rather than ask on until the last question."""


SKILLS = (
    *(Skill(memory, 0.1, 0.0) for memory in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75)),
    Skill(memory=0.9, open_share=0.25, haste=0.9),
)
"""Fitted to table 1: most guessers ask to the end, a few are quick."""


class Behaviour(_Player):
    """The data set's guesser: its skill is drawn for each episode."""

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._skill = self._one_of(SKILLS)
        self._guessing = False

    def _hear(self, question: Question, answer: str) -> None:
        if self._guessing or self._draw() < self._skill.memory:
            super()._hear(question, answer)

    def _next(self) -> Question:
        known = self._cities.bit_count() == 1
        hasty = known and self._draw() < self._skill.haste
        self._guessing = hasty or self._turn == MAX_QUESTIONS
        if self._guessing:
            return self._a_guess()
        return self._any_question(is_open=self._draw() < self._skill.open_share)


class Expert(_Player):
    """Asks the question of most information, by the tables, and names the city when it is known."""

    name = "expert"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._open_answers = True

    def _hear(self, question: Question, answer: str) -> None:
        super()._hear(question, answer)
        if question.is_open and answer.startswith(CANT_SAY):
            self._open_answers = False

    def _next(self) -> Question:
        question = belief.most_telling(self._cities, self._open_answers)
        if question is None or self._cities.bit_count() <= 2:
            return self._a_guess()
        return question
