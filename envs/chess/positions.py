"""Where endgames start: 645 fixed test positions, and as many for training as the paper drew.

A start has one of four piece sets on random distinct squares, White to move and not in check
(LMRL-Gym, appendix C.5). Test positions are kept in `test_positions.txt`, which
`make_test_positions.py` wrote; a training position is a function of its number and is never one of
the test positions.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import chess
import numpy as np

PIECE_SETS: Final = ("kQK", "kRK", "kQRK", "kRRK")
"""FEN letters: the lone black king against White."""
NUM_TEST: Final = 645
NUM_TRAINING: Final = 120_000
"""30,000 for each piece set, as in the paper."""


def random_position(pieces: str, rng: np.random.Generator) -> str:
    """The FEN of a legal position with these pieces, White to move and not in check."""
    while True:
        squares = rng.permutation(64)[: len(pieces)].tolist()
        board = chess.Board(None)
        board.set_piece_map(
            {square: chess.Piece.from_symbol(p) for square, p in zip(squares, pieces, strict=True)}
        )
        if board.is_valid() and not board.is_check():
            return board.fen()


def training_position(number: int, excluded: Collection[str]) -> str:
    """Training position `number` as a FEN; one that is `excluded` is drawn again."""
    rng = np.random.default_rng(number)
    while True:
        fen = random_position(PIECE_SETS[number % len(PIECE_SETS)], rng)
        if fen not in excluded:
            return fen


@cache
def test_positions() -> tuple[str, ...]:
    """Our 645 test positions as FEN."""
    text = files("envs.chess").joinpath("test_positions.txt").read_text(encoding="utf-8")
    return parse_positions(text.splitlines(), "test_positions.txt")


def read_positions(path: Path) -> tuple[str, ...]:
    """Test positions of a file, such as the published `test_positions.jsonl`."""
    with path.open(encoding="utf-8") as lines:
        return parse_positions(lines, str(path))


def parse_positions(lines: Iterable[str], source: str) -> tuple[str, ...]:
    """One FEN a line, in quotes or not, White to move; ValueError names the first line that is none."""
    positions = []
    for number, line in enumerate(lines, start=1):
        try:
            text = json.loads(line) if line.startswith('"') else line.strip()
            board = chess.Board(text)
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: no FEN position: {error}") from error
        if board.turn != chess.WHITE or not board.is_valid():
            raise ValueError(f"{source}, line {number}: no legal position with White to move: {board.fen()}")
        positions.append(board.fen())
    return tuple(positions)
