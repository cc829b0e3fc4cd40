"""Who plays White: the policies that make the two data sets, and the baselines.

Chess data are games of Stockfish against the opponent, at a strength drawn for each game; endgame
data are games of a perfect player who now and then moves at random, how often is drawn for each
game (LMRL-Gym, appendices C.4 and C.5). Each reads the board from the observation.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

import chess
import numpy as np

from envs.chess.mates import OptimalPlayer
from envs.chess.simulator import LOWEST_ELO, EnginePlayer, Player, RandomPlayer
from envs.chess.text import read_fen, write_san
from envs.core import ScriptedPolicy, TextEnv

_NOMINAL_ELO: Final = (800, 1600)
_EXPERT: Final = EnginePlayer(elo=None, nodes=10_000)
_OPTIMAL: Final = OptimalPlayer()
_RANDOM: Final = RandomPlayer()


class _BoardPolicy(ScriptedPolicy):
    """Reads the position, lets a player choose, writes the move."""

    def act(self, observation: str) -> str:
        board = chess.Board(read_fen(observation))
        return write_san(board.san(self.player().choose(board, self.rng)))

    @abstractmethod
    def player(self) -> Player:
        """Who chooses the next move."""


class RandomPolicy(_BoardPolicy):
    """A random legal move."""

    name = "random"

    def player(self) -> Player:
        return _RANDOM


class ExpertPolicy(_BoardPolicy):
    """Stockfish at full strength, 10,000 nodes a move."""

    name = "expert"

    def player(self) -> Player:
        return _EXPERT


class LimitedPolicy(_BoardPolicy):
    """Stockfish at an Elo drawn for the game from 800 to 1600, which below 1350 means 1350."""

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        low, high = _NOMINAL_ELO
        nominal = low + int(rng.random() * (high - low + 1))
        self._player = EnginePlayer(elo=max(LOWEST_ELO, nominal))

    def player(self) -> Player:
        return self._player


class OptimalPolicy(_BoardPolicy):
    """Endgames: the fastest mate."""

    name = "optimal"

    def player(self) -> Player:
        return _OPTIMAL


class NoisyOptimalPolicy(_BoardPolicy):
    """Endgames: the fastest mate, but a random move with a probability drawn from [0, 1)."""

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._epsilon = float(rng.random())

    def player(self) -> Player:
        return _RANDOM if self.rng.random() < self._epsilon else _OPTIMAL
