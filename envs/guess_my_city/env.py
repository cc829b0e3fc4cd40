"""Guess My City: find out which city the other one is from, in at most twenty questions.

Source: LMRL-Gym, section "Guess My City". Each question costs 1, the one that names the city is
free. Unlike the published environment, ours answers open questions with sentences and is won by
naming the city (its win test never succeeds, and its oracle only says yes or no).
"""

from __future__ import annotations

from typing import Any

from envs.core import Outcome, State, TextEnv
from envs.guess_my_city import phrasing
from envs.guess_my_city.facts import CityPart, city_ids, load_cities
from envs.guess_my_city.parser import parse
from envs.guess_my_city.phrasing import Split
from envs.guess_my_city.simulator import KnowledgeBase, Oracle, leaks

FIRST_OBSERVATION = "Questions:\n"
MAX_QUESTIONS = 20


class GuessMyCityEnv(TextEnv):
    """The game: a task id is a city. Running out of questions ends the game (terminated)."""

    num_tasks = 100
    simulator = KnowledgeBase.kind

    def __init__(
        self,
        *,
        oracle: Oracle | None = None,
        cities: CityPart = "all",
        split: Split = "train",
        reveal_country: bool = True,
        open_answers: bool = True,
    ) -> None:
        """`cities` is the part that `reset` draws from (a `task_id` may be any city). The arguments after
        it are for the built-in oracle, `KnowledgeBase`; its `split` is that of the answers' wordings.
        """
        super().__init__()
        self.split_tasks = None if cities == "all" else city_ids(cities)
        self._knowledge = KnowledgeBase(split=split, reveal_country=reveal_country, open_answers=open_answers)
        self._oracle = oracle
        if oracle is not None:
            self.simulator = oracle.kind

    def privileged(self) -> dict[str, Any]:
        """`secret`: the city's name and aliases."""
        return {"secret": list(load_cities()[self._task_id].names)}

    def _reset(self, task_id: int) -> str:
        return FIRST_OBSERVATION

    def _step(self, action: str) -> Outcome:
        query = parse(action)
        won = query.city == self._task_id
        if self._oracle is None or won or query.problem:
            sentences = self._knowledge.sentences(self._task_id, query)
            answer, valid = sentences.say(self.np_random.random()), sentences.valid
        else:
            answer = self._ask(self._oracle, action)
            valid = answer != phrasing.CANT_SAY
        return Outcome(
            f"{answer}\n",
            reward=0.0 if won else -1.0,
            terminated=won or self._turn >= MAX_QUESTIONS,
            success=won,
            valid=valid,
        )

    def _ask(self, oracle: Oracle, question: str) -> str:
        """Another oracle's answer as one line; one that gives the city away is withheld."""
        answer = " ".join(oracle.answer(self._task_id, question).split())
        if not answer or leaks(load_cities()[self._task_id], answer):
            return phrasing.CANT_SAY
        return answer

    def _get_state(self) -> State:
        return {}

    def _set_state(self, state: State) -> None:
        """The city and the turn are all there is, and the base class keeps both."""
