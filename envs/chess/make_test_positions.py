"""Draw the 645 test positions of the endgames and print them, one FEN a line.

    python -m envs.chess.make_test_positions > envs/chess/test_positions.txt

The piece sets take turns. A position where White mates in four moves or fewer is left out as too
easy, as in LMRL-Gym (appendix C.5, which gives this bound; and another, a mate distance of 15,
which no position with queen and rook or with two rooks has).
"""

from __future__ import annotations

import chess
import numpy as np

from envs.chess.mates import moves_to_mate
from envs.chess.positions import NUM_TEST, PIECE_SETS, random_position

_SEED = 645
_EASY = 4
"""Moves to mate."""


def draw_test_positions(count: int, seed: int = _SEED) -> list[str]:
    """`count` different positions that are not easy, the same for the same seed."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        fen = random_position(PIECE_SETS[len(drawn) % len(PIECE_SETS)], rng)
        if not is_easy(fen):
            drawn[fen] = None
    return list(drawn)


def is_easy(fen: str) -> bool:
    """Whether White, to move, mates in at most four moves."""
    return moves_to_mate(chess.Board(fen)) <= _EASY


if __name__ == "__main__":
    print("\n".join(draw_test_positions(NUM_TEST)))
