"""Players of Wordle: the policy behind the published data, and the two that bracket it.

Every player knows the word list and sees the feedback, nothing else.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from envs.core import ScriptedPolicy, TextEnv
from envs.wordle.env import WordleEnv
from envs.wordle.rules import parse_guess, spaced
from envs.wordle.solver import Indices, solver_for


class WordlePlayer(ScriptedPolicy):
    """Keeps the words that no feedback has ruled out; how to pick a guess is the subclass's."""

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        if not isinstance(env, WordleEnv):
            raise TypeError(f"{self.name}: plays WordleEnv, not {type(env).__name__}")
        self._words = env.words
        self.solver = solver_for(env.words, env.feedback)
        self.candidates = self.solver.all
        self._guess: int | None = None

    def act(self, observation: str) -> str:
        if self._guess is not None:
            self.candidates = self.solver.consistent(self.candidates, self._guess, observation)
        self._guess = self.pick()
        return spaced(self._words[self._guess])

    def played(self, action: str) -> None:
        guess = parse_guess(action)
        self._guess = self._words.index(guess) if guess in self._words else None

    @abstractmethod
    def pick(self) -> int:
        """The next guess, as a position in the vocabulary."""

    def one_of(self, words: Indices) -> int:
        """A uniform draw."""
        return int(words[int(self.rng.random() * len(words))])


class Behaviour(WordlePlayer):
    """A possible word with probability 0.33, otherwise any word of the list.

    The paper says 34 %; 0.33 is what the published data was launched with, and its mean return
    (-4.1217) agrees.
    """

    name = "behaviour"
    consistency = 0.33

    def pick(self) -> int:
        reasons = self.rng.random() < self.consistency
        return self.one_of(self.candidates if reasons else self.solver.all)


class RandomWord(Behaviour):
    """Any word of the list, whatever the feedback."""

    name = "random"
    consistency = 0.0


class Expert(WordlePlayer):
    """The possible word of maximum information gain; ties are drawn.

    The paper's upper bound (-1.94). Not optimal: an impossible word can tell more, and a player who
    looks further ahead than one guess can do better.
    """

    name = "expert"

    def pick(self) -> int:
        return self.one_of(self.solver.most_informative(self.candidates))
