"""Who answers: Stockfish held to a strength, Stockfish as it is, or a random mover.

LMRL-Gym's opponent is Stockfish 15.1 with `UCI_Elo` 1200 and 100 ms a move. Stockfish 15.1 takes
1350 to 2850 and ignores anything else, so the paper's opponent was set to 1350 and ours is called
that. Stockfish weakens itself by looking at four candidate moves at depth 1 + level, which is depth
1 at 1350, and choosing among them at random; the rest of its time goes into deeper searches that
only fill the hash for later moves. Its choice is seeded with the clock: no game can be repeated.

`EnginePlayer` asks for the same four candidates at the same depth and makes Stockfish's choice with
the game's own generator. It answers from an empty hash, which makes it reproducible, a hundred
times faster, and weaker than one that thinks 40,000 nodes a move and remembers them (it scored
32 % in 54 games). `native=True` is Stockfish's own choice with its hash kept, by an engine of its own:
the searches of others, such as White's, would clear the hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import chess
import numpy as np

from envs.chess.engine import Engine, Line, remembering_engine, shared_engine

LOWEST_ELO: Final = 1350
HIGHEST_ELO: Final = 2850

_CANDIDATES: Final = 4
_NATIVE_OPTIONS: Final[dict[str, str | int]] = {"UCI_LimitStrength": "true", "Hash": 16}
# Stockfish 15.1's own units: what 100 centipawns of output, a pawn, and mate are worth inside.
_HUNDRED_CENTIPAWNS: Final = 361
_PAWN: Final = 126
_MATE: Final = 32_000


class Player(Protocol):
    """Chooses a legal move in a position where there is one."""

    def choose(self, board: chess.Board, rng: np.random.Generator) -> chess.Move: ...


@dataclass(frozen=True)
class RandomPlayer:
    """Every legal move is as likely."""

    def choose(self, board: chess.Board, rng: np.random.Generator) -> chess.Move:
        moves = list(board.legal_moves)
        return moves[int(rng.random() * len(moves))]


@dataclass(frozen=True)
class EnginePlayer:
    """Stockfish. ValueError for a strength that it does not have."""

    elo: int | None = LOWEST_ELO
    """None for full strength."""
    nodes: int = 10_000
    """Most positions looked at for one move."""
    movetime_ms: int | None = None
    """A limit by the clock instead of by nodes; games are then no longer reproducible."""
    native: bool = False
    """Leave the weakening to Stockfish's `UCI_LimitStrength` and keep its hash between moves, which
    is not reproducible."""

    def __post_init__(self) -> None:
        if self.elo is not None and not LOWEST_ELO <= self.elo <= HIGHEST_ELO:
            raise ValueError(
                f"elo: {self.elo} is not in [{LOWEST_ELO}, {HIGHEST_ELO}]; Stockfish ignores any "
                "other strength (the paper's 1200 was in effect 1350). None is full strength"
            )
        for name in ("nodes", "movetime_ms"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is not a positive number")

    @property
    def engine(self) -> Engine:
        """Who is asked."""
        return remembering_engine() if self.native and self.elo is not None else shared_engine()

    def choose(self, board: chess.Board, rng: np.random.Generator) -> chess.Move:
        """Raises EngineNotFoundError or EngineError where Stockfish cannot be had."""
        return chess.Move.from_uci(self._choose(board.fen(), rng))

    def _choose(self, fen: str, rng: np.random.Generator) -> str:
        clock = self.movetime_ms is not None
        limit = f"movetime {self.movetime_ms}" if clock else f"nodes {self.nodes}"
        if self.elo is None:
            return self.engine.ask(fen, limit).best
        if self.native:
            options = {**_NATIVE_OPTIONS, "UCI_Elo": self.elo}
            return self.engine.ask(fen, limit, options, fresh=False).best
        level = skill_level(self.elo)
        limit = f"depth {1 + int(level)} {limit}"
        return pick(self.engine.ask(fen, limit, {"MultiPV": _CANDIDATES}).lines, level, rng)


def skill_level(elo: int) -> float:
    """Stockfish 15.1's skill level (0 to 20) for an Elo rating."""
    return float(((elo - 1346.6) / 143.4) ** (1 / 0.806))


def pick(lines: Sequence[Line], level: float, rng: np.random.Generator) -> str:
    """Choose among candidates, best first, by the rule of Stockfish 15.1's `Skill::pick_best`.

    Each candidate's score gets back part of what it lacks to the best, and a random share of the
    spread; both are larger at a lower level. Scores are recovered from rounded centipawns.
    """
    scores = [_internal_score(line) for line in lines]
    weakness = 120 - 2 * level
    spread = min(scores[0] - scores[-1], _PAWN)
    noise = rng.random(len(lines)).tolist()
    pushed = [
        score + int((weakness * (scores[0] - score) + spread * int(u * int(weakness))) / 128)
        for score, u in zip(scores, noise, strict=True)
    ]
    best = max(range(len(lines)), key=lambda i: (pushed[i], i))  # of equals, Stockfish's last
    return lines[best].move


def _internal_score(line: Line) -> int:
    if line.centipawns is not None:
        return int(line.centipawns * _HUNDRED_CENTIPAWNS / 100)
    assert line.mate is not None
    return _MATE - 2 * line.mate + 1 if line.mate > 0 else -_MATE - 2 * line.mate
